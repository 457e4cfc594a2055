"""Everything random about training data, as pure functions of (seed, purpose, epoch, sample).

No generator carries state from one draw to the next, so neither the number of workers nor a restart in the middle
of an epoch can change what is drawn. Plain numpy.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

RUN_SEEDS: Final = 2**31
"""A run may have a seed below this."""


class Purpose(IntEnum):
    """What a draw is for: draws for different purposes are independent of each other."""

    ORDER = 1
    KEY = 2
    AUGMENT = 3
    SPLIT = 4


def random_bits(
    seed: int, purpose: Purpose, epoch: int, samples: npt.ArrayLike, num_draws: int = 1
) -> npt.NDArray[Any]:
    """Draw 64 random bits for every (sample, draw).

    Args:
        seed: The run's seed.
        purpose: What the draw is for.
        epoch: Epoch, from 0.
        samples: Indices into the training split, int (N,).
        num_draws: Independent draws a sample.

    Returns:
        uint64 (N, num_draws), a counter-based hash (the finaliser of SplitMix64: Steele, Lea and Flood, "Fast
        splittable pseudorandom number generators", OOPSLA 2014), the same on every machine.
    """
    key = np.zeros(1, np.uint64)
    for word in (seed, purpose, epoch):
        key = _mix(key ^ np.uint64(word))
    per_sample = _mix(key ^ np.asarray(samples).astype(np.uint64))
    return _mix(per_sample[:, None] ^ np.arange(num_draws, dtype=np.uint64)[None, :])


def uniform(seed: int, purpose: Purpose, epoch: int, samples: npt.ArrayLike, num_draws: int) -> npt.NDArray[np.float32]:
    """Draw numbers uniformly from [-1, 1): float32 (N, num_draws)."""
    bits = random_bits(seed, purpose, epoch, samples, num_draws)
    return ((bits >> np.uint64(40)).astype(np.float32) / np.float32(2**23)) - np.float32(1)


def member_seed(seed: int, member: int) -> int:
    """Seed of a member of an ensemble: the first has the run's, the others have such as no run has."""
    return seed + member * RUN_SEEDS


def sample_keys(seed: int, epoch: int, samples: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Draw the key from which a sample's dropout masks and distortions of one epoch follow: uint32 (N,)."""
    return (random_bits(seed, Purpose.KEY, epoch, samples)[:, 0] >> np.uint64(32)).astype(np.uint32)


def permutation(seed: int, purpose: Purpose, epoch: int, count: int) -> npt.NDArray[np.int64]:
    """Draw one order of ``count`` samples: int64 (count,)."""
    return np.argsort(random_bits(seed, purpose, epoch, np.arange(count))[:, 0], kind="stable")


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
