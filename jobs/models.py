"""The ``mnist models`` command: list, show, promote, roll back and verify what is published."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, Final

from rich.filesize import decimal

from mnist_core.artifact import VERSION, Manifest, read_manifest, verify_artifact
from mnist_core.config import ModelsConfig
from mnist_core.config_fields import SLUG
from mnist_core.errors import ArtifactError, ConfigError, ModelNotFoundError
from mnist_core.registry import current_version, list_models, list_versions, promote, resolve, rollback
from mnist_core.storage import Storage, open_storage

DEFAULT_MODEL: Final = "mnist"
"""The model that a number alone means a version of."""

TARGETS: Final = {
    "list": ("nothing", "NAME"),
    "show": ("NAME", "NAME/VERSION"),
    "promote": ("NAME/VERSION",),
    "rollback": ("NAME",),
    "verify": ("nothing", "NAME", "NAME/VERSION"),
}
"""What each action may be about."""

log = logging.getLogger(__name__)


def run(config: ModelsConfig) -> dict[str, Any]:
    """Do what the command asks.

    Args:
        config: The action, and the model or version it is about.

    Returns:
        What ``--json`` prints: ``action``, ``storage``, and what came of it.

    Raises:
        ConfigError: The action and its target do not go together.
        ArtifactError: ``verify`` found a problem, or a broken model was to be made current.
        ModelNotFoundError: There is no such model or version.
        StorageError: The storage cannot be reached, read or written.
    """
    name, version = _parse_target(config)
    storage = open_storage(config.storage)
    result: dict[str, Any]
    match config.action:
        case "list":
            result = {"models": [row for each in _asked_for(storage, name) for row in _summarize(storage, each)]}
        case "show":
            result = _show(storage, *resolve(storage, f"{name}/{version}" if version else name))
        case "promote":
            result = {"name": name, "version": version, "previous": promote(storage, name, version)}
        case "rollback":
            result = {"name": name, "version": rollback(storage, name)}
        case "verify":
            result = {"verified": _verify(storage, name, version)}
    return {"action": config.action, "storage": storage.uri, **result}


def render(result: dict[str, Any]) -> str:
    """Lay out what `run` returned, for people."""
    match result["action"]:
        case "list":
            return _render_list(result)
        case "show":
            return _render_show(result)
        case "verify":
            return f"whole: {', '.join(result['verified'])}" if result["verified"] else _nothing(result)
        case _:
            return f"the current version of {result['name']} is {result['version']}"


def _parse_target(config: ModelsConfig) -> tuple[str, str]:
    """Split the target into name and version, each empty if not given."""
    target = config.target or ""
    if re.fullmatch("[0-9]+", target):
        target = f"{DEFAULT_MODEL}/{target}"
    match = re.fullmatch(rf"({SLUG})(?:/({VERSION}))?|", target)
    kind = "nothing" if not target else "NAME/VERSION" if match and match[2] else "NAME"
    if match is None or kind not in TARGETS[config.action]:
        expected = " or ".join(TARGETS[config.action])
        raise ConfigError(f"models {config.action}: received {config.target or 'nothing'!r}, expected {expected}")
    return match[1] or "", match[2] or ""


def _asked_for(storage: Storage, name: str) -> list[str]:
    """Name the one model asked for, or all of them if the name is empty."""
    return [name] if name else list_models(storage)


def _summarize(storage: Storage, name: str) -> list[dict[str, Any]]:
    current = _current(storage, name)
    return [
        {"name": name, "version": version, "current": version == current, **_describe(storage, name, version)}
        for version in list_versions(storage, name)
    ]


def _describe(storage: Storage, name: str, version: str) -> dict[str, Any]:
    try:
        manifest = read_manifest(storage, name, version)
    except ArtifactError as err:
        return {"problem": str(err)}
    return {
        "created_at": manifest.created_at,
        "run_id": manifest.run_id,
        "dataset": manifest.dataset.get("name"),
        "test_accuracy": _test_accuracy(manifest),
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
    }


def _current(storage: Storage, name: str) -> str | None:
    try:
        return current_version(storage, name)
    except ArtifactError as err:
        log.warning("%s", err)
        return None


def _test_accuracy(manifest: Manifest) -> Any:
    test = manifest.metrics.get("test")
    return test.get("accuracy") if isinstance(test, dict) else None


def _show(storage: Storage, name: str, version: str) -> dict[str, Any]:
    return {
        "current": version == _current(storage, name),
        "artifact": storage.path(f"models/{name}/{version}"),
        "manifest": read_manifest(storage, name, version).model_dump(),
    }


def _verify(storage: Storage, name: str, version: str) -> list[str]:
    """Verify the versions asked for, and that each of their models points at a version that is there."""
    if version:
        resolve(storage, f"{name}/{version}")
    problems, verified = [], []
    for each in _asked_for(storage, name):
        for found in [version] if version else list_versions(storage, each):
            verified.append(f"{each}/{found}")
            problems += verify_artifact(storage, each, found)
        try:
            if current_version(storage, each):
                resolve(storage, each)
        except (ArtifactError, ModelNotFoundError) as err:
            problems.append(str(err))
    if problems:
        more = f"; and {len(problems) - 3} more" if problems[3:] else ""
        raise ArtifactError(
            f"found {len(problems)} problem{'s' if problems[1:] else ''}: {'; '.join(problems[:3])}{more}"
        )
    return verified


def _nothing(result: dict[str, Any]) -> str:
    return f"no models in {result['storage']}"


def _render_list(result: dict[str, Any]) -> str:
    rows = [("MODEL", "CURRENT", "PUBLISHED", "DATASET", "TEST ACCURACY", "SIZE")]
    for model in result["models"]:
        title, current = f"{model['name']}/{model['version']}", "*" if model["current"] else ""
        if "problem" in model:
            rows.append((title, current, "broken; see mnist models verify", "", "", ""))
            continue
        accuracy = "" if model["test_accuracy"] is None else f"{model['test_accuracy']:.2%}"
        size = decimal(model["bytes"])
        rows.append((title, current, model["created_at"], str(model["dataset"] or ""), accuracy, size))
    return _align(rows) if result["models"] else _nothing(result)


def _render_show(result: dict[str, Any]) -> str:
    manifest = result["manifest"]
    rows = [
        ("model", f"{manifest['name']}/{manifest['version']}{' (current)' if result['current'] else ''}"),
        ("artifact", result["artifact"]),
        ("published", manifest["created_at"]),
        ("run", manifest["run_id"]),
    ]
    for part in ("dataset", "metrics", "config", "libraries"):
        rows += [(f"{part}.{key}", str(value)) for key, value in manifest[part].items()]
    rows += [(name, f"{entry['bytes']} bytes, SHA-256 {entry['sha256']}") for name, entry in manifest["files"].items()]
    return _align(rows)


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
