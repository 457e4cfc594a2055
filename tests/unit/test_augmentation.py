"""The random affine maps: what they are made of, how far they go, and that a sample's own draw decides."""

from __future__ import annotations

import numpy as np

from mnist_core.augmentation import (
    CENTRE_PX,
    MAX_ROTATION_RAD,
    MAX_SCALE,
    MAX_SHEAR,
    MAX_SHIFT_PX,
    affine_transforms,
)
from mnist_core.sampling import Purpose, uniform

SAMPLES = np.arange(5000)


def matrices(transforms):
    """The linear part, (N, 2, 2), and where the middle of the image is read from, (N, 2), relative to the middle."""
    rows = transforms[:, :6].reshape(-1, 2, 3).astype(np.float64)
    return rows[:, :, :2], rows[:, :, :2] @ [CENTRE_PX, CENTRE_PX] + rows[:, :, 2] - CENTRE_PX


def test_a_map_is_scale_times_rotation_times_shear_around_the_middle_and_then_a_shift():
    linear, shifts = matrices(affine_transforms(3, 1, SAMPLES[:50]))
    draws = uniform(3, Purpose.AUGMENT, 1, SAMPLES[:50], 6).astype(np.float64)
    for index, (turn, slant, wide, high, right, down) in enumerate(draws):
        angle = turn * MAX_ROTATION_RAD
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shear = np.array([[1, slant * MAX_SHEAR], [0, 1]])
        scale = np.diag(np.exp([wide * MAX_SCALE, high * MAX_SCALE]))
        np.testing.assert_allclose(linear[index], scale @ rotation @ shear, atol=1e-6)
        np.testing.assert_allclose(shifts[index], [right * MAX_SHIFT_PX, down * MAX_SHIFT_PX], atol=1e-5)


def test_a_map_keeps_a_digit_readable_and_the_whole_range_is_used():
    linear, shifts = matrices(affine_transforms(0, 0, SAMPLES))
    areas = np.linalg.det(linear)
    assert np.exp(-2 * MAX_SCALE) - 1e-6 < areas.min() < 0.85
    assert 1.15 < areas.max() < np.exp(2 * MAX_SCALE) + 1e-6
    assert 1.99 < np.abs(shifts).max() < MAX_SHIFT_PX + 1e-5
    # No mirror images, and no turn that makes a 6 of a 9.
    slants = np.arctan2(linear[:, 1, 0], linear[:, 0, 0])
    assert np.rad2deg(np.abs(slants)).max() < 16


def test_maps_have_the_form_that_tensorflow_takes():
    transforms = affine_transforms(0, 0, SAMPLES[:7])
    assert (transforms.shape, transforms.dtype) == ((7, 8), np.float32)
    assert not transforms[:, 6:].any()


def test_a_map_depends_on_seed_epoch_and_sample_alone():
    together = affine_transforms(5, 2, SAMPLES[:40])
    assert np.array_equal(together[::-3], affine_transforms(5, 2, SAMPLES[:40][::-3]))
    for other in (affine_transforms(6, 2, SAMPLES[:40]), affine_transforms(5, 3, SAMPLES[:40]), together[::-1]):
        assert (together[:, :6] != other[:, :6]).all()
