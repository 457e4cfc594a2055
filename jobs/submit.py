"""Carry a command out on a Ray cluster elsewhere: the same command line, as a Ray job, with its result brought back."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from pydantic_settings import CliPositionalArg

from jobs import probe
from jobs.cluster_client import ClusterClient
from mnist_core.config_cluster import SUBMIT_FIELDS
from mnist_core.config_fields import CommandConfig
from mnist_core.errors import ConfigError, JobFailedError, ResourcesError, RunInterruptedError
from mnist_core.registry import is_reference

DISTRIBUTION: Final = "mnist-on-ray"
ROOT: Final = Path(probe.__file__).parents[1]
PYTHONS: Final = ("3.11", "3.12", "3.13")
EXCLUDED: Final = ["__pycache__", "*.pyc"]
CHOOSES_DEFAULTS: Final = ("recipe", "gpu")
"""Fields that other fields' defaults depend on."""

RAYS_OWN: Final = re.compile(r"^Running entrypoint for job | job_manager\.py:\d+ -- ")
"""What Ray writes into the log of every job."""

_POSITIONAL: Final = CliPositionalArg[str].__metadata__[0]  # type: ignore[attr-defined]

Show = Callable[[dict[str, Any]], None]


def run(config: Any, show: Show) -> dict[str, Any]:
    """Submit a command, follow it, and bring its result back.

    Args:
        config: Of the command, with ``address``.
        show: Gets the command's result; an endpoint has one when it is ready, and one when it has stopped.

    Returns:
        The command's last result; with ``--detach``, which shows none, ``job``, ``address`` and ``command``.

    Raises:
        ConfigError: The command line makes no sense there, or the command itself says so.
        JobFailedError: The job failed or was stopped.
        ResourcesError: No cluster answers, or it cannot run this package.
        RunInterruptedError: Ctrl-C.
        UnauthorizedError: The cluster does not take the token.
    """
    words = command_line(config)
    client = ClusterClient(config)
    environment = _choose_environment(client)
    command = shlex.join(["mnist", *words])
    entrypoint = shlex.join(["python", "-m", "jobs.cli", words[0], "--json", *words[1:]])
    job = client.submit(entrypoint, environment, {"command": command})
    if config.detach:
        return {"job": job, "address": config.address, "command": command}
    _say(f"job {job} on {config.address}: {command}")
    return _follow(client, job, show)


def render(result: dict[str, Any]) -> str:
    """Put the result of a job that was left running in words for a terminal."""
    job, at = result["job"], f"--address {result['address']}"
    return f"{job}\nfollow it: mnist jobs logs {job} {at}\nstop it:   mnist jobs stop {job} {at}"


def command_line(config: CommandConfig) -> list[str]:
    """The words after ``mnist`` that give the same configuration on the cluster.

    Values from the environment and from a file become flags. Local paths stay what they are, made absolute: they must
    mean the same on every node.

    Raises:
        ConfigError: Nobody on the cluster could read the storage.
    """
    cls = type(config)
    fields = {name: field for name, field in cls.model_fields.items() if name not in SUBMIT_FIELDS | {"json_output"}}
    given = config.model_dump(mode="json")
    positional = [name for name, field in fields.items() if _POSITIONAL in field.metadata]
    chosen = {name: given[name] for name in CHOOSES_DEFAULTS if name in fields}
    usual = cls(**{name: given[name] for name in positional}, **chosen).model_dump(mode="json")
    if given["storage"] == usual["storage"]:
        raise ConfigError("--storage: missing; with --address an s3://, gs:// URI, or a folder that all nodes share")
    flags: list[str] = []
    for name, field in fields.items():
        expected = field.get_default() if name in chosen else usual[name]
        if name not in positional and given[name] != expected and not _is_this_machines(name, given[name]):
            flags += _flag(name, _absolute(name, given[name]))
    values = [str(word) for name in positional for word in _as_list(_absolute(name, given[name]))]
    return [config.command, *flags, *(["--", *values] if values else [])]


def _is_this_machines(name: str, value: Any) -> bool:
    """Whether it is where this machine keeps its datasets; the cluster's nodes have a place of their own."""
    here = os.environ.get("MNIST_DATA_DIR")
    return name == "data_dir" and here is not None and value == str(Path(here).absolute())


def _flag(name: str, value: Any) -> list[str]:
    word = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [word if value else word.replace("--", "--no-", 1)]
    return [part for each in _as_list(value) for part in (word, str(each))]


def _as_list(value: Any) -> list[Any]:
    return [each for each in (value if isinstance(value, list) else [value]) if each is not None]


def _absolute(name: str, value: Any) -> Any:
    """Inputs and outputs as paths that do not depend on a working directory."""
    if name == "dataset" and Path(value).exists():
        return str(Path(value).absolute())
    if (name == "labels" and value) or (name == "model" and not is_reference(value)):
        return _here(value)
    return [_here(each) for each in value] if name in ("paths", "images") else value


def _here(word: str) -> str:
    if re.match(r"@?[a-z0-9]+://|@?/", word):
        return word
    return f"@{Path.cwd() / word[1:]}" if word.startswith("@") else str(Path.cwd() / word)


def _choose_environment(client: ClusterClient) -> dict[str, Any]:
    """Look at the cluster's head, and decide what the job has to bring along."""
    names = required()
    source = Path(probe.__file__).read_text(encoding="utf-8")
    lines: list[str] = []
    job = client.submit(shlex.join(["python", "-c", source, *names]), {}, {"command": "mnist: what is on this node?"})
    info = client.follow(job, lines.append)
    try:
        there = json.loads(lines[-1])
    except (IndexError, ValueError) as err:
        raise ResourcesError(
            f"{client.address}: cannot run Python on its head ({info.message or 'no reason given'})"
        ) from err
    plan = plan_environment(probe.look(names), there)
    for remark in plan.remarks:
        _say(remark)
    return plan.environment


def required() -> list[str]:
    """The distributions that this package needs, and those that it needs of another's extras, as in ``ray[train]``."""
    extras = [(each.name, extra) for each in _requirements(DISTRIBUTION) for extra in each.extras]
    wanted = {each.name for name, extra in extras for each in _requirements(name, extra)}
    here = probe.look(sorted(wanted))["versions"]
    return sorted(_direct() | {name for name in wanted if here[name]})


def _direct() -> set[str]:
    return {each.name for each in _requirements(DISTRIBUTION)}


def _requirements(name: str, extra: str = "") -> list[Requirement]:
    """What a distribution needs on this machine, with one of its extras."""
    found = [Requirement(text) for text in importlib.metadata.requires(name) or []]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": extra})]


@dataclass(frozen=True)
class Plan:
    """What a job brings along, as Ray's runtime environment, and what its user should know."""

    environment: dict[str, Any]
    remarks: list[str]


def plan_environment(here: dict[str, Any], there: dict[str, Any]) -> Plan:
    """Compare two machines.

    Args:
        here: What ``probe.look`` says of this one.
        there: What it says of the cluster's head.

    Raises:
        ResourcesError: The cluster cannot run this package whatever is brought along.
    """
    for name, found, expected in (
        ("Python", there["python"], PYTHONS),
        ("ray", there["versions"]["ray"], (_minor(here["versions"]["ray"]),)),
    ):
        if _minor(found) not in expected:
            raise ResourcesError(f"the cluster runs {name} {found}, expected {' or '.join(expected)} on all its nodes")
    missing = [name for name, version in there["versions"].items() if version is None]
    direct = _direct()
    other = [
        f"{name} {theirs} ({here['versions'][name]} here)"
        for name, theirs in there["versions"].items()
        if theirs is not None and theirs != here["versions"][name] and name in direct
    ]
    # An empty address: a node's own environment must not send the command on.
    remarks: list[str] = []
    environment: dict[str, Any] = {"env_vars": {"MNIST_ADDRESS": ""}}
    if other:
        remarks.append(f"warning: the cluster has other versions: {', '.join(other)}")
    if missing:
        environment["uv"] = {"packages": [f"{name}=={here['versions'][name]}" for name in missing]}
        remarks.append(f"the cluster lacks {', '.join(missing)}: each node installs them for this job, once")
    if there["code"] != here["code"]:
        environment["py_modules"] = [str(ROOT / package) for package in probe.PACKAGES]
        environment["excludes"] = EXCLUDED
        found = "lacks this package" if there["code"] is None else "has other code of this package"
        remarks.append(f"the cluster {found}: this machine's is sent along")
    return Plan(environment, remarks)


def _minor(version: str | None) -> str:
    return ".".join(str(version).split(".")[:2])


class _Tail:
    """Passes a job's log on to stderr, but for results and the error it ends with."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self.result: dict[str, Any] | None = None
        self.error = ""

    def take(self, line: str) -> None:
        """Take one line."""
        try:
            found = json.loads(line) if line.startswith("{") else None
        except ValueError:
            found = None
        if isinstance(found, dict):
            self.result = found
            self._show(found)
        elif line.startswith("error: "):
            self.error = line.removeprefix("error: ")
        elif not RAYS_OWN.search(line):
            _say(line)


def _follow(client: ClusterClient, job: str, show: Show) -> dict[str, Any]:
    tail = _Tail(show)
    info = client.follow(job, tail.take, lambda: _interrupted(client, job))
    status = info.status.value
    if status == "SUCCEEDED" and tail.result is not None:
        return tail.result
    if status == "STOPPED":
        raise JobFailedError(f"job {job} was stopped")
    reason = tail.error or " ".join((info.message or "no reason given").split())[-500:]
    if info.driver_exit_code == 2 and tail.error:
        raise ConfigError(reason)
    raise JobFailedError(reason if tail.error else f"job {job} failed: {reason}")


def _interrupted(client: ClusterClient, job: str) -> None:
    """Ask what is to become of the job; without anybody to ask it is left running."""
    try:
        stop = sys.stdin.isatty() and input(f"\nstop job {job}, or leave it running? [stop/LEAVE] ").strip().lower()
    except (KeyboardInterrupt, EOFError):
        stop = ""
    if stop not in ("s", "stop"):
        look = f"mnist jobs logs {job} --address {client.address}"
        raise RunInterruptedError(f"interrupted; job {job} goes on: {look}, or stop in place of logs")
    _say(f"stopping job {job}")
    client.stop(job)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
