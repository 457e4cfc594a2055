"""The fifteen corruptions of MNIST-C: Mu and Gilmer, "MNIST-C: A Robustness Benchmark for Computer Vision", 2019.

Written anew for arrays of many images; definitions and severities are those with which the paper's dataset was made, as
its published generator (google-research/mnist-c) has them by default. What that takes from ImageMagick
and scikit-image is defined here as there, so no image equals theirs bit for bit: the draws differ, and where a
docstring says "chosen" something else does. Everything takes and returns uint8 (N, 28, 28), ink bright on dark, and
draws from the generator alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from _mnist_c_parts import (
    SIDE,
    Images,
    blur,
    draw_segments,
    is_ridge,
    make_landscapes,
    slope,
    to_bytes,
    to_unit,
    warp,
    warp_either_way,
)
from scipy import ndimage

Corruption = Callable[[Images, np.random.Generator], Images]

FOG_CHUNK = 200
"""Images whose fog is drawn at once: 50 MB."""


def shot_noise(images: Images, rng: np.random.Generator) -> Images:
    """Poisson noise of a light of 3 photons for full brightness (severity 5)."""
    return to_bytes(rng.poisson(to_unit(images) * 3) / np.float32(3))


def impulse_noise(images: Images, rng: np.random.Generator) -> Images:
    """Salt and pepper on 17% of the pixels, half of each (severity 4)."""
    draw = rng.random(images.shape, np.float32)
    return np.where(draw < 0.17, np.where(draw < 0.085, np.uint8(255), np.uint8(0)), images)


def glass_blur(images: Images, rng: np.random.Generator) -> Images:
    """Blur with sigma 0.7, neighbours swapped in two passes over the image, blur again (severity 1).

    From the bottom right corner to the top left, each pixel is swapped with probability 1/2 with one that is 0 or 1
    above it and 0 or 1 to its left. Chosen: to blur in both directions. The generator asks scikit-image for a blur with
    channels, of which grey images have none: versions of its time may then have blurred along columns only.
    """
    blurred = to_bytes(blur(to_unit(images), 0.7))
    pixels = np.ascontiguousarray(blurred.reshape(len(images), SIDE * SIDE).T)
    columns = np.arange(len(images))
    for _ in range(2):
        for row in range(SIDE - 1, 1, -1):
            for column in range(SIDE - 1, 1, -1):
                here = row * SIDE + column
                # Of eight draws, four leave the pixel where it is.
                steps = np.array([0, 0, 0, 0, 0, 1, SIDE, SIDE + 1])[rng.integers(0, 8, len(images), np.uint8)]
                there = here - steps
                moved = pixels[there, columns]
                pixels[there, columns] = pixels[here]
                pixels[here] = moved
    shuffled = np.ascontiguousarray(pixels.T).reshape(images.shape)
    return to_bytes(blur(to_unit(shuffled), 0.7))


def motion_blur(images: Images, rng: np.random.Generator) -> Images:
    """Blur along a line at -45 to 45 degrees, half a Gaussian with sigma 3 over at most 21 pixels (severity 1).

    As ImageMagick's motion blur, which the generator calls with radius 10: to one side only, at whole pixels, with the
    edge continued.
    """
    angles = np.deg2rad(rng.uniform(-45, 45, len(images)))
    lengths = np.arange(21)
    weights = np.exp(-(lengths**2) / (2 * 3.0**2))
    weights /= weights.sum()
    rows, columns = np.arange(SIDE)[None, :, None], np.arange(SIDE)[None, None, :]
    which = np.arange(len(images))[:, None, None]
    blurred = np.zeros(images.shape, np.float32)
    for length, weight in zip(lengths, weights.astype(np.float32), strict=True):
        if weight < 1e-4:  # less than a step of grey altogether
            break
        down, right = (np.ceil(length * part(angles) - 0.5).astype(np.intp) for part in (np.sin, np.cos))
        from_rows = np.clip(rows + down[:, None, None], 0, SIDE - 1)
        from_columns = np.clip(columns + right[:, None, None], 0, SIDE - 1)
        blurred += weight * images[which, from_rows, from_columns]
    return to_bytes(blurred / np.float32(255))


def shear(images: Images, rng: np.random.Generator) -> Images:
    """Slant by 0.4 radians to the left or to the right (severity 2).

    As scikit-image had it then: rows stay as long as they are but come to be 1/cos(0.4) apart.
    """
    return warp_either_way(images, rng, lambda sign: ((math.cos(0.4), 0.0), (-sign * math.sin(0.4), 1.0)))


def scale(images: Images, rng: np.random.Generator) -> Images:  # noqa: ARG001
    """Shrink to 0.7 of the size around the middle (severity 3)."""
    return warp(images, ((1 / 0.7, 0.0), (0.0, 1 / 0.7)))


def rotate(images: Images, rng: np.random.Generator) -> Images:
    """Turn by 0.4 radians to the left or to the right (severity 2)."""
    cos, sin = math.cos(0.4), math.sin(0.4)
    return warp_either_way(images, rng, lambda sign: ((cos, sign * sin), (-sign * sin, cos)))


def brightness(images: Images, rng: np.random.Generator) -> Images:  # noqa: ARG001
    """Add half of full brightness to every pixel (severity 5)."""
    return to_bytes(to_unit(images) + np.float32(0.5))


def translate(images: Images, rng: np.random.Generator) -> Images:
    """Move by 3 pixels up or down and 3 pixels left or right (severity 3)."""
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3)))
    moved = np.empty_like(images)
    signs = rng.integers(0, 2, (2, len(images)))
    for top in (0, 1):
        for left in (0, 1):
            chosen = (signs[0] == top) & (signs[1] == left)
            moved[chosen] = padded[chosen, 6 * top : 6 * top + SIDE, 6 * left : 6 * left + SIDE]
    return moved


def stripe(images: Images, rng: np.random.Generator) -> Images:  # noqa: ARG001
    """Invert the seven leftmost and the seven rightmost columns (no severities)."""
    striped = images.copy()
    for edge in (np.s_[:, :, :7], np.s_[:, :, 21:]):
        striped[edge] = 255 - striped[edge]
    return striped


def fog(images: Images, rng: np.random.Generator) -> Images:
    """Three times full brightness of fog, then as bright as before (severity 5).

    The fog is the corner of a landscape of 256 x 256 that diamonds and squares make, 1.4**2 rougher with each halving:
    hilly far away and nearly even within an image, 0 to 1 over all of it.
    """
    foggy = np.empty_like(images)
    for start in range(0, len(images), FOG_CHUNK):
        clear = to_unit(images[start : start + FOG_CHUNK])
        brightest = clear.max(axis=(1, 2), keepdims=True)
        landscapes = make_landscapes(len(clear), 256, 1.4**2, rng)[:, :SIDE, :SIDE]
        foggy[start : start + FOG_CHUNK] = to_bytes((clear + 3 * landscapes) * brightest / (brightest + 3))
    return foggy


def spatter(images: Images, rng: np.random.Generator) -> Images:
    """Drops of dark mud: 63 of 255, over noise with mean 0.65, deviation 0.3 and sigma 1 (severity 4).

    Where the noise is above 0.65 there may be mud: that mask, blurred with sigma 1.5, covers where it is above 0.8.
    """
    noise = blur(rng.normal(0.65, 0.3, images.shape).astype(np.float32), 1)
    cover = blur((noise > 0.65).astype(np.float32), 1.5)
    cover[cover < 0.8] = 0
    return to_bytes(to_unit(images) * (1 - cover) + cover * np.float32(63 / 255))


def dotted_line(images: Images, rng: np.random.Generator) -> Images:
    """Dashes of two columns with gaps of two, along a line from any row on the left to any on the right."""
    starts, ends = rng.integers(0, 27, (2, len(images), 1))
    dashes = draw_segments(np.zeros_like(starts), starts, np.full_like(ends, 27), ends)
    dashes[:, :, np.arange(SIDE) % 4 < 2] = 0
    return to_bytes(to_unit(images) + dashes)


def zigzag(images: Images, rng: np.random.Generator) -> Images:
    """A zigzag 2 pixels high to both sides, 4 long, around a line from column 2 to 25 that ends up to 5 rows off.

    Chosen: it ends on its way, where the generator bends the last bit to the line.
    """
    starts = rng.integers(0, 27, (len(images), 1)).astype(np.float32)
    rises = rng.integers(-5, 5, (len(images), 1)).astype(np.float32)
    lengths = np.hypot(23, rises)
    turns = np.arange(6, dtype=np.float32)
    along = np.concatenate([np.zeros_like(lengths), np.broadcast_to(4 * turns + 2, (len(images), 6)), lengths], 1)
    across = np.concatenate(
        [np.zeros_like(lengths), np.broadcast_to(2 * (-1) ** turns, (len(images), 6)), lengths - 24], 1
    )
    cos, sin = 23 / lengths, rises / lengths
    columns, rows = 2 + cos * along - sin * across, starts + sin * along + cos * across
    drawn = to_unit(images)
    for left, right in zip(range(7), range(1, 8), strict=True):
        ends = (columns[:, [left]], rows[:, [left]], columns[:, [right]], rows[:, [right]])
        drawn = np.minimum(drawn + draw_segments(*ends), 1)
    return to_bytes(drawn)


def canny_edges(images: Images, rng: np.random.Generator) -> Images:  # noqa: ARG001
    """The outline alone, by Canny's method: sigma 1, thresholds 0.1 and 0.2 for the sum of Sobel's filter."""
    smooth = blur(to_unit(images), 1)
    down, right = slope(smooth, 1), slope(smooth, 2)
    steep = np.hypot(down, right)
    ridge = is_ridge(steep, down, right)
    ridge[:, [0, -1]] = ridge[:, :, [0, -1]] = False
    weak = ridge & (steep >= 0.1)
    beside = np.zeros((3, 3, 3), np.bool_)
    beside[1] = True  # neighbours are in the same image
    pieces, count = ndimage.label(weak, beside)
    certain = np.zeros(count + 1, np.bool_)
    certain[pieces[weak & (steep >= 0.2)]] = True
    return np.where(certain[pieces], np.uint8(255), np.uint8(0))
