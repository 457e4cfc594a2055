"""Seconds from the command to the first optimizer step of a training with two workers, by phase.

  ours   `mnist train --workers 2 --steps-per-call 1`: from the start of the process until the first worker has taken
         the first step. The phases follow one another; the run itself tells when each was over:
           command     the interpreter is up and the command is read
           ray         Ray is up, the dataset is loaded beside it
           worker      Ray's trainer is up: the worker's first line
           tensorflow  TensorFlow is loaded, the workers are connected, the network is built
           first step  the step is traced and taken
  plain  `ray.init()` and a `TensorflowTrainer` with two workers whose loop is the guide's: import TensorFlow, connect,
         build Keras 2's model under the strategy, `fit` (peers/ray_start.py); Keras 3 `fit` does not run there. From
         the start of the process
           to the loop's first line  in whichever worker is first: nothing is connected, built, traced or trained yet
           to the line after import  the same within a millisecond, as Ray has loaded TensorFlow by then
           to the first step         of the same network, as ours

Read the ratios, ours over plain: medians of ratios taken within one round. One holds our first step against the first
line of the plain loop, the other against its first step. Both start a Ray of their own, and the
next one starts when no process of the one before is left. The dataset has 1,000 images: reading MNIST is not in it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from _common import (
    MNIST_TRAIN,
    PEERS,
    at_most,
    interleave,
    make_parser,
    make_row,
    median_ratio,
    print_report,
    started,
    write_digits,
)

PHASES = ("command", "ray", "worker", "tensorflow", "first_step")
RATIO = "ours / plain, "
BOUNDS = {f"{RATIO}first line": 0.7, f"{RATIO}first step": 0.5}


def ours(dataset: Path, folder: Path) -> dict[str, float]:
    """Seconds of each phase, and in all; the run is interrupted after its first step."""
    options = ["--recipe", "notebook", "--dataset", str(dataset), "--workers", "2", "--steps-per-call", "1"]
    with tempfile.TemporaryDirectory(dir=folder) as storage:
        where = ["--epochs", "1", "--run", "startup", "--storage", storage]
        began = time.time()
        with started([*MNIST_TRAIN, *options, *where], folder) as command:
            marks = command.wait_for(lambda: _marks(Path(storage, "runs", "startup", "status.json")))
    times = [began, *(marks[phase] for phase in PHASES)]
    phases = {phase: after - before for phase, before, after in zip(PHASES, times, times[1:], strict=False)}
    return {**phases, "total": times[-1] - began}


def plain(dataset: Path, folder: Path) -> dict[str, float]:
    """Seconds to the loop's first line, to the line after its import, and to the first step."""
    with tempfile.TemporaryDirectory(dir=folder) as storage:
        began = time.time()
        with started([sys.executable, str(PEERS / "ray_start.py"), storage, str(dataset)], folder) as command:
            command.wait()
        lines = [json.loads(path.read_text()) for path in Path(storage).glob("[01].json")]
    names = ("first line", "after import", "first step")
    return {name: min(times) - began for name, times in zip(names, zip(*lines, strict=True), strict=True)}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    options = make_parser(__doc__, rounds=5).parse_args(argv)
    rounds = 1 if options.smoke else options.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = write_digits(folder / "digits.npz", 1000)
        results = interleave({"ours": partial(ours, dataset, folder), "plain": partial(plain, dataset, folder)}, rounds)

    def seconds(way: str, part: str) -> list[float]:
        return [result[part] for result in results[way]]

    rows = [make_row(f"ours: {phase}", "s", seconds("ours", phase)) for phase in PHASES]
    total = seconds("ours", "total")
    rows += [
        make_row("ours: process start to first step", "s", total),
        make_row("plain: process start to the loop's first line", "s", seconds("plain", "first line")),
        make_row("plain: process start to the line after the import", "s", seconds("plain", "after import")),
        make_row("plain: process start to first step", "s", seconds("plain", "first step")),
    ]
    ratios = {name: median_ratio(total, seconds("plain", name.removeprefix(RATIO))) for name in BOUNDS}
    must = {name: at_most(ratios[name], bound) for name, bound in BOUNDS.items()}
    print_report("startup", rounds, rows, ratios, must, json_only=options.json_only)


def _marks(status: Path) -> dict[str, Any] | None:
    """The run's marks once the first step is among them."""
    with suppress(FileNotFoundError):
        marks: dict[str, Any] = json.loads(status.read_text())["marks"]
        if "first_step" in marks:
            return marks
    return None


if __name__ == "__main__":
    main()
