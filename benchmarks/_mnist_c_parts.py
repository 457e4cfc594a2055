"""What the corruptions of MNIST-C are made of: blur, warps, landscapes, segments and edges, each for many images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SIDE = 28
MIDDLE = 13.5
"""Between the pixels 13 and 14: what stays where it is."""


def to_unit(images: Images) -> Floats:
    """0 to 255 as 0 to 1."""
    return images / np.float32(255)


def to_bytes(values: npt.NDArray[Any]) -> Images:
    """0 to 1 as 0 to 255; what is beyond is cut off."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def make_landscapes(count: int, side: int, decay: float, rng: np.random.Generator) -> Floats:
    """Heights from 0 to 1 by diamonds and squares, on a torus: float32 (count, side, side).

    Args:
        count: How many.
        side: A power of two.
        decay: How much less the points of half the distance may rise or fall.
        rng: What to draw from.
    """
    heights = np.zeros((count, side, side), np.float32)
    step, wobble = side, 1.0
    while step > 1:
        half = step // 2
        corners, centres = heights[:, ::step, ::step], heights[:, half::step, half::step]
        beside, below = np.roll(corners, -1, 2), np.roll(corners, -1, 1)
        _wobble(centres, corners + beside + below + np.roll(beside, -1, 1), wobble, rng)
        above, before = np.roll(centres, 1, 1), np.roll(centres, 1, 2)
        _wobble(heights[:, ::step, half::step], corners + beside + centres + above, wobble, rng)
        _wobble(heights[:, half::step, ::step], corners + below + centres + before, wobble, rng)
        step, wobble = half, wobble / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    heights /= heights.max(axis=(1, 2), keepdims=True)
    return heights


def _wobble(points: Floats, four: Floats, wobble: float, rng: np.random.Generator) -> None:
    """Set points to the mean of their four neighbours, more or less."""
    points[:] = four / 4 + np.float32(2 * wobble) * (rng.random(points.shape, np.float32) - np.float32(0.5))


def draw_segments(left: Any, start: Any, right: Any, end: Any) -> Floats:
    """Draw a segment for each image: float32 (N, 28, 28), brightest on the line and dark 1.45 pixels above and below.

    Args:
        left: Column where it starts, (N, 1); right: where it ends, farther right.
        start: Row where it starts, (N, 1).
        right: Column where it ends.
        end: Row where it ends.
    """
    columns, rows = np.arange(SIDE, dtype=np.float32), np.arange(SIDE, dtype=np.float32)[:, None]
    slopes = (end - start) / (right - left)
    middles = (start + slopes * (columns - left)).astype(np.float32)
    away = np.minimum(np.abs(rows - middles[:, None, :]), np.float32(2.29))
    ink = np.clip(np.log1p(away / np.float32(-2.3)) + 1, 0, 1)
    drawn = (columns >= np.floor(left)) & (columns < np.ceil(right))
    return np.asarray(ink * drawn[:, None, :], np.float32)


def blur(values: Floats, sigma: float) -> Floats:
    return np.asarray(ndimage.gaussian_filter(values, (0, sigma, sigma), mode="nearest"), np.float32)


def slope(values: Floats, axis: int) -> Floats:
    """Sobel's filter along rows (1) or columns (2); SciPy's own would smooth over the neighbouring images too."""
    smooth = ndimage.correlate1d(values, [1, 2, 1], 3 - axis)
    return np.asarray(ndimage.correlate1d(smooth, [-1, 0, 1], axis), np.float32)


def is_ridge(steep: Floats, down: Floats, right: Floats) -> npt.NDArray[np.bool_]:
    """Where the slope is nowhere steeper, one pixel forth and back in its own direction."""
    padded = np.pad(steep, ((0, 0), (1, 1), (1, 1)))

    def beside(rows: int, columns: int) -> Floats:
        return padded[:, 1 + rows : 1 + rows + SIDE, 1 + columns : 1 + columns + SIDE]

    flat = np.abs(right) >= np.abs(down)
    share = np.minimum(np.abs(right), np.abs(down)) / np.maximum(np.maximum(np.abs(right), np.abs(down)), 1e-12)
    same = (down >= 0) == (right >= 0)
    ridge = steep > 0
    for way in (1, -1):
        straight = np.where(flat, beside(0, way), beside(way, 0))
        falling = beside(way, way)
        rising = np.where(flat, beside(-way, way), beside(way, -way))
        ridge &= steep >= straight * (1 - share) + np.where(same, falling, rising) * share
    return ridge


def warp_either_way(images: Images, rng: np.random.Generator, matrix: Callable[[int], Any]) -> Images:
    """Warp each image in one of two ways, by the toss of a coin."""
    heads = rng.integers(0, 2, len(images)).astype(np.bool_)
    return np.where(heads[:, None, None], warp(images, matrix(1)), warp(images, matrix(-1)))


def warp(images: Images, matrix: Any) -> Images:
    """Read each pixel from where a matrix of (row, column), around the middle, says; bilinear, black outside."""
    positions = np.mgrid[:SIDE, :SIDE].reshape(2, -1) - MIDDLE
    rows, columns = np.asarray(matrix) @ positions + MIDDLE
    top, left = np.floor(rows), np.floor(columns)
    flat = to_unit(images).reshape(len(images), SIDE * SIDE)
    warped = np.zeros_like(flat)
    for row, tall in ((top, 1 - (rows - top)), (top + 1, rows - top)):
        for column, wide in ((left, 1 - (columns - left)), (left + 1, columns - left)):
            inside = (row >= 0) & (row < SIDE) & (column >= 0) & (column < SIDE)
            source = np.where(inside, row * SIDE + column, 0).astype(np.intp)
            warped += flat[:, source] * (tall * wide * inside).astype(np.float32)
    return to_bytes(warped).reshape(images.shape)
