"""What the protocols have in common on the way from a request to images: numbers, base64, and which images are bad."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mnist_core.errors import RequestError
from mnist_core.splits import IMAGE_SIZE

PIXELS: Final = IMAGE_SIZE[0] * IMAGE_SIZE[1]
"""Of one image."""


def to_float32(values: Sequence[float]) -> npt.NDArray[np.float32]:
    """Numbers of JSON as float32 (N,); one that is too large becomes infinite, and is refused as such."""
    with np.errstate(over="ignore"):
        return np.array(values, np.float32)


def scale_pixels(pixels: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Bring pixels of 0 to 1 or of 0 to 255, which each image decides for itself, to bytes.

    Args:
        pixels: float32 (N, 784). An image whose largest value is at most 1 is one of 0 to 1.

    Returns:
        uint8 (N, 784), zeros where an image does not fit; and which fit, bool (N,).
    """
    brightest = pixels.max(axis=1, initial=0)
    fits = (pixels.min(axis=1, initial=0) >= 0) & (brightest <= 255)  # neither holds for what is not a number
    scale = np.where(brightest <= 1, np.float32(255), np.float32(1))
    if not fits.all():
        pixels = np.where(fits[:, None], pixels, np.float32(0))
    return np.rint(pixels * scale[:, None]).astype(np.uint8), fits


def decode_base64(text: Any, where: str) -> bytes:
    """Decode base64.

    Raises:
        RequestError: It is none; ``where`` says which.
    """
    if not isinstance(text, str):
        raise RequestError(f"{where}: received {type(text).__name__}, expected a base64 string")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise RequestError(f"{where}: received no base64 ({err}); encode the file's bytes in one line") from err


def name_positions(positions: Sequence[int]) -> str:
    """``0, 4-7``: positions, ascending."""
    runs: list[list[int]] = []
    for position in positions:
        if runs and position == runs[-1][1] + 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def group_reasons(errors: Mapping[int, Exception | str]) -> dict[str, list[int]]:
    """What is wrong, to the positions of the images with which it is, both in the order of the positions."""
    positions: dict[str, list[int]] = {}
    for index, err in sorted(errors.items()):
        positions.setdefault(str(err), []).append(index)
    return positions
