"""The one style of all figures, and how a figure becomes a PNG: the same input gives the same bytes.

Every figure is drawn on a canvas of its own, without pyplot. Matplotlib's style is global all the same: draw from one
thread at a time. Colours are those of Okabe and Ito (2008), told apart by colour-blind readers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, INK, GREY, PALE = "#0072b2", "#d55e00", "#1f2328", "#6b7280", "#e5e7eb"
"""Blue is what is right, or the rule; orange is what is wrong, or what to look at."""

SLIDE: Final = (9.6, 5.4)
"""Inches, 16:9."""

SMALL: Final = 13
LARGE: Final = 19
"""Points, beside 15 for everything else; projected on a slide of 13.3 inches they are 1.4 times as large."""

_STYLE: Final[dict[Any, Any]] = {
    "figure.dpi": 150,
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.09,
    "figure.constrained_layout.w_pad": 0.09,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the figures look the same everywhere
    "font.size": 15,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 15,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": PALE,
    "lines.linewidth": 2.6,
    "lines.markersize": 6,
}


class Png(bytes):
    """A picture as the bytes of a PNG file, which a notebook shows where it is a cell's value."""

    def __repr__(self) -> str:
        return f"<PNG, {len(self):,} bytes>"

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """IPython asks for this: the picture, and a width on the page at which it is sharp on fine screens."""
        width = int.from_bytes(self[16:20], "big")  # the header's first field, by the PNG specification
        return bytes(self), {"width": round(width / 1.5)}


@contextmanager
def drawing(title: str, *, height: float = SLIDE[1]) -> Iterator[Figure]:
    """Draw on an empty slide with a title, in the style of all figures, whatever the user's own settings say.

    Args:
        title: What the figure says, in a line of at most 60 characters.
        height: Inches.

    Yields:
        The figure, to be given to ``to_png`` before the style ends.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):  # "default" keeps the user's own matplotlibrc out
        figure = Figure(figsize=(SLIDE[0], height), layout="constrained")
        figure.suptitle(title, x=0.012, ha="left", fontsize=LARGE, fontweight="bold")
        yield figure


def to_png(figure: Figure) -> Png:
    """Render a figure; nothing but the picture is in the file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})  # matplotlib's version is not the figure's
    return Png(content.getvalue())


def draw_digit(axes: Axes, image: npt.NDArray[np.uint8]) -> None:
    """Draw an image, uint8 (28, 28), as ink on paper."""
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#d1d5db")


def hide_unused(figure: Figure) -> None:
    """Leave blank where nothing was drawn."""
    for axes in figure.axes:
        axes.set_visible(axes.has_data())
