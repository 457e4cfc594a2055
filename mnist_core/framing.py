"""The form of MNIST's digits, and how ink is brought to it.

They fit 20x20 pixels with their proportions kept, are smoothed by the resampling, and have their centre of mass in the
middle of 28x28 pixels (http://yann.lecun.com/exdb/mnist/).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from mnist_core.errors import ImageBlankError
from mnist_core.paper import Floats
from mnist_core.splits import IMAGE_SIZE

DIGIT_SIDE: Final = 20

BLANK: Final = "expected a digit, found an image without ink"
_LARGE_SIDE: Final = 4 * DIGIT_SIDE
_TRACE: Final = 0.1
_PEAK: Final = 0.9
_THIN: Final = 2.0
"""Width that strokes are brought to if they have less, in pixels of MNIST, where few have less."""


def frame_ink(ink: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Bring ink to MNIST's size, stroke and place.

    Args:
        ink: Floats (height, width), 0 to 1, cut to the digit.

    Returns:
        uint8 (28, 28), white on black.

    Raises:
        ImageBlankError: There is next to no ink.
    """
    large = _resize(ink, _LARGE_SIDE)
    large = _brighten(large)
    growth = (_THIN - _stroke_width(large) * DIGIT_SIDE / _LARGE_SIDE) / 2 * _LARGE_SIDE / DIGIT_SIDE
    if round(growth) > 0:
        size = round(growth)
        image = Image.fromarray(np.rint(255 * np.pad(large, size)).astype(np.uint8))
        large = np.asarray(image.filter(ImageFilter.MaxFilter(2 * size + 1)), np.float32) / np.float32(255)
    small = _brighten(_resize(large, DIGIT_SIDE))
    digit = np.zeros(IMAGE_SIZE, np.uint8)
    top, left = (_start(small.sum(1 - axis), IMAGE_SIZE[axis]) for axis in (0, 1))
    digit[top : top + small.shape[0], left : left + small.shape[1]] = np.rint(255 * small)
    return digit


def _brighten(ink: Floats) -> Floats:
    """Give ink that has become faint by resampling its brightness back."""
    bright = ink[ink > _TRACE]
    if not bright.size:
        raise ImageBlankError(BLANK)
    gain = np.float32(max(1, _PEAK / float(np.percentile(bright, 90))))
    return np.asarray(np.clip(ink * gain, 0, 1))


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
