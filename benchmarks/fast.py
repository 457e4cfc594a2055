"""Seconds of training to a test accuracy, beside the whole training of the reference notebook.

  to 98%    `mnist train --recipe fast --epochs 1` on real MNIST, one worker on all cores
  to 99%    the same with the recipe's two epochs
  notebook  Keras 3 `fit` in one process on all cores, 10 epochs of batches of 128 (peers/keras_fit.py)

Seconds of training are those of the epochs, from the first step's start to the last one's end, what TensorFlow does
before the first step (tracing, compiling) included, validation and start-up not; the same for both. Ours hold out 5% of
the training images for calibration, the notebook trains on all.

Read the ratio, ours over the notebook's: the median of ratios taken within one round. It counts only where ours reach
the accuracy, on the 10,000 test images, asked once by the command itself; a round has a seed of its own.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from _common import (
    CORES,
    MNIST_TRAIN,
    PEERS,
    at_least,
    at_most,
    interleave,
    make_parser,
    make_row,
    median_ratio,
    print_report,
    started,
    write_digits,
)

GOALS = {"to 98%": (1, 98.0, 1 / 8), "to 99%": (2, 99.0, 1 / 4)}
"""Epochs, and the percent that every seed is to reach in this share of the notebook's time."""

TRAIN_IMAGES, EPOCHS = 60_000, 10


def ours(seeds: Iterator[int], epochs: int, dataset: Path, folder: Path) -> tuple[float, float]:
    """Seconds of training, and percent right on the test images."""
    words = ["--recipe", "fast", "--dataset", str(dataset), "--seed", str(next(seeds)), "--json"]
    words += ["--epochs", str(epochs)]
    with (
        tempfile.TemporaryDirectory(dir=folder) as storage,
        started([*MNIST_TRAIN, *words, "--storage", storage], folder) as command,
    ):
        result = command.result()
    return result["train_seconds"], 100 * result["test"]["accuracy"]


def notebook(dataset: Path, epochs: int, folder: Path) -> tuple[float, float]:
    """Seconds of training; its accuracy is not asked for."""
    command = [sys.executable, str(PEERS / "keras_fit.py"), str(dataset), str(epochs)]
    with started(command, folder, KERAS_BACKEND="tensorflow") as running:
        return sum(running.result()["seconds"]), 0.0


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--goals", nargs="+", choices=GOALS, default=list(GOALS), help="which goals (default: all)")
    options = parser.parse_args(argv)
    goals = {goal: GOALS[goal] for goal in options.goals}
    rounds, images, epochs = (1, 600, 1) if options.smoke else (options.rounds, TRAIN_IMAGES, EPOCHS)
    if not (options.smoke or os.environ.get("MNIST_DATA_DIR")):
        sys.exit("error: MNIST_DATA_DIR names no folder; expected that of MNIST's files, since accuracies are measured")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = write_digits(folder / "digits.npz", images, 10_000)
        ways = {
            goal: partial(ours, itertools.count(), passes, dataset, folder) for goal, (passes, *_) in goals.items()
        } | {"notebook": partial(notebook, dataset, epochs, folder)}
        results = interleave(ways, rounds)
    seconds = {way: [each[0] for each in results[way]] for way in results}
    rows = [make_row(f"Keras 3 fit, 1 process, {CORES} cores, {epochs} epochs", "s", seconds["notebook"])]
    ratios, must = {}, {}
    for goal, (_, percent, share) in goals.items():
        accuracies = [each[1] for each in results[goal]]
        rows += [make_row(f"{goal}: training", "s", seconds[goal]), make_row(f"{goal}: test", "%", accuracies)]
        ratios[f"{goal} / notebook"] = median_ratio(seconds[goal], seconds["notebook"])
        must[f"{goal} / notebook"] = at_most(ratios[f"{goal} / notebook"], share)
        must[f"{goal}: worst accuracy"] = at_least(min(accuracies), percent)
    print_report("fast", rounds, rows, ratios, must, json_only=options.json_only)


if __name__ == "__main__":
    main()
