"""Several digits in one picture: from its file to single digits, line by line and from left to right.

A picture is cut into too many parts rather than too few (``mnist_core.parts``). Every run of neighbouring parts that
may be a digit is shown to the model (``mnist_core.candidates``), and the division that is the cheapest as a whole is
taken: over-segmentation with recognition (LeCun et al., "Gradient-based learning applied to document recognition",
1998, section V). Who has a way of his own to ask the model does so in between: ``find_candidates`` before,
``choose_digits`` after; else ``cut_picture`` does all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mnist_core.candidates import MOST_DIGITS, Candidates, check_count, divide, find_candidates
from mnist_core.images import ImageLimits
from mnist_core.predictor import Predictions, Predictor

# What speaks against a candidate beside its shape.
_STRANGE: Final = 6.0
"""For each unit of the model's strangeness, of which 1 makes a digit a rejected one."""
_STRANGENESS: Final = (-1.0, 4.0)
"""Beyond these it makes no difference."""
_DOUBT: Final = 0.3
"""For each time that it is e times as probable that another digit is right."""
_LEAST_DOUBT: Final = 1e-4
_EACH: Final = -2.2
"""For a digit at all: less than nothing, since doubts add up with the number of digits."""


@dataclass(frozen=True, eq=False)
class Digits:
    """The digits of one picture: lines from top to bottom, each from left to right.

    Attributes:
        boxes: intp (N, 4): left, top, width and height in the upright picture, in its own pixels.
        pixels: uint8 (N, 28, 28): what the model saw, white on black.
        lines: intp (N,): the line of each, from 0.
        predictions: Of all N.
        num_frames: Above 1, the image is animated or has more pages, and only the first was read.
    """

    boxes: npt.NDArray[np.intp]
    pixels: npt.NDArray[np.uint8]
    lines: npt.NDArray[np.intp]
    predictions: Predictions
    num_frames: int

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def text(self) -> str:
        """All digits, with a line break between two lines; ``?`` for what is rejected, as most signs of a sum are."""
        signs = np.where(self.predictions.rejected, "?", self.predictions.digits.astype(np.str_))
        return "\n".join("".join(signs[self.lines == line].tolist()) for line in np.unique(self.lines))


def cut_picture(
    data: bytes, predictor: Predictor, limits: ImageLimits | None = None, most: int = MOST_DIGITS
) -> Digits:
    """Read all digits of a picture.

    Args:
        data: PNG, JPEG, BMP, GIF, WebP or TIFF of any mode and size, dark ink on light ground or the reverse. One of
            28x28 pixels is one digit, as everywhere.
        predictor: Pixels to digits.
        limits: What is refused unread; None: the usual.
        most: Digits that it may have.

    Raises:
        ImageError: It cannot be read or shows no digit (the reasons are those of ``decode_image``), or has too many.
    """
    candidates = find_candidates(data, limits, most)
    return choose_digits(candidates, predictor.predict(candidates.pixels), most)


def choose_digits(candidates: Candidates, predictions: Predictions, most: int = MOST_DIGITS) -> Digits:
    """Divide a picture into digits.

    Args:
        candidates: Of ``find_candidates``.
        predictions: What the model says of ``candidates.pixels``.
        most: Digits that the picture may have.

    Raises:
        ImageTooManyDigitsError: It has more.
    """
    doubts = np.maximum(1 - predictions.confidences.astype(np.float64), _LEAST_DOUBT)
    strangeness = np.nan_to_num(predictions.strangeness.astype(np.float64), nan=np.inf).clip(*_STRANGENESS)
    costs = candidates.costs + _EACH + _STRANGE * strangeness + _DOUBT * np.log(doubts / _LEAST_DOUBT)
    chosen = divide(candidates.spans, costs, candidates.losses)
    check_count(len(chosen), most)
    return Digits(
        boxes=candidates.boxes[chosen],
        pixels=candidates.pixels[chosen],
        lines=candidates.lines[candidates.spans[chosen, 0]],
        predictions=Predictions(predictions.probabilities[chosen], predictions.strangeness[chosen]),
        num_frames=candidates.num_frames,
    )
