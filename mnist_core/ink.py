"""From the pixels of any image to one digit as MNIST has them: which tone is ink, and where the digit is.

Files are read in ``mnist_core.images``, and brought to one channel in ``mnist_core.colours``. The paper is estimated in
``mnist_core.paper``, and a sheet that does not fill the image is found in ``mnist_core.sheets``. The digit is framed in
``mnist_core.framing``; several are told apart in ``mnist_core.cutting``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnist_core.errors import ImageBlankError
from mnist_core.framing import BLANK, frame_ink
from mnist_core.paper import Floats, Paper, estimate_papers
from mnist_core.sheets import cut_sheet

_DARKEST: Final = 64.0
"""Tones that dark paper is at least thought to have, so that noise in a deep shadow does not become ink."""
_FAINT: Final = 14.0
"""Contrast that is not ink, of 255; a pencil has 40 and more."""
_NOISES: Final = 4.0
_NOISY: Final = 6.0
"""Noise of the paper from which on a coarser copy shows the digit better."""
_COARSEST_SIDE: Final = 128
_INK_FRACTION: Final = 0.35
"""Contrast from which on a pixel is ink, to that of the ink."""
_SOFT: Final = (0.1, 0.9)
"""Where black and white are put, so that the blurred edge of a stroke gets back the width it has in MNIST."""
_FULL_FRACTION: Final = 0.7
_BLUR_FRACTION: Final = 0.02
"""Width of an outline, to the image's longer side, but a pixel at least: the edge of a shadow has more."""
_EDGE_SHARE: Final = 0.4
"""Share of an outline that may be on the image's edge: shadows and tables have more."""
_CELLS: Final = 96
"""Pieces of ink that are nearer to each other than this part of the image's longer side are one."""
_PIECE_FRACTION: Final = 0.06
"""Ink of a piece that belongs to the digit, such as the bar of a five, to that of the largest. Specks have less."""
_SMALLEST_FRACTION: Final = 0.05
"""Least length of a stroke a pixel wide that is a digit, to the image's longer side."""


def draw_digit(tones: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Find the digit in an image and draw it as MNIST's are.

    Args:
        tones: uint8 (height, width), dark ink on light paper or the reverse.

    Returns:
        uint8 (28, 28), white on black.

    Raises:
        ImageBlankError: There is no ink.
    """
    ink = find_ink(tones, _COARSEST_SIDE)
    near = _select_pieces(ink.inked, ink.full)
    inked = ink.inked & near
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    if not rows.size:
        raise ImageBlankError(BLANK)
    return frame_ink(ink.shade(inked, near)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


@dataclass(frozen=True, eq=False)
class Ink:
    """An image's ink, told from its paper.

    Attributes:
        contrast: Floats (height, width): 0 is paper, 255 black on white.
        inked: Where there may be ink, bool (height, width).
        strength: The contrast that most of the ink has.
        certain: Where the contrast is more than noise, bool (height, width).
    """

    contrast: npt.NDArray[Any]
    inked: npt.NDArray[np.bool_]
    strength: np.float64
    certain: npt.NDArray[np.bool_]

    @property
    def full(self) -> npt.NDArray[np.bool_]:
        """Where ink has all of its contrast: bool (height, width)."""
        return self.contrast > _FULL_FRACTION * self.strength

    def put(self, height: int, width: int, top: int, left: int) -> Ink:
        """Put it on a larger image, where there is no other ink."""
        below, right = height - top - self.inked.shape[0], width - left - self.inked.shape[1]
        contrast, inked, certain = (
            np.pad(each, ((top, below), (left, right))) for each in (self.contrast, self.inked, self.certain)
        )
        return Ink(contrast, inked, self.strength, certain)

    def shade(self, inked: npt.NDArray[np.bool_], near: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        """Shades from paper to ink, 0 to 1.

        Args:
            inked: The ink that sets the scale, bool (height, width).
            near: Where ink is wanted, bool (height, width); elsewhere is paper.
        """
        black, white = _SOFT[0] * self.strength, _SOFT[1] * float(np.percentile(self.contrast[inked], 75))
        return np.clip((self.contrast - black) / max(white - black, 1), 0, 1) * (near & self.certain)


def find_ink(tones: npt.NDArray[np.uint8], coarsest: int) -> Ink:
    """Tell ink from paper.

    Args:
        tones: uint8 (height, width), dark ink on light paper or the reverse.
        coarsest: An image with much noise is halved, again and again, while its longer side is more than that.

    Returns:
        The ink, of the size of ``tones`` or smaller.

    Raises:
        ImageBlankError: There is no ink.
    """
    for paper in estimate_papers(tones):
        difference = paper.tones - tones if paper.ink_is_dark else tones - paper.tones
        noise = _measure_noise(difference)
        if noise > _NOISY and max(tones.shape) > coarsest:
            return find_ink(np.asarray(Image.fromarray(tones).reduce(2)), coarsest)
        ink = _tell_ink(tones, paper, difference, noise)
        if ink is not None:
            return _look_on_sheet(tones, ink, coarsest)
    raise ImageBlankError(BLANK)


def _tell_ink(tones: npt.NDArray[np.uint8], paper: Paper, difference: Floats, noise: float) -> Ink | None:
    """Tell ink from paper, and from its noise; None if there is none."""
    least = paper.nearest - tones if paper.ink_is_dark else tones - paper.nearest
    # In a shadow paper and ink are darker in proportion: 0 is paper, 255 black on white.
    contrast = difference * (255 / np.maximum(paper.tones if paper.ink_is_dark else 255 - paper.tones, _DARKEST))
    visible = (least > max(_NOISES * noise, _FAINT / 2)) & (contrast > _FAINT)
    certain = contrast[visible].astype(np.float64)
    if not certain.size:
        return None
    strength: np.float64 = (certain**3).sum() / (certain**2).sum()
    return Ink(contrast, visible & (contrast > _INK_FRACTION * strength), strength, difference > 1.5 * noise)


def _look_on_sheet(tones: npt.NDArray[np.uint8], ink: Ink, coarsest: int) -> Ink:
    """If what was taken for ink is a sheet of paper, take the ink on it; a solid digit has none but specks."""
    found = cut_sheet(tones, ink.inked)
    if found is None:
        return ink
    sheet, top, left = found
    try:
        on_sheet = find_ink(sheet, coarsest)
    except ImageBlankError:
        return ink
    if not _select_pieces(on_sheet.inked, on_sheet.full).any():
        return ink
    factor = round(max(sheet.shape) / max(on_sheet.inked.shape))
    height, width = (-(-side // factor) for side in tones.shape)
    return on_sheet.put(height, width, top // factor, left // factor)


def _measure_noise(difference: Floats) -> float:
    """Estimate the standard deviation of the paper's noise, in tones, from what is less than paper: there is no ink."""
    counts = np.bincount(np.clip(-difference, 0, 255).astype(np.uint8).ravel(), minlength=256)
    counts[0] = np.count_nonzero((difference <= 0) & (difference > -1))
    below = np.cumsum(counts)
    # Of the half of a normal distribution below its middle, 68% are nearer to it than one standard deviation.
    return max(0.5, float(np.searchsorted(below, 0.68 * below[-1])))


def _select_pieces(inked: npt.NDArray[np.bool_], full: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Choose the pieces of ink that are the digit.

    Args:
        inked: Where there may be ink, bool (height, width).
        full: Where it has all of its contrast.

    Returns:
        bool (height, width), True on the digit and a little around.
    """
    height, width = inked.shape
    size = -(-max(height, width) // _CELLS)

    def count(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        padded = np.pad(pixels, ((0, -height % size), (0, -width % size)))
        blocks = padded.reshape(padded.shape[0] // size, size, padded.shape[1] // size, size)
        return np.asarray(blocks.sum((1, 3)))

    outline, on_edge = find_outlines(inked)
    cells = count(inked)
    pieces = _label(cells > 0)
    areas, full_areas, outlines, edges = (
        np.bincount(pieces.ravel(), weights=each.ravel())
        for each in (cells, count(inked & full), count(outline), count(on_edge))
    )
    areas[are_shadows(areas - full_areas, outlines, edges, max(inked.shape))] = 0
    smallest = max(3, _SMALLEST_FRACTION * max(inked.shape))
    chosen = ((areas >= _PIECE_FRACTION * areas.max()) & (areas.max() >= smallest))[pieces] & (pieces > 0)
    around = _widen(np.pad(chosen, 1))
    return around.repeat(size, axis=0).repeat(size, axis=1)[:height, :width]


def find_outlines(inked: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Count the sides of each pixel of ink that are next to paper, and those that are on the image's edge.

    Args:
        inked: bool (height, width).

    Returns:
        Both as uint8 (height, width).
    """
    framed = np.pad(inked, 1)
    beside = framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]
    outline = np.asarray(np.sum([inked & ~neighbour for neighbour in beside], axis=0, dtype=np.uint8))
    on_edge = np.zeros_like(inked, np.uint8)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        on_edge[edge] += inked[edge]
    return outline, on_edge


def are_shadows(
    blurred: npt.NDArray[Any], outlines: npt.NDArray[Any], edges: npt.NDArray[Any], longest: int
) -> npt.NDArray[np.bool_]:
    """Which pieces are shadows or tables: much of their outline is on the image's edge, or it is far too blurred.

    Args:
        blurred: Pixels of each piece without full contrast, (N,).
        outlines: Length of its outline, (N,).
        edges: How much of that is on the image's edge, (N,).
        longest: The image's longer side.

    Returns:
        bool (N,).
    """
    outlines = np.maximum(outlines, 1)
    return np.asarray((edges > _EDGE_SHARE * outlines) | (blurred / outlines > max(1.0, _BLUR_FRACTION * longest)))


def _label(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Give each group of neighbouring cells a number of its own, its highest index; 0 is no cell."""
    labels = np.where(cells, np.arange(1, cells.size + 1).reshape(cells.shape), 0)
    while True:
        grown = _widen(np.pad(labels, 1)) * cells
        grown = np.concatenate([[0], grown.ravel()])[grown]  # what my neighbour's neighbour knows
        if np.array_equal(grown, labels):
            return labels
        labels = grown


def _widen(padded: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The greatest of each 3x3 values, without the border."""
    rows = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    return np.asarray(np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:]))
