"""Accuracy of a published model on corrupted MNIST test images: the fifteen corruptions of MNIST-C.

The corruptions are those of Mu and Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision" (2019), drawn anew
from the 10,000 test images; `_mnist_c.py` says of each what its severity is and what had to be chosen. The published
set is not needed and nothing is downloaded but MNIST itself. Figures are near to those on the published set, not the
same. A round is one drawing of all images, with a seed of its own: the same options give the same images.

Reported are the accuracy on the clean images, on each corruption and the mean over the fifteen, in percent; and the
images that were corrupted and classified a second. The must holds the mean against a bound.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _common import at_least, make_parser, make_row, print_report
from _mnist_c import (
    Corruption,
    brightness,
    canny_edges,
    dotted_line,
    fog,
    glass_blur,
    impulse_noise,
    motion_blur,
    rotate,
    scale,
    shear,
    shot_noise,
    spatter,
    stripe,
    translate,
    zigzag,
)
from _mnist_c_parts import Images
from _published import add_model_options, draw_grid, load_model, load_or_end

from mnist_core.predictor import Predictor
from mnist_core.splits import Split

CORRUPTIONS: dict[str, Corruption] = {
    corruption.__name__: corruption
    for corruption in (
        shot_noise,
        impulse_noise,
        glass_blur,
        motion_blur,
        shear,
        scale,
        rotate,
        brightness,
        translate,
        stripe,
        fog,
        spatter,
        dotted_line,
        zigzag,
        canny_edges,
    )
}
"""In the order of the paper."""

LEAST_MEAN = 95.0
SMOKE_IMAGES = 100
SAMPLES = 12


def corrupt(name: str, images: Images, seed: int) -> Images:
    """Corrupt images; what is drawn depends on the corruption's name, the seed and the number of images."""
    return CORRUPTIONS[name](images, np.random.default_rng([seed, *name.encode()]))


def accuracy(predictor: Predictor, images: Images, labels: Images) -> float:
    """Percent of the images that are told right, whether rejected or not."""
    return 100 * float((predictor.predict(images).digits == labels).mean())


def judge(predictor: Predictor, split: Split, seed: int) -> dict[str, float]:
    """Accuracy by corruption, in percent."""
    return {name: accuracy(predictor, corrupt(name, split.images, seed), split.labels) for name in CORRUPTIONS}


def draw(images: Images, seed: int, path: Path) -> None:
    """Write the same digits under each corruption."""
    first = images[:SAMPLES]
    draw_grid({"clean": first} | {name: corrupt(name, first, seed) for name in CORRUPTIONS}, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = make_parser(__doc__, rounds=1)
    add_model_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the first round (default 0)")
    options = parser.parse_args(argv)
    model, predictor = load_model(parser, options)
    test = load_or_end(parser, "mnist", os.environ.get("MNIST_DATA_DIR")).test
    if options.smoke:
        options.rounds, test = 1, Split(test.images[:SMOKE_IMAGES], test.labels[:SMOKE_IMAGES])
    if options.picture:
        draw(test.images, options.seed, options.picture)
    rounds, rates = [], []
    for seed in range(options.seed, options.seed + options.rounds):
        started = time.monotonic()
        rounds.append(judge(predictor, test, seed))
        rates.append(len(CORRUPTIONS) * len(test) / (time.monotonic() - started))
    means = [statistics.fmean(accuracies.values()) for accuracies in rounds]
    rows = [make_row("clean", "%", [accuracy(predictor, test.images, test.labels)])]
    rows += [make_row(name, "%", [accuracies[name] for accuracies in rounds]) for name in CORRUPTIONS]
    rows += [make_row("mean of 15", "%", means), make_row("corrupted and classified", "img/s", rates)]
    must = {"mean of 15": at_least(round(statistics.median(means), 3), LEAST_MEAN)}
    versions = {"model": model}
    print_report("corruptions", options.rounds, rows, {}, must, json_only=options.json_only, versions=versions)


if __name__ == "__main__":
    main()
