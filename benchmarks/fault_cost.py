"""Seconds that one killed worker costs a training run with two workers.

Each round trains the reference convnet twice with the same seed and every setting at its default: undisturbed, and with
one of the two workers killed (SIGKILL, by its id) in the middle of the second epoch. Reported are

  - the run's wall time either way, from the command to its end, and the difference: seconds lost,
  - seconds from the kill until the run's status tells of the first step of the new workers,
  - optimizer steps done again: how far the status was when the worker was killed, less where the new workers started.

Both runs must end with the same weights, bit for bit: with one SHA-256 of model.tflite, which holds them in float32
(model.keras also holds the date). The status is written about once a second, which is how exact
the last two figures are. What is lost is a start of Ray's workers and of TensorFlow, and the steps since the last
checkpoint; both depend on the machine, and neither on the length of the run.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from _common import (
    MNIST_TRAIN,
    Command,
    interleave,
    make_parser,
    make_row,
    median_ratio,
    print_report,
    started,
    write_digits,
)

from mnist_core.batches import steps_per_epoch
from mnist_core.config import TrainConfig

BATCH_SIZE = 128
WORKER_TITLE = "ray::RayTrainWorker"


@dataclass(frozen=True)
class Outcome:
    """One run: its wall time, SHA-256 of ``model.tflite``, and what the kill cost."""

    seconds: float
    model_sha256: str
    recovery_s: float = 0.0
    steps_again: int = 0


def train(kill: bool, dataset: Path, steps: int, epochs: int, folder: Path) -> Outcome:
    """Run the training command, of ``steps`` an epoch, to its end; kill a worker on the way if asked to."""
    options = ["--recipe", "notebook", "--dataset", str(dataset), "--workers", "2", "--epochs", str(epochs)]
    recovery_s, steps_again = 0.0, 0
    with tempfile.TemporaryDirectory(dir=folder) as storage:
        began = time.monotonic()
        with started([*MNIST_TRAIN, *options, "--run", "r", "--storage", storage, "--json"], folder) as command:
            if kill:
                recovery_s, steps_again = _kill_worker(command, Path(storage, "runs", "r", "status.json"), steps)
            result = command.result()
            seconds = time.monotonic() - began
        files = json.loads(Path(result["artifact"], "manifest.json").read_text())["files"]
    return Outcome(seconds, files["model.tflite"]["sha256"], recovery_s, steps_again)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--images", type=int, default=30_000, help="training images (default 30000)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs (default 3)")
    options = parser.parse_args(argv)
    if options.smoke:
        options.rounds, options.images, options.epochs = 1, 12_000, 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = write_digits(folder / "digits.npz", options.images)
        held_out = round(options.images * TrainConfig().validation_fraction)
        steps = steps_per_epoch(options.images - held_out, BATCH_SIZE)
        ways = {
            "undisturbed": partial(train, False, dataset, steps, options.epochs, folder),
            "one worker killed": partial(train, True, dataset, steps, options.epochs, folder),
        }
        outcomes = interleave(ways, options.rounds)
    whole, hurt = outcomes.values()
    seconds = {way: [outcome.seconds for outcome in runs] for way, runs in outcomes.items()}
    rows = [make_row(way, "s", values) for way, values in seconds.items()]
    rows += [
        make_row("seconds lost", "s", [b.seconds - a.seconds for a, b in zip(whole, hurt, strict=True)]),
        make_row("kill to the first step after it", "s", [run.recovery_s for run in hurt]),
        make_row("steps done again", "steps", [run.steps_again for run in hurt]),
    ]
    ratios = {"one worker killed / undisturbed": median_ratio(seconds["one worker killed"], seconds["undisturbed"])}
    same = len({run.model_sha256 for run in (*whole, *hurt)}) == 1
    must = {"same weights": {"value": same, "bound": True, "met": same}}
    print_report("fault_cost", options.rounds, rows, ratios, must, json_only=options.json_only)


def _kill_worker(command: Command, status_file: Path, steps: int) -> tuple[float, int]:
    """Kill a worker in the middle of the second epoch: (seconds until the next step, steps done again)."""

    def look(attempt: str | None, beyond: int) -> tuple[str, int] | None:
        """The status, once a group of workers other than ``attempt`` has come further than ``beyond`` steps."""
        with suppress(FileNotFoundError):
            status: dict[str, Any] = json.loads(status_file.read_text())
            if "progress" in status and status["attempt"] != attempt:
                done = status["progress"]["epoch"] * steps + status["progress"]["step"]
                if done > beyond:
                    return status["attempt"], done
        return None

    attempt, done = command.wait_for(lambda: look(None, steps + steps // 2 - 1))
    victim = max(pid for pid, title in command.processes().items() if title.startswith(WORKER_TITLE))
    os.kill(victim, signal.SIGKILL)
    killed_at = time.monotonic()
    _, resumed_at = command.wait_for(lambda: look(attempt, -1))
    command.wait_for(lambda: look(attempt, resumed_at))
    return time.monotonic() - killed_at, done - resumed_at


if __name__ == "__main__":
    main()
