"""From the pixels of any image to one digit as MNIST has them: which tone is ink, where the digit is, how it is framed.

MNIST's digits fit 20x20 pixels with their proportions kept, are smoothed by the resampling, and have their centre of
mass in the middle of 28x28 pixels (http://yann.lecun.com/exdb/mnist/). Files are read in ``mnist_core.images``.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from mnist_core.errors import ImageBlankError
from mnist_core.paper import Floats, estimate_paper, fit_surface, shrink
from mnist_core.splits import IMAGE_SIZE

DIGIT_SIDE: Final = 20

_BLANK: Final = "expected a digit, found an image without ink"
_DARKEST: Final = 64.0
"""Tones that dark paper is at least thought to have, so that noise in a deep shadow does not become ink."""
_FAINT: Final = 14.0
"""Contrast that is not ink, of 255; a pencil has 40 and more."""
_NOISES: Final = 4.0
_NOISY: Final = 8.0
"""Noise of the paper, of 255, from which on a coarser copy shows the digit better."""
_COARSEST_SIDE: Final = 128
_INK_FRACTION: Final = 0.35
"""Contrast from which on a pixel is ink, to that of the ink."""
_SOFT: Final = (0.1, 0.9)
"""Where black and white are put, so that the blurred edge of a stroke gets back the width it has in MNIST."""
_CELLS: Final = 96
"""Pieces of ink that are nearer to each other than this part of the image's longer side are one."""
_PIECE_FRACTION: Final = 0.06
"""Ink of a piece that belongs to the digit, such as the bar of a five, to that of the largest. Specks have less."""
_SMALLEST_FRACTION: Final = 0.025
"""The digit's longer side, to the image's. Specks of dust have less."""
_LARGE_SIDE: Final = 4 * DIGIT_SIDE
_PEAK: Final = 0.9
_THIN: Final = 2.0
"""Width that strokes are brought to if they have less, in pixels of MNIST, where few have less."""


def find_tones(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Reduce an image to the one channel in which ink and paper differ most.

    Args:
        image: Mode L, RGB or RGBA. A grey image keeps its values. In a transparent image the ink is what is not
            transparent, whatever its colour, unless that is a picture of its own: a sheet with ink on it.

    Returns:
        uint8 (height, width).

    Raises:
        ImageBlankError: All is transparent.
    """
    if image.mode == "RGBA":
        alpha = np.asarray(image.getchannel("A"))
        if alpha.min() < 255:
            sheet = _find_sheet(image, alpha)
            if sheet is None:
                return alpha
            image = sheet
        image = image.convert("RGB")
    if image.mode == "RGB":
        red, green, blue = (np.asarray(channel) for channel in image.split())
        if np.array_equal(red, green) and np.array_equal(green, blue):
            return red
        image = image.convert("L", _ink_colour(image))
    return np.asarray(image)


def _find_sheet(image: Image.Image, alpha: npt.NDArray[np.uint8]) -> Image.Image | None:
    """Put a sheet with ink on it, cut out on transparent ground, on ground of its own colour; None if it is only ink."""
    visible = alpha > 127
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    if not rows.size:
        raise ImageBlankError("expected a digit, found an image that is all transparent")
    colours = np.asarray(image)[visible][:, :3]
    box_area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    darkest, brightest = np.percentile(colours, [0.3, 99.7], axis=0)
    if len(colours) < 0.65 * box_area or (brightest - darkest).max() < 64:
        return None
    ground = Image.new("RGBA", image.size, (*(int(tone) for tone in np.median(colours, axis=0)), 255))
    return Image.alpha_composite(ground, image)


def _ink_colour(image: Image.Image) -> tuple[float, float, float, float]:
    """Find the direction in RGB from paper to ink: a row of Pillow's conversion matrix, with results from 0 to 255."""
    small = shrink(image)
    difference = (small - fit_surface(small)).reshape(3, -1).astype(np.float64)
    weighted = difference * np.linalg.norm(difference, axis=0)  # ink counts, noise does not
    direction = np.linalg.eigh(weighted @ difference.T)[1][:, -1]
    direction *= (1 if direction.sum() >= 0 else -1) / np.abs(direction).sum()
    red, green, blue = direction.tolist()
    return red, green, blue, 255 * float(-direction[direction < 0].sum())


def draw_digit(tones: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Find the digit in an image and draw it as MNIST's are.

    Args:
        tones: uint8 (height, width), dark ink on light paper or the reverse.

    Returns:
        uint8 (28, 28), white on black.

    Raises:
        ImageBlankError: There is no ink.
    """
    contrast = _measure_contrast(tones)
    full, noise = _measure_ink(contrast)
    if noise > _NOISY and max(tones.shape) > _COARSEST_SIDE:
        return draw_digit(np.asarray(Image.fromarray(tones).reduce(2)))
    inked = contrast > max(_NOISES * noise, _INK_FRACTION * full) if full else np.zeros_like(contrast, np.bool_)
    near = _select_pieces(inked)
    inked &= near
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    longer = max(np.ptp(rows), np.ptp(columns)) + 1 if rows.size else 0
    if longer < max(3, _SMALLEST_FRACTION * max(tones.shape)):
        raise ImageBlankError(_BLANK)
    full = float(np.percentile(contrast[inked], 75))
    black, white = max(_SOFT[0] * full, 1.5 * noise), _SOFT[1] * full
    ink = np.clip((contrast - black) / max(white - black, 1), 0, 1) * near
    return _frame(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _measure_contrast(tones: npt.NDArray[np.uint8]) -> Floats:
    """Compare ink with its paper, in a way that no shadow changes: 0 is paper, 255 black on white."""
    ink_is_dark, paper = estimate_paper(tones)
    if ink_is_dark:
        return (paper - tones) * (255 / np.maximum(paper, _DARKEST))
    return (tones - paper) * (255 / np.maximum(255 - paper, _DARKEST))


def _measure_ink(contrast: Floats) -> tuple[float, float]:
    """Measure the contrast of the ink, 0 if there is none, and the standard deviation of the paper's noise."""
    counts = np.bincount(np.clip(contrast + 256, 0, 511).astype(np.int16).ravel(), minlength=512)
    values = np.arange(512) - 255.5
    full, least = 0.0, _FAINT
    for _ in range(3):
        paper = np.cumsum(np.where(values < max(_INK_FRACTION * full, least), counts, 0))
        # No ink is below the middle: there the 16th percentile is one standard deviation away.
        middle, low = values[np.searchsorted(paper, [0.5 * paper[-1], 0.16 * paper[-1]])]
        noise = max(0.7, float(middle - low))
        least = max(_FAINT, _NOISES * noise)
        ink = np.where(values > least, counts, 0)
        full = float((ink @ values**3) / (ink @ values**2)) if ink.any() else 0.0
    return full, noise


def _select_pieces(inked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Choose the pieces of ink that are the digit; True on them and a little around."""
    height, width = inked.shape
    size = -(-max(height, width) // _CELLS)
    padded = np.pad(inked, ((0, -height % size), (0, -width % size)))
    amounts = padded.reshape(padded.shape[0] // size, size, padded.shape[1] // size, size).sum((1, 3))
    pieces = _label(amounts > 0)
    totals = np.bincount(pieces.ravel(), weights=amounts.ravel())
    totals[0] = 0
    chosen = (totals >= _PIECE_FRACTION * totals.max())[pieces] & (pieces > 0)
    around = _widen(np.pad(chosen, 1))
    return around.repeat(size, axis=0).repeat(size, axis=1)[:height, :width]


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
    return np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _frame(ink: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Bring ink, 0 to 1, to MNIST's size, stroke and place."""
    large = _resize(ink, _LARGE_SIDE)
    large = np.minimum(large * max(1, _PEAK / np.percentile(large[large > 0.1], 90)), 1)
    growth = (_THIN - _stroke_width(large) * DIGIT_SIDE / _LARGE_SIDE) / 2 * _LARGE_SIDE / DIGIT_SIDE
    if round(growth) > 0:
        size = round(growth)
        image = Image.fromarray(np.rint(255 * np.pad(large, size)).astype(np.uint8))
        large = np.asarray(image.filter(ImageFilter.MaxFilter(2 * size + 1)), np.float32) / 255
    small = np.clip(_resize(large, DIGIT_SIDE), 0, 1)
    small = np.minimum(small * max(1, _PEAK / np.percentile(small[small > 0.1], 90)), 1)
    digit = np.zeros(IMAGE_SIZE, np.uint8)
    top, left = (_start(small.sum(1 - axis), IMAGE_SIZE[axis]) for axis in (0, 1))
    digit[top : top + small.shape[0], left : left + small.shape[1]] = np.rint(255 * small)
    return digit


def _resize(ink: npt.NDArray[Any], longer: int) -> Floats:
    scale = longer / max(ink.shape)
    height, width = (max(1, round(scale * side)) for side in ink.shape)
    image = Image.fromarray(ink.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.HAMMING))


def _stroke_width(ink: Floats) -> float:
    """Twice the area over the outline; an outline in steps of pixels is 4/pi too long, on average."""
    padded = np.pad(ink, 1)
    outline = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    return float(2 * ink.sum() / (outline * np.pi / 4))


def _start(profile: npt.NDArray[Any], side: int) -> int:
    """Where to begin, so that the centre of mass comes to the middle; but all must fit."""
    centre = profile @ np.arange(len(profile)) / profile.sum()
    return int(np.clip(side // 2 - np.floor(centre + 0.5), 0, side - len(profile)))
