"""Connected pieces of ink and the ways through them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mnist_core.pieces import find_pieces
from mnist_core.seams import find_seams


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_pieces_are_those_of_scipy(height, width, seed, share):
    inked = np.random.default_rng(seed).random((height, width)) < share
    pieces = find_pieces(inked)
    expected, count = ndimage.label(inked, np.ones((3, 3)))
    assert len(pieces) == count
    np.testing.assert_array_equal(pieces.labels > 0, inked)
    assert len(set(zip(pieces.labels[inked].tolist(), expected[inked].tolist(), strict=True))) == count
    for index, box in enumerate(pieces.boxes):
        rows, columns = np.nonzero(pieces.labels == index + 1)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_array_equal(pieces.count(inked), np.bincount(pieces.labels[inked], minlength=count + 1)[1:])


def test_a_spiral_is_one_piece():
    side = 61
    inked = np.zeros((side, side), np.bool_)
    for ring in range(0, side // 2, 4):
        inked[ring, ring : side - ring] = inked[side - 1 - ring, ring : side - ring] = True
        inked[ring : side - ring, ring] = inked[ring : side - ring, side - 1 - ring] = True
        inked[ring + 1 : ring + 5, side // 2] = True
    assert len(find_pieces(inked)) == 1


def bars(joint: slice) -> np.ndarray:
    """Two upright bars that a thin stroke joins."""
    ink = np.zeros((40, 30))
    ink[:, 4:8] = ink[:, 22:26] = 1
    ink[joint, 8:22] = 1
    return ink


def test_a_way_goes_where_the_ink_is_thinnest():
    seams = find_seams(bars(np.s_[10:13]), apart=5, most_ink=4, lowest=20)
    assert len(seams.ways) >= 1
    for way, ink, lower in zip(seams.ways, seams.ink, seams.lower, strict=True):
        assert (way.min(), way.max(), lower) >= (8, 8, 40)
        assert way.max() <= 22
        assert ink == pytest.approx(3, abs=0.1)
        assert (np.abs(np.diff(way)) <= 1).all()


def test_ways_follow_digits_that_lean():
    ink = np.zeros((40, 60))
    for row in range(40):
        ink[row, [10 + row // 2, 11 + row // 2, 34 + row // 2, 35 + row // 2]] = 1
    ink[20, 20:45] = 1
    seams = find_seams(ink, apart=40, most_ink=2, lowest=30)
    assert len(seams.ways) == 1
    assert seams.ink[0] < 2 + 0.05 * 40
    assert (seams.ways[0] > 10 + np.arange(40) // 2).all()
    assert (seams.ways[0] <= 34 + np.arange(40) // 2).all()


def test_ways_through_much_ink_and_beside_low_ends_are_left_out():
    assert not len(find_seams(bars(np.s_[10:20]), apart=5, most_ink=4, lowest=20).ways)
    ink = np.zeros((40, 30))
    ink[:, 4:8] = 1
    ink[10:13, 8:26] = 1  # a bar that ends in nothing
    assert not len(find_seams(ink, apart=5, most_ink=4, lowest=20).ways)
