"""A sheet of paper that does not fill its picture, since it is on a table or has a frame."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

_LEAST_AREA: Final = 0.15
"""Of a sheet, to its picture's."""
_SOLID: Final = 0.65
"""Share of a sheet that is without ink: in photos of notes, three quarters and more."""
_BENT: Final = 0.04
"""Area between a sheet's outline and the lines that join its corners, to the sheet's: 0.02 in drawn photos of notes,
turned or not; of solid ink, above 0.06 for MNIST's digits and above 0.12 for those of 145 fonts."""
_INSET: Final = 0.04
"""What is cut off on each side of a sheet, to its length: the edge is blurred, and not quite straight."""


def cut_sheet(
    tones: npt.NDArray[np.uint8], inked: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.uint8], int, int] | None:
    """Cut out the sheet that was taken for a picture's ink: a large solid area with four straight sides.

    Args:
        tones: uint8 (height, width).
        inked: What was taken for ink, bool (height, width).

    Returns:
        The sheet, uint8 of any size, and its place from the top and from the left; None if there is none. If it is
        turned, its corners have the tones that it has nearest in a row.
    """
    height, width = inked.shape
    area = np.count_nonzero(inked)
    if area < _LEAST_AREA * inked.size:
        return None
    rows, firsts, lasts = _span(inked)
    corners = _find_corners(rows, firsts, lasts)
    drawn = _draw(corners, (height, width))
    columns = np.arange(width)
    spanned = (columns >= firsts[:, None]) & (columns <= lasts[:, None])
    size = np.count_nonzero(drawn)
    bent = np.count_nonzero(spanned != drawn[rows])
    if area < _SOLID * size or bent > _BENT * size:
        return None
    middle = corners.mean(0)
    rows, firsts, lasts = _span(_draw(middle + (1 - 2 * _INSET) * (corners - middle), (height, width)))
    left = int(firsts.min())
    across = np.arange(left, lasts.max() + 1).clip(firsts[:, None], lasts[:, None])
    return np.asarray(tones[rows[:, None], across]), int(rows[0]), left


def _span(pixels: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], ...]:
    """The rows from the first pixel to the last, and where pixels begin and end in each, all (R,)."""
    filled = np.flatnonzero(pixels.any(1))
    rows = np.arange(filled[0], filled[-1] + 1)
    firsts, lasts = pixels[rows].argmax(1), pixels.shape[1] - 1 - pixels[rows, ::-1].argmax(1)
    return rows, firsts, lasts


def _find_corners(
    rows: npt.NDArray[np.intp], firsts: npt.NDArray[np.intp], lasts: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """The pixels that reach farthest to the four corners of the picture, once around: (4, 2), x and y."""
    ends = (firsts, firsts + rows), (lasts, rows - lasts), (lasts, -lasts - rows), (firsts, firsts - rows)
    return np.array([(side[reach.argmin()], rows[reach.argmin()]) for side, reach in ends], np.float64)


def _draw(corners: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """What lies between the corners: bool of this height and width."""
    image = Image.new("1", size[::-1])
    ImageDraw.Draw(image).polygon([(x, y) for x, y in corners.tolist()], fill=1)
    return np.asarray(image)
