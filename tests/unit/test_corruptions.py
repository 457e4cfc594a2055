"""The corruptions of benchmarks/corruptions.py: what each does to a digit, and that the seed decides."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_core.datasets import load_dataset

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = [
    *("shot_noise", "impulse_noise", "glass_blur", "motion_blur", "shear", "scale", "rotate", "brightness"),
    *("translate", "stripe", "fog", "spatter", "dotted_line", "zigzag", "canny_edges"),
]
REDRAWN = ["shear", "scale", "rotate", "stripe", "canny_edges"]
"""After these no pixel is what it was; below, each has a test that what it draws is right."""
DRAWN_WITHOUT_CHANCE = ["scale", "brightness", "stripe", "canny_edges"]


@pytest.fixture(scope="module")
def corruptions():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("corruptions")


@pytest.fixture(scope="module")
def parts(corruptions):  # noqa: ARG001 - with it, the folder was on the path
    return importlib.import_module("_mnist_c_parts")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("uci-digits").test.images[:40]


def recognised(corrupted, clean):
    """Share of the images that resemble their own original most, wherever it was moved to."""

    def waves(images):
        centred = images - images.mean(axis=(1, 2), keepdims=True)
        return np.fft.fft2(centred / np.linalg.norm(centred, axis=(1, 2), keepdims=True))

    products = np.fft.ifft2(waves(corrupted)[:, None] * np.conj(waves(clean))[None]).real.max(axis=(2, 3))
    return (products.argmax(axis=1) == np.arange(len(clean))).mean()


def centres(images):
    rows, columns = np.mgrid[:28, :28]
    mass = images.sum(axis=(1, 2))
    return np.stack([(images * rows).sum(axis=(1, 2)) / mass, (images * columns).sum(axis=(1, 2)) / mass])


def test_there_are_the_fifteen_of_the_paper(corruptions):
    assert list(corruptions.CORRUPTIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_corruption_changes_every_image_and_leaves_the_digit(corruptions, digits, name):
    before = digits.copy()
    corrupted = corruptions.corrupt(name, digits, 0)
    assert (corrupted.shape, corrupted.dtype) == (digits.shape, np.uint8)
    assert np.array_equal(digits, before)
    assert (corrupted != digits).any(axis=(1, 2)).all()
    assert np.ptp(corrupted.astype(int), axis=(1, 2)).min() > 20
    if name not in REDRAWN:
        assert recognised(corrupted, digits) > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(corruptions, digits, name):
    first, again, other = (corruptions.corrupt(name, digits, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (name in DRAWN_WITHOUT_CHANCE)


@pytest.mark.parametrize("name", DRAWN_WITHOUT_CHANCE)
def test_an_image_does_not_depend_on_its_neighbours(corruptions, digits, name):
    together = corruptions.corrupt(name, digits, 0)
    assert np.array_equal(together[7:8], corruptions.corrupt(name, digits[7:8], 0))


@pytest.mark.parametrize("name", NAMES)
def test_no_images_and_black_images_are_images_too(corruptions, name):
    assert corruptions.corrupt(name, np.zeros((0, 28, 28), np.uint8), 0).shape == (0, 28, 28)
    assert corruptions.corrupt(name, np.zeros((2, 28, 28), np.uint8), 0).shape == (2, 28, 28)


def test_impulses_are_black_and_white_alike(corruptions):
    grey = np.full((50, 28, 28), 100, np.uint8)
    noisy = corruptions.corrupt("impulse_noise", grey, 0)
    assert (noisy == 0).mean() == pytest.approx(0.085, abs=0.005)
    assert (noisy == 255).mean() == pytest.approx(0.085, abs=0.005)


def test_shot_noise_has_three_photons_for_white_and_none_for_black(corruptions):
    images = np.zeros((50, 28, 28), np.uint8)
    images[:, 14:] = 255
    noisy = corruptions.corrupt("shot_noise", images, 0)
    assert not noisy[:, :14].any()
    assert set(np.unique(noisy)) == {0, 85, 170, 255}
    assert (noisy[:, 14:] == 0).mean() == pytest.approx(np.exp(-3), abs=0.005)


def test_what_is_moved_is_moved_by_three_pixels_in_four_directions(corruptions, digits):
    many = np.repeat(np.pad(digits[:, 4:-4, 4:-4], ((0, 0), (4, 4), (4, 4))), 3, axis=0)
    steps = centres(corruptions.corrupt("translate", many, 0)) - centres(many)
    assert np.abs(steps) == pytest.approx(3)
    assert len({tuple(step) for step in np.rint(steps.T)}) == 4


@pytest.mark.parametrize("name", ["scale", "rotate", "shear"])
def test_the_middle_stays_in_the_middle(corruptions, digits, name):
    symmetric = np.maximum(digits, digits[:, ::-1, ::-1])
    assert centres(corruptions.corrupt(name, symmetric, 0)) == pytest.approx(13.5, abs=0.02)


def test_a_bar_is_turned_and_slanted_by_four_tenths(corruptions):
    bar = np.zeros((20, 28, 28), np.uint8)
    bar[:, 6:22, 13:15] = 255
    rows, columns = np.mgrid[:28, :28] - 13.5
    for name, slope in (("rotate", np.tan(0.4)), ("shear", np.sin(0.4))):
        changed = corruptions.corrupt(name, bar, 0).astype(float)
        slopes = (changed * rows * columns).sum(axis=(1, 2)) / (changed * rows * rows).sum(axis=(1, 2))
        assert np.abs(slopes) == pytest.approx(slope, rel=0.05)
        assert len(set(np.sign(slopes))) == 2


def test_stripes_and_brightness_are_what_they_are(corruptions, digits):
    striped = corruptions.corrupt("stripe", digits, 0)
    assert np.array_equal(striped[:, :, 7:21], digits[:, :, 7:21])
    assert np.array_equal(striped[:, :, :7], 255 - digits[:, :, :7])
    assert np.array_equal(striped[:, :, 21:], 255 - digits[:, :, 21:])
    bright = corruptions.corrupt("brightness", digits, 0)
    assert np.abs(bright - np.minimum(digits + 127.5, 255)).max() <= 0.5


@pytest.mark.parametrize("name", ["dotted_line", "zigzag"])
def test_a_line_adds_ink_and_takes_none(corruptions, digits, name):
    drawn = corruptions.corrupt(name, digits, 0)
    assert (drawn >= digits).all()
    alone = corruptions.corrupt(name, np.zeros((30, 28, 28), np.uint8), 0)
    assert 0.01 < (alone > 127).mean() < 0.12
    inked = alone.any(axis=1)
    if name == "dotted_line":
        assert not inked[:, [0, 1, 4, 5, 24, 25]].any()
        assert inked[:, [2, 3, 6, 7, 22, 23, 26]].all()
    else:
        assert not inked[:, [0, 27]].any()


def test_fog_takes_contrast_and_mud_covers_little(corruptions, digits):
    foggy = corruptions.corrupt("fog", np.zeros_like(digits) + np.uint8(255), 0) / 255
    assert foggy.min() >= 0.249  # what is left of white without fog
    assert 0.45 < foggy.mean() < 0.8
    muddy = corruptions.corrupt("spatter", np.zeros_like(digits) + np.uint8(255), 0)
    assert muddy.min() >= 63
    assert 0.05 < (muddy < 255).mean() < 0.3


def test_edges_are_closed_lines_around_the_ink(corruptions):
    square = np.zeros((1, 28, 28), np.uint8)
    square[:, 8:20, 8:20] = 255
    edges = corruptions.corrupt("canny_edges", square, 0)[0]
    assert set(np.unique(edges)) == {0, 255}
    assert not edges[11:17, 11:17].any()
    assert not edges[:6].any()
    assert ((edges[:, 14] > 0).sum(), (edges[14] > 0).sum()) in {(2, 2), (4, 4)}


def test_a_landscape_reaches_from_nought_to_one(parts):
    heights = parts.make_landscapes(5, 64, 1.96, np.random.default_rng(0))
    assert (heights.min(axis=(1, 2)), heights.max(axis=(1, 2))) == (pytest.approx(0), pytest.approx(1))
    # As on a torus, neighbours are near across the edge too.
    assert np.abs(heights[:, 0] - heights[:, -1]).mean() < 3 * np.abs(np.diff(heights, axis=1)).mean()


def test_a_picture_has_a_row_for_each_corruption(corruptions, digits, tmp_path):
    corruptions.draw(digits, 0, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (150 + 12 * 58 + 2, 16 * 58 + 2)
        assert len(set(np.asarray(picture)[:, :100].ravel().tolist())) > 2  # there are labels
