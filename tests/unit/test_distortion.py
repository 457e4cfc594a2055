"""Distorted digits: each by its own key, within range, and each effect what it says."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from mnist_core import distortion
from mnist_core.augmentation import affine_transforms
from mnist_core.distortion import EFFECTS, FIRST_DRAW, distort
from mnist_core.draws import Draws

COUNT = 400
KEYS = np.random.default_rng(0).integers(0, 2**32, COUNT, dtype=np.uint32)
STAY = np.tile(np.float32([1, 0, 0, 0, 1, 0, 0, 0]), (COUNT, 1))


def bars():
    """A soft upright bar of its own place in each image, so that every effect has something to work on."""
    images = np.zeros((COUNT, 28, 28), np.float32)
    for index, image in enumerate(images):
        image[5:23, 8 + index % 8 : 12 + index % 8] = 255
    return ndimage.gaussian_filter(images, (0, 0.7, 0.7)).astype(np.uint8)


IMAGES = bars()


def wild(images=IMAGES, transforms=STAY, keys=KEYS):
    return distort(tf.constant(images), tf.constant(transforms), tf.constant(keys), wild=True).numpy()[..., 0]


def apply(effect):
    pixels = tf.constant(IMAGES / np.float32(255))
    changed = tf.function(lambda: effect(pixels, Draws(tf.constant(KEYS), FIRST_DRAW)), autograph=False)()
    return pixels.numpy(), np.clip(changed.numpy(), 0, 1)


def test_an_affine_map_reads_each_image_through_its_own_map():
    transforms = affine_transforms(3, 1, np.arange(COUNT))
    found = distort(tf.constant(IMAGES), tf.constant(transforms), tf.constant(KEYS), wild=False).numpy()[..., 0]
    for image, moved, (a0, a1, a2, b0, b1, b2, *_) in zip(IMAGES, found, transforms, strict=True):
        # SciPy counts rows first, so y comes before x.
        expected = ndimage.affine_transform(
            image.astype(np.float32), [[b1, b0], [a1, a0]], [b2, a2], order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(moved, expected, atol=0.05)


def test_without_a_map_and_not_wild_an_image_stays_as_it_is():
    found = distort(tf.constant(IMAGES), tf.constant(STAY), tf.constant(KEYS), wild=False).numpy()
    assert (found.shape, found.dtype) == ((COUNT, 28, 28, 1), np.float32)
    np.testing.assert_allclose(found[..., 0], IMAGES, atol=1e-3)


def spoiled(images=IMAGES, keys=KEYS):
    def run():
        return distortion.spoil(tf.constant(images / np.float32(255)), Draws(tf.constant(keys), FIRST_DRAW))

    return tf.function(run, autograph=False)().numpy()


def test_how_an_image_is_spoiled_depends_on_its_key_alone():
    together = spoiled()
    order = np.random.default_rng(1).permutation(COUNT)
    np.testing.assert_allclose(spoiled(IMAGES[order], KEYS[order]), together[order], atol=1e-6)
    assert (spoiled(keys=KEYS + np.uint32(1)) != together).any(axis=(1, 2)).mean() > 0.8


def test_wild_images_are_in_range_and_only_the_first_are_spoiled():
    found = wild()
    assert 0 <= found.min() < found.max() <= 255
    changes = np.abs(found - IMAGES).mean(axis=(1, 2))
    first = COUNT // distortion.SPOILED_ONE_IN
    assert (changes[:first] > 12).mean() > 0.3
    assert changes[first:].max() < 1e-3


def test_spoiled_images_get_as_many_effects_as_documented(monkeypatch):
    """Every effect adds a little: what is there in the end is how many there were."""
    monkeypatch.setattr(distortion, "EFFECTS", tuple([lambda pixels, _: pixels + 1 / 32] * len(EFFECTS)))
    counts = np.rint(32 * spoiled(np.zeros_like(IMAGES)).max(axis=(1, 2)))
    assert counts.mean() == pytest.approx(distortion.EFFECT_SHARE * len(EFFECTS), rel=0.15)
    assert (counts == 0).mean() == pytest.approx(1 / 7, abs=0.06)


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: effect.__name__)
def test_an_effect_changes_images_each_in_its_own_way_and_leaves_no_hole(effect):
    before, after = apply(effect)
    assert np.isfinite(after).all()
    changes = np.abs(after - before)
    assert (changes.mean(axis=(1, 2)) > 0.002).mean() > 0.7
    assert len(np.unique(after[::8], axis=0)) > 0.9 * COUNT / 8  # the same bar at every eighth


def test_a_pen_makes_strokes_wider_or_thinner():
    before, after = apply(distortion.pen)
    changes = after.sum(axis=(1, 2)) - before.sum(axis=(1, 2))
    assert 0.3 < (changes > 0).mean() < 0.8
    assert np.abs(changes).max() > 20


def test_an_outline_is_where_ink_begins_and_not_within():
    before, after = apply(distortion.outline)
    inside = ndimage.minimum_filter(before, (0, 5, 5)) > 0.9
    assert not after[inside].any()
    assert after.max() == 1


def test_a_blur_keeps_the_ink_and_spreads_it():
    before, after = apply(distortion.blur)
    np.testing.assert_allclose(after.sum(axis=(1, 2)), before.sum(axis=(1, 2)), rtol=0.03)
    assert (after.max(axis=(1, 2)) <= before.max(axis=(1, 2)) + 1e-5).all()


def test_bands_invert_and_nothing_else():
    before, after = apply(distortion.bands)
    assert (np.isclose(after, before) | np.isclose(after, 1 - before)).all()


def test_a_line_only_adds_ink():
    before, after = apply(distortion.line)
    assert (after >= before - 1e-6).all()
