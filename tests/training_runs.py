"""Start ``mnist train`` as a user does, in a process group of its own, and look at what it leaves on the storage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from processes import descendants

from mnist_core.checkpoints import newest_checkpoint
from mnist_core.runs import Run
from mnist_core.storage import open_storage

DEADLINE_S = 180.0


def write_digits(path: Path, count: int = 6000) -> Path:
    """Write a small dataset in Keras's layout: blurred squares whose place tells the class. Quick to load and learn."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    images = rng.integers(0, 60, (count, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 2 + 9 * (label // 4), 1 + 7 * (label % 4)
        image[row : row + 6, column : column + 5] += 150
    tenth = count // 10
    np.savez(path, x_train=images[tenth:], y_train=labels[tenth:], x_test=images[:tenth], y_test=labels[:tenth])
    return path


def words(digits: Path, storage: str, run: str, workers: str = "2") -> list[str]:
    """A training that a test can disturb: small, and with a checkpoint after every call."""
    options = ["--recipe", "notebook", "--epochs", "6", "--cpus-per-worker", "0.5", "--steps-per-call", "2"]
    place = ["--dataset", str(digits), "--storage", storage, "--run", run, "--workers", workers]
    return ["train", *options, *place, "--checkpoint-every-s", "0.001", "--json"]


class Command:
    """One running ``mnist`` command, or another program with its words."""

    def __init__(
        self, *words: str, env: dict[str, str] | None = None, program: tuple[str, ...] = ("-m", "jobs.cli")
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )

    def finish(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, stdout, stderr."""
        stdout, stderr = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, stdout, stderr

    def result(self) -> dict[str, Any]:
        """Wait for its success and read the JSON object on its last line."""
        code, stdout, stderr = self.finish()
        assert code == 0, stderr
        return dict(json.loads(stdout.splitlines()[-1]))

    def workers(self, title: str = "RayTrainWorker") -> list[psutil.Process]:
        """The processes in which Ray trains, or does what the title says."""
        return descendants(self.process.pid, title)

    def kill(self) -> None:
        """SIGKILL the driver and all that it has started, as a machine that dies does."""
        processes = [psutil.Process(self.process.pid)]
        processes += processes[0].children(recursive=True)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.communicate()
        psutil.wait_procs(processes, timeout=DEADLINE_S / 2)


@contextmanager
def started(*words: str, **options: Any) -> Iterator[Command]:
    """Start a command, and end whatever is left of it."""
    command = Command(*words, **options)
    try:
        yield command
    finally:
        try:
            left = psutil.Process(command.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            left = []
        for process in [command.process, *left]:
            try:
                process.kill()
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        command.process.wait()


def wait_for(condition: Callable[[], Any], command: Command) -> Any:
    """Poll until a condition holds, while the command runs, at most DEADLINE_S."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert command.process.poll() is None, command.process.communicate()
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
    return value


def final_weights(storage: str, run: str) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a run's last checkpoint."""
    found = newest_checkpoint(open_storage(storage), Run(open_storage(storage), run).checkpoints)
    assert found is not None
    return found[1].arrays


def assert_same_weights(expected: str, expected_run: str, storage: str, run: str) -> None:
    """Bit for bit: weights, moments, average and the selected weights."""
    true, found = final_weights(expected, expected_run), final_weights(storage, run)
    assert true.keys() == found.keys()
    for name, values in true.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
