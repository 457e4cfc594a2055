"""Test accuracy of each recipe over several seeds, each trained by the real command on real MNIST.

Each run is `mnist train --recipe R --seed S`, with what the recipe says and nothing else. Its accuracy is what the run
itself reports: on the 10,000 test images, asked once, of the published form of the model. Seeds are 0, 1, 2, ...; all
recipes are trained with one before any is with the next. The accuracies do not depend on the machine, the seconds do.

With --storage, runs are kept there, as models of their own, and those that are finished are not trained again: a
measurement that was cut off, or that shall have more seeds, goes on where it is.

Reported are, by recipe, mean and standard deviation of the accuracy over the seeds, seconds of training (epochs alone,
without start-up and validation) and the parameters of the published model that its probabilities come from, which are
fewer than were trained where training has gains that end up in the kernels: as a table, as the same in Markdown, and as
one JSON object. Each recipe's mean is held against a bound of its own. On two cores this takes hours.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from _common import MNIST_TRAIN, at_least, interleave, make_parser, make_row, print_report, started, write_digits

from mnist_core.recipes import RECIPES

BOUNDS = {"notebook": 98.9, "default": 99.68, "best": 99.77, "tiny": 99.4, "fast": 98.0}
"""Percent, of the mean over the seeds."""

COLUMNS = ("recipe", "test accuracy, mean", "standard deviation", "n", "epochs", "seconds", "parameters", "command")
SMOKE_IMAGES = 600


@dataclass(frozen=True)
class Trained:
    """What is measured of one run; ``artifact`` is its folder, where the history of its epochs is too."""

    accuracy: float
    seconds: float
    epochs: int
    artifact: str
    parameters: int | None


@dataclass(frozen=True)
class Summary:
    """What the runs of a recipe come to; ``deviation`` is None for a single one. Accuracies in percent."""

    recipe: str
    accuracies: tuple[float, ...]
    seconds: tuple[float, ...]
    epochs: int
    parameters: int

    @property
    def mean(self) -> float:
        """Mean accuracy, without the last bits of a sum."""
        return round(statistics.fmean(self.accuracies), 4)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the seeds, not of the mean: with n - 1."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    def cells(self) -> list[str]:
        """One row of the table, as ``COLUMNS``."""
        deviation = "-" if self.deviation is None else f"{self.deviation:.3f}"
        seconds = f"{statistics.fmean(self.seconds):,.0f}"
        figures = [f"{self.mean:.3f}%", deviation, str(len(self.accuracies)), str(self.epochs), seconds]
        return [self.recipe, *figures, f"{self.parameters:,}", f"mnist train --recipe {self.recipe} --seed S"]


def train(recipe: str, seeds: Iterator[int], options: Sequence[str], storage: Path, folder: Path) -> Trained:
    """Train with the next seed, or read what a run of that name has come to before."""
    seed = next(seeds)
    name = ["--run", f"{recipe}-seed-{seed}", "--model", f"accuracy-{recipe}"]
    words = ["--recipe", recipe, "--seed", str(seed), *options, *name, "--storage", str(storage), "--json"]
    with started([*MNIST_TRAIN, *words], folder) as command:
        result = command.result(limit_s=None)
    accuracy, seconds = 100 * result["test"]["accuracy"], result["train_seconds"]
    print(f"{recipe}, seed {seed}: {accuracy:.2f}% in {seconds:.0f} s of training", file=sys.stderr, flush=True)
    return Trained(accuracy, seconds, result["epochs"], result["artifact"], result.get("parameters"))


def count_parameters(model: Path) -> int:
    """Count the weights of a published model that its probabilities come from, not those of the rejection."""
    import keras  # takes seconds, and is not needed to show --help

    published = keras.saving.load_model(model, compile=False)
    return int(keras.Model(published.inputs, published.get_layer("probabilities").output).count_params())


def summarise(recipe: str, runs: Sequence[Trained]) -> Summary:
    """Sum the runs of a recipe up."""
    first = runs[0]
    parameters = first.parameters or count_parameters(Path(first.artifact, "model.keras"))
    accuracies, seconds = (tuple(getattr(run, name) for run in runs) for name in ("accuracy", "seconds"))
    return Summary(recipe, accuracies, seconds, first.epochs, parameters)


def make_table(summaries: Sequence[Summary]) -> list[str]:
    """The table for a terminal, line by line."""
    rows = [list(COLUMNS), *(summary.cells() for summary in summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = (0, len(COLUMNS) - 1)
    return [
        "  ".join(
            cell.ljust(width) if index in words else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def make_markdown(summaries: Sequence[Summary]) -> list[str]:
    """The same for the README."""
    rows = [[*summary.cells()[:-1], f"`{summary.cells()[-1]}`"] for summary in summaries]
    return [f"| {' | '.join(cells)} |" for cells in ([*COLUMNS], ["---"] * len(COLUMNS), *rows)]


def make_rows(summary: Summary) -> list[dict[str, Any]]:
    """A recipe's rows of the report: the seeds' spread, then the figures that have none."""
    rows = [make_row(f"{summary.recipe}: accuracy", "%", summary.accuracies)]
    rows += [make_row(f"{summary.recipe}: mean", "%", [summary.mean])]
    if summary.deviation is not None:
        rows += [make_row(f"{summary.recipe}: standard deviation", "%", [summary.deviation])]
    rows += [make_row(f"{summary.recipe}: training", "s", summary.seconds)]
    return [*rows, make_row(f"{summary.recipe}: parameters", "", [summary.parameters])]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--seeds", type=int, dest="rounds", metavar="N", default=5, help="another name of --rounds")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, help="which recipes (default: all)")
    parser.add_argument("--storage", type=Path, help="where runs are kept and found again (default: nowhere)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["--dataset", "mnist"]
        if data_dir := os.environ.get("MNIST_DATA_DIR"):
            words += ["--data-dir", str(Path(data_dir).absolute())]
        recipes, storage = options.recipes or list(RECIPES), options.storage or folder / "storage"
        if options.smoke:
            options.rounds, recipes, storage = 1, (options.recipes or list(RECIPES))[:1], folder / "storage"
            words = ["--dataset", str(write_digits(folder / "digits.npz", SMOKE_IMAGES)), "--epochs", "1"]
        ways = {recipe: partial(train, recipe, itertools.count(), words, storage, folder) for recipe in recipes}
        runs = interleave(ways, options.rounds)
        summaries = [summarise(recipe, runs[recipe]) for recipe in recipes]
    if not options.json_only:
        print("\n".join([*make_table(summaries), "", *make_markdown(summaries), ""]))
    rows = [row for summary in summaries for row in make_rows(summary)]
    must = {
        summary.recipe: at_least(summary.mean, BOUNDS[summary.recipe])
        for summary in summaries
        if summary.recipe in BOUNDS
    }
    print_report("accuracy", options.rounds, rows, {}, must, json_only=options.json_only)


if __name__ == "__main__":
    main()
