"""A training run on the storage: who it is, how it is doing, what it came to.

``<storage>/runs/<name>/`` holds ``run.json`` (created once: configuration and dataset), ``checkpoints/``,
``status.json`` (rewritten about once a second: this is how the driver, or anybody, watches) and ``result.json``
(written last). Nothing a run needs to go on is anywhere else, so any machine may resume it.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from typing import Any

from mnist_core.background import NewestWriter
from mnist_core.errors import (
    BadRecordError,
    DivergedError,
    MnistError,
    ObjectExistsError,
    ObjectNotFoundError,
    RunConflictError,
    StorageError,
)
from mnist_core.storage import Storage
from mnist_core.training import Progress

MAX_RECORD_BYTES = 16 << 20

logger = logging.getLogger(__name__)


class Run:
    """One named run.

    Args:
        storage: Where it lives.
        name: Its name.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage = storage
        self.name = name
        self.folder = f"runs/{name}"
        self.checkpoints = f"{self.folder}/checkpoints"

    def claim(self, identity: dict[str, Any]) -> str:
        """Create the run, or make sure that it is the same one.

        Args:
            identity: All that decides the run's result.

        Returns:
            The run's id, unique over all storages and the same each time it is resumed.

        Raises:
            RunConflictError: The run exists with another identity; every differing field is named.
        """
        record: dict[str, Any] = {"run_id": uuid.uuid4().hex, "identity": identity}
        try:
            self.storage.create(f"{self.folder}/run.json", json.dumps(record, indent=2).encode())
        except ObjectExistsError:
            record = self._read("run.json") or record
            self._refuse_other(record["identity"], identity)
        return str(record["run_id"])

    def exists(self) -> bool:
        """Whether somebody has claimed it."""
        return self._read("run.json") is not None

    def result(self) -> dict[str, Any] | None:
        """What the finished run came to; None before it is finished."""
        return self._read("result.json")

    def write_result(self, result: dict[str, Any]) -> None:
        """Record what the run came to: from now on it is finished."""
        self.storage.write_bytes(f"{self.folder}/result.json", json.dumps(result, indent=2).encode())

    def status(self) -> dict[str, Any] | None:
        """What the run's first worker last said; None before it said anything that can be read."""
        try:
            return self._read("status.json")
        except BadRecordError as err:
            logger.warning("%s", err)  # it is only for looking at: no reason to stop a run
            return None

    def write_status(self, status: dict[str, Any]) -> None:
        """Say how the run is doing."""
        self.storage.write_bytes(f"{self.folder}/status.json", json.dumps(status).encode())

    def _read(self, name: str) -> dict[str, Any] | None:
        key = f"{self.folder}/{name}"
        try:
            record = json.loads(self.storage.read_bytes(key, MAX_RECORD_BYTES))
        except ObjectNotFoundError:
            return None
        except ValueError as err:
            raise BadRecordError(f"{self.storage.path(key)}: expected JSON, found something else; delete it") from err
        if not isinstance(record, dict):
            raise BadRecordError(f"{self.storage.path(key)}: expected a JSON object, found {type(record).__name__}")
        return record

    def _refuse_other(self, existing: dict[str, Any], asked: dict[str, Any]) -> None:
        fields = sorted(existing.keys() | asked.keys())
        differing = [
            f"{field} is {existing.get(field)!r}, asked for {asked.get(field)!r}"
            for field in fields
            if existing.get(field) != asked.get(field)
        ]
        if differing:
            raise RunConflictError(
                f"run {self.name} exists with another configuration: {'; '.join(differing)}. "
                "Take another --run, or the configuration it has"
            )


def refuse_unfinished(run: Run) -> None:
    """Raise what the run's first worker last said it failed for, if it did.

    Raises:
        DivergedError: The loss was not finite.
    """
    error = (run.status() or {}).get("error")
    if error:
        raise DivergedError(f"{error['message']}; the last good checkpoint stays")


class StatusBoard:
    """How the run is doing, as the first worker sees it; written in a thread, at most once a second.

    Warnings of ``mnist_core`` are passed on, so that whoever drives the run can show them.

    Args:
        run: The run.
        world_size: Number of workers.
        marks: When each phase of the start was over so far, in seconds since 1970; ``command`` tells commands apart.
    """

    def __init__(self, run: Run, world_size: int, marks: dict[str, float]) -> None:
        earlier = (run.status() or {}).get("marks", {})
        if earlier.get("command") == marks["command"] and "first_step" in earlier:
            marks = earlier  # the workers were replaced: the start is over and is not timed again
        self._timed = "first_step" in marks
        self._status: dict[str, Any] = {
            "attempt": uuid.uuid4().hex,
            "phase": "starting",
            "world_size": world_size,
            "marks": dict(marks),
            "notes": [],
        }
        self._writer: NewestWriter[dict[str, Any]] = NewestWriter("status", run.write_status, pause_s=1.0)
        self._handler = _NoteHandler(self._status["notes"])
        logging.getLogger("mnist_core").addHandler(self._handler)

    def mark(self, phase: str, at: float) -> None:
        """Record when a phase of the start was over, in seconds since 1970."""
        if not self._timed:
            self._status["marks"][phase] = at
            self._timed = phase == "first_step"

    @property
    def marks(self) -> dict[str, float]:
        """When each phase of the start was over."""
        return dict(self._status["marks"])

    def start(self, progress: Progress) -> None:
        """Say that training starts, and where."""
        if progress != Progress():
            self._status["notes"].append(f"resumed at epoch {progress.epoch + 1}, step {progress.step + 1}")
        self._say(phase="training", progress=progress.to_dict())

    def update(self, progress: Progress) -> None:
        """Say where training stands."""
        self.mark("first_step", time.time())
        self._say(progress=progress.to_dict())

    def enter(self, phase: str) -> None:
        """Say what the run does after training; if no step was left to take, its start is over now."""
        self.mark("first_step", time.time())
        self._say(phase=phase)

    def fail(self, error: MnistError) -> None:
        """Say why the run cannot go on, and stop."""
        self._say(phase="failed", error={"code": error.code, "message": str(error)})
        self._stop()

    def close(self) -> None:
        """Write the last word and stop; a status that cannot be written fails no run that is finished."""
        try:
            self._stop()
        except StorageError as err:
            logger.warning("%s", err)

    def _stop(self) -> None:
        logging.getLogger("mnist_core").removeHandler(self._handler)
        self._writer.close()

    def _say(self, **values: Any) -> None:
        self._status.update(values)
        self._writer.submit({**self._status, "marks": self.marks, "notes": list(self._status["notes"])})


class _NoteHandler(logging.Handler):
    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self._notes.append(record.getMessage())
