"""Lines of digits for tests, and a model that knows their digits by heart: nothing trained, nothing random."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

from mnist_core.datasets import load_dataset
from mnist_core.images import decode_image
from mnist_core.predictor import Predictions

HEIGHT = 60
"""Of a digit on a line, in pixels."""
CLOSE = (2, 6, 12)
"""Margins of pictures that are cut close to their line, in pixels: from 0.03 to 0.2 heights."""


@cache
def glyph(digit: int) -> np.ndarray:
    """An embedded digit, enlarged and cut to its ink: uint8 (60, any width), white on black."""
    test = load_dataset("uci-digits").test
    image = Image.fromarray(test.images[int(np.flatnonzero(test.labels == digit)[0])])
    image = image.crop(image.point(lambda tone: 255 * (tone > 60)).getbbox())
    return np.asarray(image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.BICUBIC))


def write(text: str, gaps: Sequence[int] | int = 15, margin: int = 30) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """One line: black on white, uint8, and the boxes of its digits (left, top, width, height).

    Args:
        text: The digits.
        gaps: Pixels before each digit but the first; below 0, they run into each other.
        margin: Around all.
    """
    gaps = [gaps] * (len(text) - 1) if isinstance(gaps, int) else gaps
    glyphs = [glyph(int(digit)) for digit in text]
    lefts = [margin]
    for before, gap in zip(glyphs, gaps, strict=False):
        lefts.append(lefts[-1] + before.shape[1] + gap)
    line = np.zeros((HEIGHT + 2 * margin, lefts[-1] + glyphs[-1].shape[1] + margin), np.uint8)
    for left, each in zip(lefts, glyphs, strict=True):
        place = line[margin : margin + HEIGHT, left : left + each.shape[1]]
        np.maximum(place, each, out=place)
    boxes = [(left, margin, each.shape[1], HEIGHT) for left, each in zip(lefts, glyphs, strict=True)]
    return 255 - line, boxes


def encode(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    """A file of these pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


class ByHeart:
    """Answers with the digit of ``glyph`` that an image is most like; strange is what is like none."""

    def __init__(self) -> None:
        self._known = np.stack([self._features(decode_image(encode(np.pad(glyph(d), 30))).pixels) for d in range(10)])

    def predict(self, images: np.ndarray) -> Predictions:
        alike = np.array([self._features(image) for image in images]).reshape(-1, self._known.shape[1]) @ self._known.T
        odds = np.exp(20 * alike)
        strangeness = 5 * (0.8 - alike.max(1))
        return Predictions((odds / odds.sum(1, keepdims=True)).astype(np.float32), strangeness.astype(np.float32))

    @staticmethod
    def _features(image: np.ndarray) -> np.ndarray:
        blurred = np.asarray(Image.fromarray(image).resize((14, 14), Image.Resampling.BOX), np.float64).ravel()
        blurred -= blurred.mean()
        return blurred / max(1e-9, float(np.linalg.norm(blurred)))
