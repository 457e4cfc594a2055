"""Random numbers inside TensorFlow as pure functions of a sample's key: no generator, so no state to lose or to share.

The key of a sample in an epoch comes from ``mnist_core.sampling.sample_keys``; all that is random about the sample in
that epoch follows from it, the same on whichever worker, in whichever batch, after a restart.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

GOLDEN = 0x9E3779B9
"""2**32 over the golden ratio: multiples of it are spread evenly, which makes salts of consecutive numbers."""


def hash_bits(keys: tf.Tensor, first: int, count: int) -> tf.Tensor:
    """Draw the numbers ``first`` to ``first + count - 1`` of each key.

    Args:
        keys: uint32 (N,).
        first: Which draw to begin with: draws of different numbers are independent.
        count: How many.

    Returns:
        uint32 (N, count).
    """
    salts = np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(GOLDEN) & np.uint64(0xFFFFFFFF)
    return _mix(tf.bitwise.bitwise_xor(keys[:, None], tf.constant(salts.astype(np.uint32))[None, :]))


class Draws:
    """Consecutive draws of each of N keys. Which they are is settled while a graph is traced.

    Args:
        keys: uint32 (N,).
        first: Which draw to begin with.
    """

    def __init__(self, keys: tf.Tensor, first: int) -> None:
        # Two rounds: those who take one round with the same salts (dropout) are independent of these draws.
        self._keys = hash_bits(keys, first, 1)[:, 0]
        self._next = 0

    def bits(self, count: int) -> tf.Tensor:
        """uint32 (N, count)."""
        drawn = hash_bits(self._keys, self._next, count)
        self._next += count
        return drawn

    def uniform(self, count: int) -> tf.Tensor:
        """Numbers from [0, 1): float32 (N, count)."""
        upper = tf.bitwise.right_shift(self.bits(count), tf.constant(8, tf.uint32))
        return tf.cast(upper, tf.float32) * np.float32(2**-24)

    def number(self, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        """One number a key, to go with images: float32 (N, 1, 1)."""
        return low + (high - low) * self.uniform(1)[:, :, None]

    def chance(self, share: float) -> tf.Tensor:
        """Whether something happens that happens to this share: bool (N, 1, 1)."""
        return self.number() < share

    def pixels(self, side: int) -> list[tf.Tensor]:
        """Four independent numbers from [0, 1] a pixel, in steps of 1/255: float32 (N, side, side) each."""
        bits = tf.reshape(self.bits(side * side), (-1, side, side))
        low = tf.constant(255, tf.uint32)
        shifted = (tf.bitwise.right_shift(bits, tf.constant(8 * byte, tf.uint32)) for byte in range(4))
        return [tf.cast(tf.bitwise.bitwise_and(each, low), tf.float32) * np.float32(1 / 255) for each in shifted]

    def field(self, side: int, points: int) -> tf.Tensor:
        """A smooth random field, mean 0 and deviation 1, with ``points`` hills or valleys a side: (N, side, side)."""
        heights = np.float32(12**0.5) * (tf.reshape(self.uniform(points * points), (-1, points, points)) - 0.5)
        spread = _hills(side, points)
        return tf.einsum("ip,npq,jq->nij", spread, heights, spread)


def _hills(side: int, points: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """How much each of the points counts at each place along a side: Gaussian hills, the squares adding up to 1."""
    places = np.linspace(0, points - 1, side)[:, None]
    hills = np.exp(-((places - np.arange(points)) ** 2) / (2 * 0.6**2))
    return np.asarray(hills / np.sqrt((hills**2).sum(axis=1, keepdims=True)), np.float32)


def _mix(value: tf.Tensor) -> tf.Tensor:
    """Scramble 32 bits (the finaliser of MurmurHash3, Appleby 2011)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(shift, tf.uint32)))
        value = value * tf.constant(factor, tf.uint32)
    return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(16, tf.uint32)))
