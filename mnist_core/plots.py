"""The figures of a run as PNG bytes, for slides and the report; the same input gives the same bytes.

Every figure is drawn on a canvas of its own, without pyplot. Matplotlib's style is global all the same: draw from one
thread at a time. Colours are those of Okabe and Ito (2008), told apart by colour-blind readers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mnist_core.evaluation import Evaluation, rank_mistakes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, INK, GREY = "#0072b2", "#d55e00", "#009e73", "#1f2328", "#6b7280"

SLIDE: Final = (9.6, 5.4)
"""Inches, 16:9."""

_STYLE: Final[dict[Any, Any]] = {
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the figures look the same everywhere
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": "#e5e7eb",
    "lines.linewidth": 2.2,
    "lines.markersize": 5,
}

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]


def plot_training_curves(history: Sequence[Mapping[str, Any]], best_epoch: int | None = None) -> bytes:
    """Draw loss and accuracy by epoch.

    Args:
        history: One mapping an epoch with ``epoch`` (from 1), ``train_loss``, ``validation_loss``, ``train_accuracy``
            and ``validation_accuracy`` (0 to 1).
        best_epoch: The epoch to mark, the one that is published.

    Returns:
        PNG bytes.
    """
    with _style():
        accuracy = {report["epoch"]: report["validation_accuracy"] for report in history}
        marked = f": validation accuracy {accuracy[best_epoch]:.2%} in epoch {best_epoch}" if best_epoch else ""
        figure = _slide(f"Training{marked}")
        for axes, name, scale in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True):
            _draw_curves(axes, history, name, scale, best_epoch)
        return _to_png(figure)


def plot_confusion(evaluation: Evaluation) -> bytes:
    """Draw the confusion matrix: mistakes in orange, so that they stand out; what is right in blue, as recall.

    Args:
        evaluation: The metrics.

    Returns:
        PNG bytes.
    """
    with _style():
        wrong = evaluation.count - evaluation.correct
        figure = _slide(f"{evaluation.accuracy:.2%} right, {wrong:,} of {evaluation.count:,} images wrong")
        _draw_confusion(figure.subplots(), evaluation)
        return _to_png(figure)


def plot_mistakes(images: Images, labels: Labels, probabilities: Probabilities, count: int = 25) -> bytes:
    """Draw the most confident mistakes.

    Args:
        images: uint8 (N, 28, 28).
        labels: uint8 (N,).
        probabilities: float32 (N, 10).
        count: How many at most.

    Returns:
        PNG bytes.
    """
    with _style():
        mistakes = rank_mistakes(probabilities, labels)
        shown = mistakes[:count]
        rows = max(1, -(-len(shown) // 5))
        title = f"The {len(shown)} most confident of {len(mistakes):,} mistakes: truth → prediction"
        figure = _slide(title if len(shown) else f"No mistakes in {len(images):,} images", height=0.5 + 0.98 * rows)
        for axes, index in zip(figure.subplots(rows, 5, squeeze=False).flat, shown, strict=False):
            guess = int(probabilities[index].argmax())
            _draw_digit(axes, images[index])
            axes.set_anchor("W")
            caption = axes.annotate(
                f"{labels[index]} → {guess}", (1.08, 0.55), xycoords="axes fraction", va="bottom", fontweight="bold"
            )
            axes.annotate(f"{probabilities[index, guess]:.1%}", (1.08, 0.45), xycoords="axes fraction", va="top")
            caption.set(color=ORANGE, fontsize=15)
        _hide_unused(figure)
        return _to_png(figure)


def plot_samples(images: Images, labels: Labels, probabilities: Probabilities, count: int = 16) -> bytes:
    """Draw digits spread evenly over the dataset, each with the probability of every digit below it.

    Args:
        images: uint8 (N, 28, 28).
        labels: uint8 (N,).
        probabilities: float32 (N, 10).
        count: How many at most.

    Returns:
        PNG bytes.
    """
    with _style():
        figure = _slide("Sample digits: prediction, and the probability of each digit")
        shown = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
        columns = -(-count // 2)
        axes = figure.subplots(4, columns, squeeze=False, height_ratios=[9, 5, 9, 5])
        pictures, bars = axes[::2].flat, axes[1::2].flat
        for picture, bar, index in zip(pictures, bars, shown, strict=False):
            guess, truth = int(probabilities[index].argmax()), int(labels[index])
            _draw_digit(picture, images[index])
            right = guess == truth
            colour = GREEN if right else ORANGE
            picture.set_title(str(guess) if right else f"{guess}, is {truth}", loc="center", color=colour, pad=4)
            _draw_probabilities(bar, probabilities[index], guess, colour)
        _hide_unused(figure)
        return _to_png(figure)


@contextmanager
def _style() -> Iterator[None]:
    from matplotlib import style

    with style.context(["default", _STYLE]):  # "default" keeps the user's own matplotlibrc out
        yield


def _slide(title: str, height: float = SLIDE[1]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SLIDE[0], height), layout="constrained")
    figure.suptitle(title, x=0.008, ha="left", fontsize=16, fontweight="bold")
    return figure


def _to_png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})  # matplotlib's version is not the figure's
    return content.getvalue()


def _draw_curves(
    axes: Axes, history: Sequence[Mapping[str, Any]], name: str, scale: float, best_epoch: int | None
) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [report["epoch"] for report in history]
    for split, colour, line in (("train", BLUE, "--"), ("validation", ORANGE, "-")):
        values = [report[f"{split}_{name}"] * scale for report in history]
        axes.plot(epochs, values, line, color=colour, marker="o", label=split)
        if best_epoch and split == "validation":
            best = values[epochs.index(best_epoch)]
            axes.plot(best_epoch, best, "o", markersize=13, markerfacecolor="none", color=INK, markeredgewidth=1.5)
            axes.axvline(best_epoch, color=GREY, linewidth=1, linestyle=":", zorder=0)
    axes.set_title(name.capitalize() + (" in %" if scale == 100 else ""))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y")
    axes.legend(loc="upper right" if name == "loss" else "lower right", framealpha=1, edgecolor="none")


def _draw_confusion(axes: Axes, evaluation: Evaluation) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    blues = LinearSegmentedColormap.from_list("right", ["#dbeafe", BLUE])
    oranges = LinearSegmentedColormap.from_list("wrong", ["#fff7ed", "#fdba74", ORANGE])
    confusion = evaluation.confusion
    wrong = confusion - np.diag(np.diag(confusion))
    colours = oranges(np.sqrt(wrong / max(wrong.max(), 1)))
    colours[wrong == 0] = 1
    digits = np.arange(len(confusion))
    colours[digits, digits] = blues(evaluation.recall)
    axes.imshow(colours, aspect="auto")
    for truth, guess in np.argwhere(confusion > 0):
        dark = colours[truth, guess][:3] @ [0.299, 0.587, 0.114] < 0.55
        text = f"{confusion[truth, guess]:,}"
        axes.text(guess, truth, text, ha="center", va="center", fontsize=11, color="white" if dark else INK)
    axes.set_xticks(digits)
    axes.set_yticks(digits, [f"{digit}" for digit in digits])
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(digits[1:] - 0.5, minor=True)
    axes.set_yticks(digits[1:] - 0.5, minor=True)
    axes.grid(which="minor", linewidth=1)
    recall = axes.secondary_yaxis("right")
    recall.set_yticks(digits, [f"{share:.1%}" for share in evaluation.recall])
    recall.set_ylabel("recall")
    recall.tick_params(length=0)
    recall.spines[:].set_visible(False)


def _draw_digit(axes: Axes, image: npt.NDArray[np.uint8]) -> None:
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=255)  # dark ink on white, as on paper
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#d1d5db")


def _draw_probabilities(axes: Axes, probabilities: npt.NDArray[np.float32], guess: int, colour: str) -> None:
    bars = axes.bar(range(len(probabilities)), probabilities, color="#c3c9d1", width=0.8)
    bars[guess].set_color(colour)
    axes.set(xticks=range(len(probabilities)), yticks=[], ylim=(0, 1))
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=7, length=0, pad=2)


def _hide_unused(figure: Figure) -> None:
    for axes in figure.axes:
        axes.set_visible(axes.has_data())
