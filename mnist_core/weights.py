"""One flat vector of all that is trained, and how a network's weights follow from it.

**Standardised kernels** take the place of batch normalization: every filter has mean 0 and a learned scale that keeps
the variance of what follows a ReLU (Brock, De and Smith, "Characterizing signal propagation to close the performance
gap in unnormalized ResNets", ICLR 2021). Nothing depends on the other samples of a batch, so nothing is exchanged
between workers but gradients, and the published model holds the finished kernel in a plain convolution. They are
finished once a step, not once a micro-batch: a sum of gradients goes back through them as well as each of its terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_core.kernels import compiled

RELU_GAIN: Final = float(np.sqrt(2 / (1 - 1 / np.pi)))
"""Undoes what a ReLU does to the variance of a normal distribution."""

EPSILON: Final = 1e-4
"""Keeps a filter of equal weights finite."""


class WeightLayout:
    """Where a network's weights are in the flat vector: all of them in order, then the scales of standardised filters.

    Args:
        network: What ``build_training_network`` made, with its initial weights.

    Attributes:
        initial: The vector to start from, float32 (parameters,).
        decayed: 1 where weight decay acts, which is on kernels, else 0: float32 (parameters,).
    """

    def __init__(self, network: keras.Model) -> None:
        variables = network.trainable_variables
        self._shapes = [tuple(variable.shape) for variable in variables]
        self._sizes = [int(np.prod(shape)) for shape in self._shapes]
        kernels = {id(layer.kernel) for layer in network.layers if getattr(layer, "standardised", False)}
        self._standardised = [index for index, variable in enumerate(variables) if id(variable) in kernels]
        self._scales = [self._shapes[index][-1] for index in self._standardised]
        self.initial = _join([*(variable.numpy().astype(np.float32) for variable in variables), *self._ones()])
        decayed = [np.full(size, len(shape) > 1) for size, shape in zip(self._sizes, self._shapes, strict=True)]
        self.decayed = _join([*decayed, *(0 * ones for ones in self._ones())])
        self._finish = compiled(self._standardise)
        self._gradient = compiled(self._go_back)

    def finish(self, flat: tf.Tensor) -> tf.Tensor:
        """Make the network's weights of the vector that is trained: float32 (weights,)."""
        return self._finish(tf.identity(flat)) if self._scales else tf.identity(flat)

    def gradient(self, flat: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        """Make the vector's gradient, float32 (parameters,), of that of the network's weights, float32 (weights,)."""
        return self._gradient(tf.identity(flat), gradient) if self._scales else gradient

    def split(self, weights: tf.Tensor) -> list[tf.Tensor]:
        """Cut finished weights, float32 (weights,), into the network's, each of its shape."""
        parts = tf.split(weights, self._sizes)
        return [tf.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def load(self, network: keras.Model, flat: npt.NDArray[np.float32]) -> None:
        """Put the weights that belong to a vector into the network."""
        for variable, value in zip(network.trainable_variables, self.split(self.finish(flat)), strict=True):
            variable.assign(value)

    def _standardise(self, flat: tf.Tensor) -> tf.Tensor:
        *parts, scales = tf.split(flat, [*self._sizes, sum(self._scales)])
        for index, scale in zip(self._standardised, tf.split(scales, self._scales), strict=True):
            parts[index] = tf.reshape(standardise(tf.reshape(parts[index], self._shapes[index]), scale), (-1,))
        return tf.concat(parts, axis=0)

    def _go_back(self, flat: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(flat)
            weights = self._standardise(flat)
        return tape.gradient(weights, flat, gradient)

    def _ones(self) -> list[npt.NDArray[np.float32]]:
        return [np.ones(count, np.float32) for count in self._scales]


def standardise(kernel: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Give every filter mean 0 and a standard deviation of ``scale * RELU_GAIN / sqrt(fan in)``.

    Args:
        kernel: float32 (height, width, channels in, filters).
        scale: float32 (filters,).
    """
    mean, variance = tf.nn.moments(kernel, axes=(0, 1, 2), keepdims=True)
    fan_in = float(np.prod(kernel.shape[:3]))
    return (kernel - mean) * tf.math.rsqrt(variance * fan_in + EPSILON) * scale * RELU_GAIN


def _join(parts: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.float32]:
    return np.concatenate([part.astype(np.float32).ravel() for part in parts])
