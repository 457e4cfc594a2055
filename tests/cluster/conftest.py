"""A real cluster of three hosts, brought up by ``ray up deploy/on-prem.yaml`` and taken down by ``ray down``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hosts
import pytest
import yaml
from hosts import Host, ssh_words
from serving import poll
from untrained import untrained_storage

from mnist_core.ports import free_ports

ROOT = Path(__file__).parents[2]
NAMES = ["head", "one", "two"]
JOB_DEADLINE_S = 300
START = "~/mnist-on-ray/.venv/bin/mnist-node"
"""What nodes of deploy/on-prem.yaml are started with."""


@dataclass
class Cluster:
    """The cluster, seen from the machine of somebody who uses it."""

    head: Host
    workers: list[Host]
    address: str
    token_file: Path
    storage: Path
    config: Path
    variables: str = ""
    tunnel: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        """``ray up``, and a way to the dashboard as ``ray dashboard`` makes it."""
        ray_command("up", self.config)
        self.close_tunnel()
        port = self.address.rpartition(":")[2]
        words = [*ssh_words(self.head.folder), "-N", "-L", f"{port}:127.0.0.1:8265", f"root@{self.head.address}"]
        self.tunnel = subprocess.Popen(words)
        poll(lambda: self.run_anyhow("jobs", "list") == 0)

    def close_tunnel(self) -> None:
        if self.tunnel:
            self.tunnel.kill()
            self.tunnel.wait()

    def run_anyhow(self, *words: str) -> int:
        """Run one to its end, whatever that is; returns its exit code."""
        with self.start(*words) as process:
            process.communicate(timeout=JOB_DEADLINE_S)
        return int(process.returncode)

    def start(self, *words: str, token_file: Path | None = None) -> subprocess.Popen[str]:
        """Start a command of ours with ``--address``."""
        command, *rest = words
        at = ["--address", self.address, "--token-file", str(token_file or self.token_file)]
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", command, *at, *rest],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.storage,
        )

    def run(self, *words: str, code: int = 0, **options: Any) -> tuple[str, str]:
        """Run one to its end; returns what it printed."""
        with self.start(*words, **options) as process:
            out, err = process.communicate(timeout=JOB_DEADLINE_S)
        assert process.returncode == code, out + err
        return out, err

    def result(self, *words: str) -> dict[str, Any]:
        """The JSON object that a command ends with."""
        return dict(json.loads(self.run(*words, "--json")[0].splitlines()[-1]))

    def alive(self) -> set[str]:
        """The addresses of the nodes that the cluster believes alive; none where it cannot be asked."""
        code = "import ray, json; ray.init(log_to_driver=False); print('NODES', json.dumps(ray.nodes()))"
        python = f"{self.head.home}/mnist-on-ray/.venv/bin/python"
        said = self.head.ssh(
            f'{self.variables} RAY_AUTH_MODE=token RAY_ADDRESS=auto {python} -c "{code}" 2>/dev/null', check=False
        )
        found = re.search(r"(?m)^NODES (.*)$", said)
        return {node["NodeManagerAddress"] for node in json.loads(found[1]) if node["Alive"]} if found else set()

    def wait_until_whole(self) -> None:
        """Wait until every host is a node of it."""
        wanted = {host.address for host in [self.head, *self.workers]}
        poll(lambda: self.alive() == wanted, JOB_DEADLINE_S)


@pytest.fixture(scope="session")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """Three hosts without Ray."""
    if reason := hosts.missing():
        pytest.skip(f"no hosts of our own: {reason}; integration tests use ray.cluster_utils.Cluster")
    with hosts.hosts(tmp_path_factory.mktemp("lan"), NAMES) as found:
        yield found


@pytest.fixture(scope="session")
def cluster(lan: list[Host], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, up."""
    folder = tmp_path_factory.mktemp("cluster")
    storage = folder / "storage"
    untrained_storage(storage)
    token_file = folder / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(os.urandom(32).hex())
    config = write_config(folder, lan, token_file)
    for host in lan:  # as if `make setup-node` had been there before: it takes minutes, and `make train` tests it
        (host.home / "mnist-on-ray").mkdir()
        (host.home / "mnist-on-ray" / ".venv").symlink_to(sys.prefix)
    (port,) = free_ports(1)
    cluster = Cluster(lan[0], lan[1:], f"http://127.0.0.1:{port}", token_file, storage, config)
    try:
        cluster.up()
        cluster.wait_until_whole()
        yield cluster
        ray_command("down", config)
        poll(lambda: not cluster.head.ssh("pgrep raylet", check=False))
    finally:
        cluster.close_tunnel()


@contextmanager
def restarted(cluster: Cluster, folder: Path, variables: dict[str, str]) -> Iterator[None]:
    """The cluster with these variables for every node; as it was before after the block."""
    before, text = cluster.config, cluster.config.read_text()
    assert text.count(START) == 2
    cluster.variables = " ".join(f"{name}={value}" for name, value in variables.items())
    cluster.config = folder / "changed.yaml"
    cluster.config.write_text(text.replace(START, f"{cluster.variables} {START}"))
    try:
        cluster.up()
        cluster.wait_until_whole()
        yield
    finally:
        cluster.variables, cluster.config = "", before
        cluster.up()
        cluster.wait_until_whole()


def write_config(folder: Path, lan: list[Host], token_file: Path) -> Path:
    """``deploy/on-prem.yaml`` with these hosts' addresses and keys filled in, and nothing to install."""
    config = yaml.safe_load((ROOT / "deploy" / "on-prem.yaml").read_text())
    head, *workers = lan
    config["provider"] |= {"head_ip": head.address, "worker_ips": [worker.address for worker in workers]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(head.folder / "key")}
    config["file_mounts"] = {"~/mnist-on-ray": str(ROOT), "~/.ray/auth_token": str(token_file)}
    config["setup_commands"] = [each for each in config["setup_commands"] if "make" not in each]
    path = folder / "on-prem.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def ray_command(action: str, config: Path) -> str:
    """``ray up`` or ``ray down``, as a user types it, in the checkout."""
    command = [sys.executable, "-m", "ray.scripts.scripts", action, "--yes", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=JOB_DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Says what a test has counted, to whoever watches the tests."""

    def say(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return say
