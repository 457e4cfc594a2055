"""Draws inside TensorFlow: functions of the key alone, independent of each other, and distributed as they say."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from mnist_core.draws import Draws, hash_bits

KEYS = np.random.default_rng(0).integers(0, 2**32, 2000, dtype=np.uint32)
SIGMAS = 5


def correlation(one, other):
    return abs(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1])


def test_bits_are_those_of_murmurhash3s_finaliser():
    def mix(value):
        value = (value ^ value >> 16) * 0x85EBCA6B & 0xFFFFFFFF
        value = (value ^ value >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
        return value ^ value >> 16

    expected = [[mix(int(key) ^ (number * 0x9E3779B9 & 0xFFFFFFFF)) for number in (8, 9, 10)] for key in KEYS[:5]]
    assert hash_bits(tf.constant(KEYS[:5]), 7, 3).numpy().tolist() == expected


def test_draws_depend_on_the_key_and_not_on_the_place_in_the_batch():
    together = Draws(tf.constant(KEYS[:100]), 5).uniform(30).numpy()
    assert np.array_equal(Draws(tf.constant(KEYS[:100][::-3]), 5).uniform(30).numpy(), together[::-3])


def test_consecutive_draws_and_neighbouring_keys_are_independent():
    draws = Draws(tf.constant(KEYS), 0)
    one, other = draws.uniform(50).numpy(), draws.uniform(50).numpy()
    limit = SIGMAS / np.sqrt(one.size)
    assert correlation(one, other) < limit
    assert correlation(one, Draws(tf.constant(KEYS + np.uint32(1)), 0).uniform(50)) < limit
    assert correlation(one, Draws(tf.constant(KEYS), 1).uniform(50)) < limit
    assert correlation(one[:, 1:], one[:, :-1]) < limit


def test_numbers_and_chances_are_uniform():
    draws = Draws(tf.constant(KEYS), 3)
    numbers = draws.uniform(100).numpy()
    assert 0 <= numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    counts, _ = np.histogram(numbers, 50, (0, 1))
    assert ((counts - numbers.size / 50) ** 2 / (numbers.size / 50)).sum() < 50 + SIGMAS * 10
    moved = draws.number(-2, 3).numpy()
    assert moved.shape == (len(KEYS), 1, 1)
    assert abs(moved.mean() - 0.5) < SIGMAS * (5 / 12**0.5) / np.sqrt(len(KEYS))
    assert abs(draws.chance(0.3).numpy().mean() - 0.3) < SIGMAS * np.sqrt(0.21 / len(KEYS))


def test_the_four_numbers_of_a_pixel_are_independent():
    first, *others = (each.numpy() for each in Draws(tf.constant(KEYS[:100]), 0).pixels(28))
    assert first.shape == (100, 28, 28)
    assert (first.min(), first.max()) == (0, 1)
    for other in others:
        assert correlation(first, other) < SIGMAS / np.sqrt(first.size)


@pytest.mark.parametrize("points", [4, 9])
def test_a_field_is_smooth_with_mean_0_and_deviation_1(points):
    field = Draws(tf.constant(KEYS), 0).field(28, points).numpy()
    assert field.shape == (len(KEYS), 28, 28)
    assert abs(field.mean()) < 0.05
    assert field.std() == pytest.approx(1, abs=0.05)
    assert np.diff(field, axis=1).std() < 0.06 * points
