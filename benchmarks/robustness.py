"""How a published model does on images that it was not made of, how well it knows, and what it refuses.

Accuracy, zero-shot, whether rejected or not:

  mnist         the 10,000 test images
  uci-digits    all 1,797 digits of the UCI set, brought from 8x8 pixels to MNIST's form
  fonts         ten digits of 20 fonts in eight sizes and places each, as PNG files through the decoder
  corruptions   the mean over the fifteen of benchmarks/corruptions.py

Knowing: the expected calibration error on the MNIST test images, 15 bins. Refusing, by the model's own threshold: the
share rejected of the MNIST test images (0.5% is wanted), of the Fashion-MNIST test images, of letters of the same fonts
that no digit looks like, and of scribbles. The share of Fashion-MNIST is told once more with the threshold that rejects
0.5% of the MNIST test images, so that models can be compared whose thresholds differ; that one must be 95%.

Fonts are looked for in the folders of --fonts; one style is taken of each family, 20 from A to Z if there are more. On
Debian, apt-get install fonts-cantarell fonts-comic-neue fonts-dejavu-core fonts-hack fonts-inconsolata fonts-lato
fonts-liberation fonts-open-sans fonts-quicksand fonts-roboto-unhinted fonts-urw-base35 brings 26 families; where there
are fewer than 20, the ten of matplotlib are added. Figures on other fonts are other figures. Fashion-MNIST is Debian's
dataset-fashion-mnist, or downloaded; where it cannot be, its rows are left out and a line says so. A round draws
corruptions, characters and scribbles anew.

Reported are percentages; each font and each corruption has a row of its own.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from _common import at_least, at_most, make_parser, make_row, print_report
from _drawings import DIGITS, LETTERS, decode_all, draw_characters, draw_scribble, find_fonts
from _published import add_model_options, draw_grid, load_model, load_or_end
from corruptions import CORRUPTIONS, LEAST_MEAN, corrupt, judge

from mnist_core.datasets import load_dataset
from mnist_core.errors import MnistError
from mnist_core.evaluation import evaluate_model
from mnist_core.predictor import Predictor
from mnist_core.splits import Split

SYSTEM_FONTS = Path("/usr/share/fonts")
OWN_FONTS = Path(mpl.get_data_path(), "fonts")
FONTS, DIGIT_TIMES, LETTER_TIMES, SCRIBBLES = 20, 8, 3, 1000
WANTED_REJECTED = 0.5
BOUNDS = {"uci-digits": 95.0, "corruptions": LEAST_MEAN, "calibration error": 0.3, "fashion-mnist": 95.0}
SMOKE_IMAGES = 100
SAMPLES = 20

Images = npt.NDArray[np.uint8]
Drawn = dict[str, tuple[Images, npt.NDArray[np.bool_]]]


def draw_all(fonts: dict[str, Path], amounts: tuple[int, int, int], seed: int) -> tuple[Drawn, list[str], list[int]]:
    """Draw and decode digits, letters and scribbles.

    Returns:
        By set, the images and which files the decoder refused; and of the digits, which they are and their fonts.
    """
    rng = np.random.default_rng([seed, 1])
    digit_times, letter_times, scribbles = amounts
    digits, labels, which = draw_characters(DIGITS, list(fonts.values()), digit_times, rng)
    letters, _, _ = draw_characters(LETTERS, list(fonts.values()), letter_times, rng)
    files = {"fonts": digits, "letters": letters, "scribbles": [draw_scribble(rng) for _ in range(scribbles)]}
    return {name: decode_all(drawn) for name, drawn in files.items()}, labels, which


def judge_drawn(
    predictor: Predictor, fonts: dict[str, Path], amounts: tuple[int, int, int], seed: int
) -> dict[str, float]:
    """Accuracy on the fonts, together and each, and the share rejected of what is no digit."""
    drawn, labels, which = draw_all(fonts, amounts, seed)
    images, refused = drawn.pop("fonts")
    right = (predictor.predict(images).digits == np.array(labels, np.uint8)) & ~refused
    figures = {"fonts": 100 * float(right.mean())}
    figures |= {f"font {name}": 100 * float(right[np.array(which) == index].mean()) for index, name in enumerate(fonts)}
    for name, (images, refused) in drawn.items():
        figures[f"rejected: {name}"] = 100 * float((predictor.predict(images).rejected | refused).mean())
    return figures


def judge_test(predictor: Predictor, test: Split, uci: Split, fashion: Images | None) -> dict[str, float]:
    """What does not depend on the draw: accuracy on the real digits, calibration error, rejection of real images."""
    evaluation, predictions = evaluate_model(predictor, test.images, test.labels)
    figures = {
        "mnist": 100 * evaluation.accuracy,
        "uci-digits": 100 * float((predictor.predict(uci.images).digits == uci.labels).mean()),
        "calibration error": 100 * evaluation.ece,
        "rejected: mnist": 100 * float(predictions.rejected.mean()),
    }
    if fashion is not None:
        judged = predictor.predict(fashion)
        limit = np.quantile(predictions.strangeness, 1 - WANTED_REJECTED / 100)
        figures["rejected: fashion-mnist"] = 100 * float(judged.rejected.mean())
        figures["rejected: fashion-mnist, with 0.5% of mnist"] = 100 * float((judged.strangeness > limit).mean())
    return figures


def find_fashion(data_dir: str | None, *, download: bool) -> Images | None:
    """The test images of Fashion-MNIST, or None and a line that says why not."""
    try:
        return load_dataset("fashion-mnist", Path(data_dir) if data_dir else None, download=download).test.images
    except MnistError as err:
        print(f"skipped: fashion-mnist, {err}", file=sys.stderr)
        return None


def draw(path: Path, sets: dict[str, Images], fonts: dict[str, Path], seed: int) -> None:
    """Write samples of each set."""
    drawn, _, _ = draw_all(fonts, (1, 1, SAMPLES), seed)
    rng = np.random.default_rng(seed)
    rows = sets | {
        "mixed corruptions": np.concatenate([corrupt(name, sets["mnist"][:1], seed) for name in CORRUPTIONS])
    }
    rows |= {name: rng.permutation(images) for name, (images, _) in drawn.items()}
    draw_grid({name: images[:SAMPLES] for name, images in rows.items()}, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = make_parser(__doc__, rounds=1)
    add_model_options(parser)
    parser.add_argument(
        "--fonts", nargs="+", type=Path, default=[SYSTEM_FONTS], help=f"folders (default {SYSTEM_FONTS})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first round (default 0)")
    options = parser.parse_args(argv)
    model, predictor = load_model(parser, options)
    data_dir = os.environ.get("MNIST_DATA_DIR")
    test, uci = load_or_end(parser, "mnist", data_dir).test, load_or_end(parser, "uci-digits", None)
    digits = Split(
        np.concatenate([uci.train.images, uci.test.images]), np.concatenate([uci.train.labels, uci.test.labels])
    )
    fashion = find_fashion(data_dir, download=not options.smoke)
    amounts, count = (DIGIT_TIMES, LETTER_TIMES, SCRIBBLES), FONTS
    if options.smoke:
        options.rounds, amounts, count = 1, (1, 1, 10), 2
        test = Split(test.images[:SMOKE_IMAGES], test.labels[:SMOKE_IMAGES])
        digits = Split(digits.images[:SMOKE_IMAGES], digits.labels[:SMOKE_IMAGES])
    fonts = find_fonts(options.fonts, count)
    if len(fonts) < count:
        fonts = find_fonts([*options.fonts, OWN_FONTS], count)
    if len(fonts) < count:
        print(f"warning: found {len(fonts)} families with digits, expected {count}; say --fonts", file=sys.stderr)
    if options.picture:
        sets = {"mnist": test.images, "uci-digits": digits.images}
        draw(options.picture, sets | ({} if fashion is None else {"fashion-mnist": fashion}), fonts, options.seed)
    fixed, rounds = judge_test(predictor, test, digits, fashion), []
    for seed in range(options.seed, options.seed + options.rounds):
        corrupted = judge(predictor, test, seed)
        means = {"corruptions": statistics.fmean(corrupted.values())}
        drawn = judge_drawn(predictor, fonts, amounts, seed)
        rounds.append(fixed | means | drawn | {f"corruption {name}": value for name, value in corrupted.items()})
    report(model, rounds, json_only=options.json_only)


def report(model: str, rounds: list[dict[str, float]], *, json_only: bool) -> None:
    """Print the figures of all rounds, the summary first, and hold them against the bounds."""
    names = sorted(rounds[0], key=lambda name: name.startswith(("font ", "corruption ")))
    rows = [make_row(name, "%", [figures[name] for figures in rounds]) for name in names]
    medians = {row["way"]: row["median"] for row in rows}
    must: dict[str, Any] = {name: at_least(medians[name], BOUNDS[name]) for name in ("uci-digits", "corruptions")}
    must["calibration error"] = at_most(medians["calibration error"], BOUNDS["calibration error"])
    strict = "rejected: fashion-mnist, with 0.5% of mnist"
    if strict in medians:
        must[strict] = at_least(medians[strict], BOUNDS["fashion-mnist"])
    print_report("robustness", len(rounds), rows, {}, must, json_only=json_only, versions={"model": model})


if __name__ == "__main__":
    main()
