"""What a trained network still has to learn before it may be trusted: honest confidence, and what is not a digit.

Plain numpy, from what the network said to some images: nothing here runs a model. The temperature is fitted on the
validation split, the idea of a digit on training images, and where rejection starts again on the validation split.
``mnist_core.export`` puts the results into the published model's weights, so that they cannot be left behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mnist_core.augmentation import affine_transforms
from mnist_core.sampling import Purpose, uniform
from mnist_core.splits import NUM_CLASSES

REJECTED_FRACTION: Final = 0.005
"""Share of the validation digits that may be rejected."""

SHRINKAGE: Final = 0.01
"""Added to the correlation matrix of the textures. From 0.001 to 0.1 all give about the same."""

MAX_BLUR_PX: Final = 1.0
"""Largest standard deviation of the blur that a digit must survive; a third of the digits is left sharp."""

MIN_BRIGHTNESS: Final = 0.6
"""A digit as dim as this is still one."""

_TEMPERATURES: Final = (0.2, 5.0)
_NARROWEST: Final = 1e-3
"""Smallest deviation of a texture, of the largest one's: a filter that no digit wakes has none."""

Floats = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Observation:
    """What a network said to labelled images.

    Attributes:
        textures: float32 (N, channels), see ``build_published_model``.
        logits: float32 (N, 10).
        labels: uint8 (N,).
    """

    textures: Float32s
    logits: Float32s
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Calibration:
    """The weights that a published model takes from its calibration.

    Attributes:
        temperature: What the logits are divided by.
        whiten: Kernel float32 (channels, channels) and bias (channels,) of the layer of that name.
        cost: Kernel float32 (2 * channels + 10, 10) and bias (10,) of the layer of that name.
    """

    temperature: float
    whiten: tuple[Float32s, Float32s]
    cost: tuple[Float32s, Float32s]


def calibrate(training: Observation, validation: Observation) -> Calibration:
    """Fit the temperature and the cost of taking an image for a digit.

    An image costs, for each digit c, ``misfit_c - logit_c``, both in units of their own spread over the validation
    digits. The misfit is the squared Mahalanobis distance of the image's texture to that digit's mean texture (Lee et
    al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018):
    it tells what is drawn like no digit, such as noise, photographs, clothes. The logit tells what is drawn like digits
    but is none, such as letters (Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings",
    ICML 2022). The cheapest digit's cost is the strangeness, scaled so that it is 0 for the median of the validation
    digits and exceeds 1 for 0.5% of them.

    Args:
        training: Of training images, plain and disturbed.
        validation: Of the validation split, at least one image.
    """
    temperature = fit_temperature(validation.logits, validation.labels)
    # The last bits of a matrix product may depend on the number of threads, and a model must not.
    with threadpool_limits(1):
        return _fit_costs(training, validation, temperature)


def fit_temperature(logits: Float32s, labels: npt.NDArray[np.uint8]) -> float:
    """Find the temperature that makes the labels most likely (Guo et al., ICML 2017).

    Args:
        logits: float32 (N, 10), N at least 1.
        labels: uint8 (N,).

    Returns:
        A number from 0.2 to 5.
    """
    scores = logits.astype(np.float64)
    truth = scores[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        """Derivative of the mean loss, which is convex in the inverse temperature."""
        return float(((softmax(scores * inverse) * scores).sum(axis=1) - truth).mean())

    low, high = 1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / high


def softmax(logits: npt.NDArray[np.floating]) -> Floats:
    """Turn logits (N, 10) into probabilities, float64 (N, 10)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def disturb(images: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
    """Move, turn, stretch, blur and dim digits, each differently, as other pens, cameras and scanners would.

    Without such copies, the idea of a digit is that of MNIST's own scanner: a digit blurred by 0.8 pixels would be
    rejected every second time.

    Args:
        images: uint8 (N, 28, 28).
        seed: Decides how.
    """
    samples = np.arange(len(images))
    moved = _resample(images.astype(np.float32), affine_transforms(seed, 0, samples))
    blur, light = uniform(seed, Purpose.AUGMENT, 0, samples, 8)[:, 6:].T  # the first six moved it
    blurred = _blur(moved, np.maximum(0, (3 * blur + 1) / 4) * MAX_BLUR_PX)
    brightness = 1 - (1 - MIN_BRIGHTNESS) * (light + 1) / 2
    return np.asarray(np.rint(blurred * brightness[:, None, None]), np.uint8)


def _fit_costs(training: Observation, validation: Observation, temperature: float) -> Calibration:
    textures, labels = training.textures.astype(np.float64), training.labels
    centre, deviations = textures.mean(axis=0), textures.std(axis=0)
    deviations = np.maximum(deviations, _NARROWEST * deviations.max() or 1.0)
    means = np.stack(
        [textures[labels == c].mean(axis=0) if (labels == c).any() else centre for c in range(NUM_CLASSES)]
    )
    spread = (textures - means[labels]) / deviations
    correlation = spread.T @ spread / len(spread) + SHRINKAGE * np.eye(len(centre))
    whiten = np.linalg.inv(np.linalg.cholesky(correlation)).T / deviations[:, None]
    templates = (means - centre) @ whiten

    whitened = (validation.textures - centre) @ whiten
    logits = validation.logits / np.float64(temperature)
    # One digit after the other: all at once would take ten times the room, 28 KB an image and copy.
    misfits = np.stack([((whitened - template) ** 2).sum(axis=1) for template in templates], axis=1)
    per_misfit, per_logit = 1 / _spread(misfits.min(axis=1)), 1 / _spread(-logits.max(axis=1))
    strangeness = (per_misfit * misfits - per_logit * logits).min(axis=1)
    scale, zero = 1 / _spread(strangeness), np.median(strangeness)

    # A squared distance is a sum of squares, less twice a product, plus a constant: one dense layer over all of it.
    kernel = np.concatenate(
        [
            np.full((len(centre), NUM_CLASSES), per_misfit),
            -2 * per_misfit * templates.T,
            -per_logit * np.eye(NUM_CLASSES),
        ]
    )
    bias = per_misfit * (templates**2).sum(axis=1) - zero
    return Calibration(
        temperature,
        (whiten.astype(np.float32), (-centre @ whiten).astype(np.float32)),
        ((scale * kernel).astype(np.float32), (scale * bias).astype(np.float32)),
    )


def _spread(values: Floats) -> float:
    """How far above the median the limit is that ``REJECTED_FRACTION`` of all values exceed; 1 for a single value.

    It lies half way between two values, so that rounding to float32 moves none to the other side.
    """
    ordered, middle = np.sort(values), np.median(values)
    beyond = int(len(values) * REJECTED_FRACTION)
    upper = ordered[-beyond] if beyond else ordered[-1] + 0.01 * (ordered[-1] - middle)
    return float((ordered[-beyond - 1] + upper) / 2 - middle) or 1.0


def _resample(images: Float32s, transforms: Float32s) -> Float32s:
    """Sample each image bilinearly through its own affine map; what comes from outside the image is black."""
    num, side, _ = images.shape
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    a0, a1, a2, b0, b1, b2 = transforms.T[:6, :, None, None]
    # One pixel of black around, and every coordinate within it.
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    x, y = (np.clip(at + 1, 0, side + 0.999) for at in (a0 * columns + a1 * rows + a2, b0 * columns + b1 * rows + b2))
    left, top = x.astype(np.intp), y.astype(np.intp)
    right_share, lower_share = x - left, y - top
    image = np.arange(num)[:, None, None]
    upper = padded[image, top, left] * (1 - right_share) + padded[image, top, left + 1] * right_share
    lower = padded[image, top + 1, left] * (1 - right_share) + padded[image, top + 1, left + 1] * right_share
    return np.asarray(upper * (1 - lower_share) + lower * lower_share, np.float32)


def _blur(images: Float32s, deviations: Float32s) -> Float32s:
    """Blur each image by a Gaussian of its own standard deviation, in pixels, cut off at 3 pixels."""
    offsets = np.arange(-3, 4)
    weights = np.exp(-(offsets**2) / (2 * np.maximum(deviations, 1e-3)[:, None] ** 2))
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    for axis in (1, 2):
        border = [(0, 0), (0, 0), (0, 0)]
        border[axis] = (3, 3)
        padded = np.pad(images, border)
        taps = (np.take(padded, range(k, k + images.shape[axis]), axis=axis) for k in range(len(offsets)))
        images = sum(tap * weight[:, None, None] for tap, weight in zip(taps, weights.T, strict=True))
    return images
