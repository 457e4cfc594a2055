"""From colours to one channel: the one in which ink and paper differ most, and without what is transparent."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnist_core.errors import ImageBlankError
from mnist_core.paper import fit_surface, shrink

_OPAQUE_SHARE: Final = 0.9
"""Share of a picture from which on what is not transparent is a sheet: a heavy digit cut to its box has less."""
_FILLED: Final = 0.65
"""Share of its box that a sheet on transparent ground fills, even if it is turned a little."""
_INKED: Final = 64.0
"""Tones by which the colours of a sheet with ink differ; a digit in one colour may have a few on its outline."""
_FAINT: Final = 14.0
"""The same where almost all is opaque, so that faint ink counts; in one colour, a digit is cut out of the sheet."""


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
            sheet = _fill_ground(image, alpha)
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


def _fill_ground(image: Image.Image, alpha: npt.NDArray[np.uint8]) -> Image.Image | None:
    """Put a sheet with ink, cut out on transparent ground, on ground of its own colour.

    Args:
        image: Mode RGBA.
        alpha: Its transparency, uint8 (height, width).

    Returns:
        RGBA, opaque; None if there is no sheet, only ink.

    Raises:
        ImageBlankError: All is transparent.
    """
    visible = alpha > 127
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    if not rows.size:
        raise ImageBlankError("expected a digit, found an image that is all transparent")
    colours = np.asarray(image)[visible][:, :3]
    box_area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    opaque = len(colours) > _OPAQUE_SHARE * alpha.size
    darkest, brightest = np.percentile(colours, [0.0, 100.0] if opaque else [0.3, 99.7], axis=0)
    if len(colours) < _FILLED * box_area or (brightest - darkest).max() < (_FAINT if opaque else _INKED):
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
