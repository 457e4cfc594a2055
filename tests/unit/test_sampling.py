"""The draws: pinned to a reference, independent of order, subset and each other, and uniform."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_core.sampling import Purpose, permutation, random_bits, sample_keys, uniform

COUNT = 20_000
SIGMAS = 5
seeds = st.integers(0, 2**31 - 1)

reproducible = settings(deadline=None, derandomize=True)


def splitmix64(state: int) -> int:
    """The reference in plain integers: the output of SplitMix64 after one step from ``state``."""
    mask = 2**64 - 1
    value = (state + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def test_the_reference_gives_the_published_outputs():
    states = [(1234567 + step * 0x9E3779B97F4A7C15) % 2**64 for step in range(3)]
    assert [splitmix64(state) for state in states] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@reproducible
@given(seeds, st.sampled_from(Purpose), st.integers(0, 10**6), st.integers(0, 2**40), st.integers(1, 9))
def test_bits_are_the_reference_hashed_over_every_word(seed, purpose, epoch, sample, num_draws):
    key = 0
    for word in (seed, purpose, epoch, sample):
        key = splitmix64(key ^ word)
    expected = [[splitmix64(key ^ draw) for draw in range(num_draws)]]
    assert random_bits(seed, purpose, epoch, [sample], num_draws).tolist() == expected


def test_draws_never_change_from_one_release_to_the_next():
    assert random_bits(7, Purpose.SPLIT, 2, [0, 59_999]).tolist() == [[9049446292438602516], [3828476513794147600]]
    assert permutation(0, Purpose.ORDER, 0, 8).tolist() == [4, 2, 5, 1, 6, 3, 0, 7]
    assert sample_keys(0, 1, [5]).tolist() == [2445868820]
    assert uniform(3, Purpose.AUGMENT, 0, [1], 2).tolist() == [[0.8600105047225952, 0.7533763647079468]]


@reproducible
@given(seeds, st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_a_draw_depends_on_its_sample_alone(seed, samples):
    together = uniform(seed, Purpose.AUGMENT, 3, samples, 4)
    alone = [uniform(seed, Purpose.AUGMENT, 3, [sample], 4)[0] for sample in samples]
    assert np.array_equal(together, alone)
    assert np.array_equal(together[:, :2], uniform(seed, Purpose.AUGMENT, 3, samples, 2))


def test_uniform_numbers_lie_in_the_half_open_range_and_fill_it():
    draws = uniform(1, Purpose.AUGMENT, 0, np.arange(COUNT), 8)
    assert draws.dtype == np.float32
    assert -1 <= draws.min() < -0.9999
    assert 0.9999 < draws.max() < 1


def test_the_largest_bits_still_give_a_number_below_one(monkeypatch):
    monkeypatch.setattr("mnist_core.sampling.random_bits", lambda *_: np.array([[0, 2**64 - 1]], np.uint64))
    assert uniform(0, Purpose.AUGMENT, 0, [0], 2).tolist() == [[-1, 1 - 2**-23]]


def test_uniform_numbers_have_the_moments_of_the_uniform_distribution():
    draws = uniform(2, Purpose.AUGMENT, 0, np.arange(COUNT), 6).astype(np.float64)
    # A uniform number on [-1, 1] has variance 1/3; its square has variance 1/5 - 1/9.
    assert np.abs(draws.mean(axis=0)).max() < SIGMAS * np.sqrt(1 / 3 / COUNT)
    assert np.abs((draws**2).mean(axis=0) - 1 / 3).max() < SIGMAS * np.sqrt((1 / 5 - 1 / 9) / COUNT)


def test_draws_samples_epochs_seeds_and_purposes_are_independent_of_each_other():
    samples = np.arange(COUNT)
    columns = [
        *uniform(0, Purpose.AUGMENT, 0, samples, 3).T,
        *uniform(0, Purpose.AUGMENT, 0, samples + 1, 3).T,
        uniform(0, Purpose.AUGMENT, 1, samples, 1)[:, 0],
        uniform(1, Purpose.AUGMENT, 0, samples, 1)[:, 0],
        uniform(0, Purpose.SPLIT, 0, samples, 1)[:, 0],
    ]
    correlations = np.corrcoef(columns)[np.triu_indices(len(columns), 1)]
    assert np.abs(correlations).max() < SIGMAS / np.sqrt(COUNT)


def test_every_bit_of_a_dropout_key_is_set_in_half_of_the_samples():
    keys = sample_keys(0, 0, np.arange(COUNT))
    assert keys.dtype == np.uint32
    shares = [(keys >> np.uint32(bit) & 1).mean() for bit in range(32)]
    assert np.abs(np.array(shares) - 0.5).max() < SIGMAS * 0.5 / np.sqrt(COUNT)


@reproducible
@given(seeds, st.integers(0, 100), st.integers(0, 300))
def test_a_permutation_holds_every_sample_once(seed, epoch, count):
    order = permutation(seed, Purpose.ORDER, epoch, count)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))


@pytest.mark.parametrize(
    "other", [(1, Purpose.ORDER, 0), (0, Purpose.SPLIT, 0), (0, Purpose.ORDER, 1)], ids=["seed", "purpose", "epoch"]
)
def test_another_seed_purpose_or_epoch_gives_another_permutation(other):
    agreeing = permutation(0, Purpose.ORDER, 0, 1000) == permutation(*other, 1000)
    assert agreeing.sum() < 10  # one on average


def test_all_permutations_are_equally_likely():
    epochs = 2400
    seen = Counter(tuple(permutation(0, Purpose.ORDER, epoch, 4).tolist()) for epoch in range(epochs))
    assert seen.keys() == set(itertools.permutations(range(4)))
    chi_square = sum((times - epochs / 24) ** 2 / (epochs / 24) for times in seen.values())
    assert chi_square < 53  # of 23 degrees of freedom: one in 2,500 is larger
