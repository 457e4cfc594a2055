"""The figures of a model as PNG bytes, for slides, the report and notebooks; see ``plot_style`` for how they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mnist_core.evaluation import NUM_BINS, Evaluation, Reliability, measure_reliability, rank_mistakes
from mnist_core.plot_style import BLUE, GREY, INK, ORANGE, PALE, SMALL, Png, draw_digit, drawing, hide_unused, to_png
from mnist_core.splits import NUM_CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES: Final = {"train": GREY, "validation": BLUE}

MOST_MARKERS: Final = 25
"""Epochs beyond which the points of a curve would run together."""

LINE: Final = 0.08
"""A line of text, as a share of the height of the axes."""

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]


def plot_digits(images: Images, labels: Labels, count: int = 5) -> Png:
    """Draw the first images of each digit, a column a digit, with the number of its images above.

    Args:
        images: uint8 (N, 28, 28).
        labels: uint8 (N,).
        count: How many of each at most.

    Returns:
        PNG bytes.
    """
    with drawing(f"{len(images):,} images, the first of each digit") as figure:
        grid = figure.subplots(count, NUM_CLASSES, squeeze=False)
        for digit, column in enumerate(grid.T):
            indices = np.flatnonzero(labels == digit)
            column[0].set_title(f"{len(indices):,}", loc="center", fontsize=SMALL, fontweight="normal")
            for axes, index in zip(column, indices, strict=False):
                draw_digit(axes, images[index])
        hide_unused(figure)
        return to_png(figure)


def plot_training_curves(history: Sequence[Mapping[str, Any]], best_epoch: int | None = None) -> Png:
    """Draw loss and accuracy by epoch.

    Args:
        history: One mapping an epoch with ``epoch`` (from 1), ``train_loss``, ``validation_loss``, ``train_accuracy``
            and ``validation_accuracy`` (0 to 1).
        best_epoch: The epoch to mark, the one that is published.

    Returns:
        PNG bytes.
    """
    accuracy = {report["epoch"]: report["validation_accuracy"] for report in history}
    marked = f" {accuracy[best_epoch]:.2%} in epoch {best_epoch}" if best_epoch else ""
    with drawing(f"Validation accuracy{marked}" if marked else "Training, epoch by epoch") as figure:
        for axes, name, scale in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True):
            _draw_curves(axes, history, name, scale, best_epoch)
        return to_png(figure)


def plot_confusion(evaluation: Evaluation) -> Png:
    """Draw the confusion matrix: only mistakes have a colour, the more of them the darker.

    Args:
        evaluation: The metrics.

    Returns:
        PNG bytes.
    """
    wrong = evaluation.count - evaluation.correct
    with drawing(f"{evaluation.accuracy:.2%} right, {wrong:,} of {evaluation.count:,} images wrong") as figure:
        _draw_confusion(figure.subplots(), evaluation)
        return to_png(figure)


def plot_reliability(probabilities: Probabilities, labels: Labels) -> Png:
    """Draw how often the model is right, by how sure it is: on the diagonal it is as good as its word.

    A point is one of the 15 bins of the calibration error, at the mean confidence of its images, with the 95% interval
    that its number of images leaves (Wilson, 1927); below it is that number.

    Args:
        probabilities: float32 (N, 10), N at least 1.
        labels: uint8 (N,).

    Returns:
        PNG bytes.
    """
    found = measure_reliability(probabilities, labels)
    with drawing(f"Confidence and truth are {100 * found.ece:.2f} points apart on average") as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        _draw_reliability(upper, found)
        _draw_counts(lower, found.counts)
        return to_png(figure)


def plot_mistakes(images: Images, labels: Labels, probabilities: Probabilities, count: int = 25) -> Png:
    """Draw the most confident mistakes.

    Args:
        images: uint8 (N, 28, 28).
        labels: uint8 (N,).
        probabilities: float32 (N, 10).
        count: How many at most.

    Returns:
        PNG bytes.
    """
    mistakes = rank_mistakes(probabilities, labels)
    shown = mistakes[:count]
    rows = max(1, -(-len(shown) // 5))
    title = f"The {len(shown)} most confident of {len(mistakes):,} mistakes: truth → prediction"
    title = title if len(shown) else f"No mistakes in {len(images):,} images"
    with drawing(title, height=0.5 + 0.98 * rows) as figure:
        for axes, index in zip(figure.subplots(rows, 5, squeeze=False).flat, shown, strict=False):
            guess = int(probabilities[index].argmax())
            draw_digit(axes, images[index])
            axes.set_anchor("W")
            caption = axes.annotate(
                f"{labels[index]} → {guess}", (1.08, 0.52), xycoords="axes fraction", va="bottom", fontweight="bold"
            )
            axes.annotate(f"{probabilities[index, guess]:.1%}", (1.08, 0.44), xycoords="axes fraction", va="top")
            caption.set(color=ORANGE, fontsize=17)
        hide_unused(figure)
        return to_png(figure)


def plot_samples(images: Images, labels: Labels, probabilities: Probabilities) -> Png:
    """Draw the first image of each digit, with what the model takes it for and the three most probable digits.

    Args:
        images: uint8 (N, 28, 28).
        labels: uint8 (N,).
        probabilities: float32 (N, 10).

    Returns:
        PNG bytes.
    """
    with drawing("The first image of each digit, and what it is taken for") as figure:
        axes = figure.subplots(4, 5, squeeze=False, height_ratios=[5, 3, 5, 3])
        present, first = np.unique(labels, return_index=True)
        for digit, index in zip(present, first, strict=True):
            picture, bars = axes[2 * (digit // 5) : 2 * (digit // 5) + 2, digit % 5]
            draw_digit(picture, images[index])
            _draw_probabilities(bars, probabilities[index], int(digit))
        hide_unused(figure)
        return to_png(figure)


def _draw_curves(
    axes: Axes, history: Sequence[Mapping[str, Any]], name: str, scale: float, best_epoch: int | None
) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [report["epoch"] for report in history]
    marker = "o" if len(epochs) <= MOST_MARKERS else ""
    ends = {}
    for split, line in (("train", "--"), ("validation", "-")):
        values = [report[f"{split}_{name}"] * scale for report in history]
        axes.plot(epochs, values, line, color=CURVES[split], marker=marker, clip_on=False)
        ends[split] = values[-1]
        if best_epoch and split == "validation":
            ring: dict[str, Any] = {
                "markersize": 14,
                "markerfacecolor": "none",
                "color": ORANGE,
                "markeredgewidth": 2.4,
            }
            axes.plot(best_epoch, values[epochs.index(best_epoch)], "o", clip_on=False, **ring)
    axes.set_title(name.capitalize() + (" in %" if scale == 100 else ""))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")
    _name_curves(axes, epochs[-1], ends)


def _name_curves(axes: Axes, epoch: int, ends: Mapping[str, float]) -> None:
    """Write each curve's name where it ends, a line apart if they end close together."""
    low, high = axes.get_ylim()
    lower, upper = sorted(ends, key=lambda split: ends[split])
    apart = (ends[upper] - ends[lower]) / (high - low)
    push = max(0.0, LINE - apart) / 2 * (high - low)
    for split, height in ((lower, ends[lower] - push), (upper, ends[upper] + push)):
        axes.annotate(
            split, (epoch, height), (12, 0), textcoords="offset points", va="center_baseline", fontsize=SMALL,
            fontweight="bold", color=CURVES[split], annotation_clip=False,
        )  # fmt: skip


def _draw_confusion(axes: Axes, evaluation: Evaluation) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    oranges = LinearSegmentedColormap.from_list("wrong", ["#fff3e6", "#fdba74", ORANGE])
    confusion = evaluation.confusion
    digits = np.arange(len(confusion))
    wrong = confusion - np.diag(np.diag(confusion))
    colours = oranges(np.sqrt(wrong / max(wrong.max(), 1)))
    colours[wrong == 0] = 1
    colours[digits, digits] = [0.93, 0.94, 0.955, 1]
    axes.imshow(colours, aspect="auto")
    for truth, guess in np.argwhere(confusion > 0):
        dark = colours[truth, guess][:3] @ [0.299, 0.587, 0.114] < 0.55
        colour, weight = (BLUE, "bold") if truth == guess else ("white" if dark else INK, "normal")
        text = f"{confusion[truth, guess]:,}"
        axes.text(guess, truth, text, ha="center", va="center_baseline", fontsize=14, color=colour, fontweight=weight)
    axes.set_xticks(digits)
    axes.set_yticks(digits)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(digits[1:] - 0.5, minor=True)
    axes.set_yticks(digits[1:] - 0.5, minor=True)
    axes.grid(which="minor", linewidth=1)
    recall = axes.secondary_yaxis("right")
    recall.set_yticks(digits, [f"{share:.1%}" for share in evaluation.recall])
    recall.tick_params(length=0, labelcolor=BLUE)
    recall.spines[:].set_visible(False)
    axes.annotate("recall", (1.01, -0.018), xycoords="axes fraction", va="top", color=GREY)


def _draw_reliability(axes: Axes, found: Reliability) -> None:
    used = found.counts > 0
    confidence, accuracy = found.confidence[used] * 100, found.accuracy[used] * 100
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=1.5, linestyle="--", zorder=1)
    axes.annotate("dashed: as sure as it is right", (99, 3), ha="right", color=GREY, fontsize=SMALL)
    axes.vlines(confidence, found.low[used] * 100, found.high[used] * 100, color=BLUE, linewidth=5, alpha=0.3)
    axes.plot(confidence, accuracy, "o", color=BLUE, markersize=9, clip_on=False, zorder=3)
    axes.set(xlim=(0, 100), ylim=(0, 100), xticks=range(0, 101, 20), yticks=range(0, 101, 25))
    axes.set_title("Right answers in %, with the interval their number leaves")
    axes.tick_params(bottom=False)
    axes.grid(axis="y")


def _draw_counts(axes: Axes, counts: npt.NDArray[np.int64]) -> None:
    centres = (np.arange(NUM_BINS) + 0.5) * 100 / NUM_BINS
    axes.bar(centres, counts, width=90 / NUM_BINS, color=PALE)
    axes.set_yscale("symlog", linthresh=1)
    axes.set(yticks=[], ylim=(0, counts.max() * 30))
    for centre, count in zip(centres, counts, strict=True):
        if count:
            axes.annotate(
                f"{count:,}", (centre, count), (0, 2), textcoords="offset points", ha="center", fontsize=SMALL
            )
    axes.yaxis.minorticks_off()
    axes.spines["left"].set_visible(False)
    axes.set_ylabel("images")
    axes.set_xlabel("confidence in %")


def _draw_probabilities(axes: Axes, probabilities: npt.NDArray[np.float32], truth: int) -> None:
    order = np.argsort(-probabilities, kind="stable")[:3]
    colours = [BLUE if digit == truth else ORANGE if place == 0 else GREY for place, digit in enumerate(order)]
    axes.barh(range(3), probabilities[order], height=0.62, color=colours, left=0.12)
    for place, (digit, colour) in enumerate(zip(order, colours, strict=True)):
        probability = probabilities[digit]
        inside = probability > 0.6
        axes.annotate(
            _percent(probability), (0.12 + probability, place), (-4 if inside else 4, 0), textcoords="offset points",
            ha="right" if inside else "left", va="center_baseline", fontsize=SMALL, color="white" if inside else INK,
        )  # fmt: skip
        axes.text(
            0.08, place, f"{digit}", ha="right", va="center_baseline", fontsize=14, fontweight="bold", color=colour
        )
    axes.set(xlim=(0, 1.12), ylim=(2.5, -0.5), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _percent(probability: float) -> str:
    """A probability that says neither never nor always."""
    return f"{probability:.1%}" if 0.0005 <= probability < 0.9995 else ("< 0.1%" if probability < 0.5 else "> 99.9%")
