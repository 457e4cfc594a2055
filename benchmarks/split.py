"""Digits right and found in pictures of three to eight digits on a line, and pictures a second.

  ours       what `mnist predict --split` does: parts, candidates, the model, the best division (`mnist_core.cutting`)
  pieces     every connected piece of ink is a digit, without specks; the same decoder, form and model

The pictures are composed of MNIST's test digits from a seed (benchmarks/_pictures.py): sizes, slant, gaps, colours,
light, grain and noise differ; of the gaps, a tenth are such that strokes touch, and three of a hundred that they run
into each other. Reported are, for each way: the share of digits that are right and found, where the text and the truth
are aligned by edit distance and every digit that is wrong, missing or too many counts against it, also for pictures in
which digits touch and for the others; the share of pictures that are wholly right; how well the boxes of right pictures
fit (intersection over union, median); and pictures a second, in this process, from bytes to text, with the processor
time of one, which depends less on what else runs.

The model comes from `--storage`. The weights of the division were found with pictures of MNIST's training digits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import at_least, interleave, make_parser, make_row, print_report
from _pictures import Picture, compose_pictures

from mnist_core.candidates import find_candidates
from mnist_core.cutting import cut_picture
from mnist_core.datasets import load_dataset
from mnist_core.errors import ImageError
from mnist_core.predictor import Predictor, load_predictor
from mnist_core.registry import open_model
from mnist_core.splits import Split
from mnist_core.storage import open_storage

BOUND = 0.97

Boxes = npt.NDArray[np.intp]
Way = Callable[[bytes], tuple[str, Boxes]]


def make_ways(predictor: Predictor) -> dict[str, Way]:
    """The ways from a file to its text and its boxes (left, top, width and height)."""

    def ours(data: bytes) -> tuple[str, Boxes]:
        found = cut_picture(data, predictor)
        return "".join(map(str, found.predictions.digits.tolist())), found.boxes  # rejected ones too

    def pieces(data: bytes) -> tuple[str, Boxes]:
        candidates = find_candidates(data)
        uncut = np.flatnonzero(candidates.pieces)
        digits = predictor.predict(candidates.pixels[uncut]).digits
        return "".join(map(str, digits.tolist())), candidates.boxes[uncut]

    return {"ours": ours, "pieces": pieces}


def edit_distance(truth: str, found: str) -> int:
    """How many digits are wrong, missing or too many."""
    costs = list(range(len(found) + 1))
    for row, true_digit in enumerate(truth, 1):
        above, costs[0] = costs[0], row
        for column, digit in enumerate(found, 1):
            above, costs[column] = (
                costs[column],
                min(above + (digit != true_digit), costs[column] + 1, costs[column - 1] + 1),
            )
    return costs[-1]


def measure(read: Way, pictures: Sequence[Picture]) -> dict[str, float]:
    """Read all pictures once."""
    answers: list[tuple[str, Boxes]] = []
    started, cpu = time.perf_counter(), time.process_time()
    for picture in pictures:
        try:
            answers.append(read(picture.data))
        except ImageError:
            answers.append(("", np.empty((0, 4), np.intp)))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    wrong = np.array([edit_distance(each.text, text) for each, (text, _) in zip(pictures, answers, strict=True)])
    digits = np.array([len(each.text) for each in pictures])
    touching = np.array([each.touching for each in pictures])
    fits = [
        overlap(np.array(each.boxes), boxes)
        for each, (text, boxes) in zip(pictures, answers, strict=True)
        if text == each.text
    ]
    return {
        "right": 1 - wrong.sum() / digits.sum(),
        "right, touching": 1 - wrong[touching].sum() / max(1, digits[touching].sum()),
        "right, apart": 1 - wrong[~touching].sum() / max(1, digits[~touching].sum()),
        "whole": float((wrong == 0).mean()),
        "fit": float(np.median(np.concatenate(fits))) if fits else 0.0,
        "rate": len(pictures) / seconds,
        "cpu": 1e3 * cpu / len(pictures),
    }


def overlap(truth: npt.NDArray[Any], boxes: Boxes) -> npt.NDArray[Any]:
    """Intersection over union of each true box (left, top, right, bottom) with the one that was found."""
    ends = boxes[:, :2] + boxes[:, 2:]
    shared = (np.minimum(truth[:, 2:], ends) - np.maximum(truth[:, :2], boxes[:, :2])).clip(0).prod(1)
    return np.asarray(shared / ((truth[:, 2:] - truth[:, :2]).prod(1) + boxes[:, 2:].prod(1) - shared))


def load_digits() -> Split:
    """MNIST's test digits; the embedded ones without MNIST_DATA_DIR, which say whether it works and no more."""
    folder = os.environ.get("MNIST_DATA_DIR")
    if folder:
        return load_dataset("mnist", Path(folder), download=False).test
    return load_dataset("uci-digits").test


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--pictures", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures (default 0)")
    parser.add_argument("--storage", default="storage", help="that has the model (default storage)")
    parser.add_argument("--model", default="mnist", help="which model (default mnist)")
    options = parser.parse_args(argv)
    if options.smoke:
        options.rounds, options.pictures = 1, 8
    predictor = load_predictor(open_model(open_storage(options.storage), options.model).files, device="cpu")
    pictures = compose_pictures(load_digits(), options.pictures, options.seed)
    ways = {name: lambda way=way: measure(way, pictures) for name, way in make_ways(predictor).items()}
    results = interleave(ways, options.rounds)
    rows = []
    for name, rounds in results.items():
        for figure, label, unit, factor in (
            ("right", "digits right and found", "%", 100),
            ("right, touching", "the same where digits touch", "%", 100),
            ("right, apart", "the same where none do", "%", 100),
            ("whole", "pictures wholly right", "%", 100),
            ("fit", "boxes, intersection over union", "%", 100),
            ("rate", "pictures a second", "1/s", 1),
            ("cpu", "processor time of a picture", "ms", 1),
        ):
            rows.append(make_row(f"{name}: {label}", unit, [factor * each[figure] for each in rounds]))
    right = {name: round(float(min(each["right"] for each in rounds)), 4) for name, rounds in results.items()}
    must = {"digits right and found": at_least(right["ours"], BOUND)}
    ratios = {"digits wrong, ours / pieces": round((1 - right["ours"]) / max(1e-4, 1 - right["pieces"]), 3)}
    print_report("split", options.rounds, rows, ratios, must, json_only=options.json_only)


if __name__ == "__main__":
    main()
