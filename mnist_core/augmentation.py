"""Random distortions of training digits: which one a sample gets follows from (seed, epoch, sample) alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mnist_core.sampling import Purpose, uniform

MAX_ROTATION_RAD = np.deg2rad(12)
MAX_SHEAR = 0.15
MAX_SCALE = 0.12
MAX_SHIFT_PX = 2.0
CENTRE_PX = 13.5
"""Middle of a 28 x 28 image whose pixel centres are at 0, 1, ..., 27."""


def affine_transforms(seed: int, epoch: int, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Draw one affine distortion a sample: rotation, shear, scale of each axis and shift.

    Args:
        seed: The run's seed.
        epoch: Epoch, from 0.
        samples: Indices into the training split, int (N,).

    Returns:
        float32 (N, 8): the matrix rows (a0, a1, a2, b0, b1, b2, 0, 0) that map an output pixel (x, y) to the input
        pixel (a0 x + a1 y + a2, b0 x + b1 y + b2), as TensorFlow's projective transform takes them.
    """
    draws = uniform(seed, Purpose.AUGMENT, epoch, samples, 6)
    angle = draws[:, 0] * MAX_ROTATION_RAD
    shear = draws[:, 1] * MAX_SHEAR
    scale_x, scale_y = np.exp(draws[:, 2] * MAX_SCALE), np.exp(draws[:, 3] * MAX_SCALE)
    shift = draws[:, 4:6] * MAX_SHIFT_PX
    cos, sin = np.cos(angle), np.sin(angle)
    a0, a1 = scale_x * cos, scale_x * (shear * cos - sin)
    b0, b1 = scale_y * sin, scale_y * (shear * sin + cos)
    a2 = CENTRE_PX - CENTRE_PX * (a0 + a1) + shift[:, 0]
    b2 = CENTRE_PX - CENTRE_PX * (b0 + b1) + shift[:, 1]
    zero = np.zeros_like(a0)
    return np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype(np.float32)
