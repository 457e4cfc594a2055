"""The CNNs: one description, built twice.

``build_training_network`` makes what is trained: logits from images and, for dropout, one key a sample.
``build_published_model`` makes what is published: uint8 images in, ten probabilities out, stock Keras layers only
(no custom code to load), float32, pixel scaling inside. ``publish_weights`` carries trained weights across.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers

NUM_CLASSES = 10
IMAGE_SIDE = 28

_DTYPE_POLICIES = {"float32": "float32", "bfloat16": "bfloat16", "mixed": "mixed_bfloat16"}


class SampleDropout(layers.Layer):  # type: ignore[misc]
    """Dropout whose mask is a function of a sample's key, not of a generator's state.

    So a sample's mask is the same on whichever worker, in whichever batch, and after a restart. Called with
    ``[inputs, keys]``: inputs (N, units), keys uint32 (N,).

    Args:
        rate: Share of the units that is dropped; the others are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.rate = rate

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Drop units while training, else pass them on."""
        values, keys = inputs
        if not training or self.rate == 0:
            return values
        units = tf.range(values.shape[-1], dtype=tf.int64)
        salt = tf.cast((units + 1) * 0x9E3779B9 & 0xFFFFFFFF, tf.uint32)
        bits = _mix32(tf.bitwise.bitwise_xor(keys[:, None], salt[None, :]))
        keep = bits >= tf.constant(int(self.rate * 2**32), tf.uint32)
        return tf.where(keep, values / (1 - self.rate), tf.zeros_like(values))

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Any:
        """The shape of the values."""
        return input_shape[0]


def _mix32(value: tf.Tensor) -> tf.Tensor:
    """Scramble 32 bits (the finaliser of MurmurHash3, Appleby 2011)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(shift, tf.uint32)))
        value = value * tf.constant(factor, tf.uint32)
    return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(16, tf.uint32)))


class ScaledConv2D(layers.Conv2D):  # type: ignore[misc]
    """Convolution with standardised weights, in the place of batch normalization.

    Every filter has mean 0 and a scale of its own that keeps the variance of what follows a ReLU (Brock, De and
    Smith, "Characterizing signal propagation to close the performance gap in unnormalized ResNets", ICLR 2021).
    Nothing depends on the other samples of a batch, so nothing has to be exchanged between workers but gradients,
    and the published model holds the finished kernel in a plain convolution.
    """

    RELU_GAIN = float(np.sqrt(2 / (1 - 1 / np.pi)))

    def build(self, input_shape: Any) -> None:
        """Add the learned scale of each filter."""
        super().build(input_shape)
        self.filter_scale = self.add_weight(name="filter_scale", shape=(self.filters,), initializer="ones")

    def finished_kernel(self) -> Any:
        """The kernel that is convolved with: (height, width, channels in, filters)."""
        kernel = keras.ops.cast(self._kernel, "float32")
        mean, variance = keras.ops.moments(kernel, axes=(0, 1, 2), keepdims=True)
        fan_in = int(np.prod(self._kernel.shape[:3]))
        scale = keras.ops.cast(self.filter_scale, "float32") * self.RELU_GAIN
        return (kernel - mean) * keras.ops.rsqrt(variance * fan_in + 1e-4) * scale

    def call(self, inputs: Any) -> Any:
        """Convolve with the finished kernel, add the bias, apply the activation."""
        kernel = keras.ops.cast(self.finished_kernel(), self.compute_dtype)
        outputs = keras.ops.conv(inputs, kernel, strides=self.strides, padding=self.padding)
        return self.activation(outputs + keras.ops.cast(self.bias, self.compute_dtype))


def _convnet(conv: Callable[..., Any], dropout: float) -> Iterable[Any]:
    """The reference notebook's network: 34,826 parameters."""
    yield conv(32, 3)
    yield layers.MaxPooling2D()
    yield conv(64, 3)
    yield layers.MaxPooling2D()
    yield layers.Flatten()
    yield SampleDropout(dropout)
    yield layers.Dense(NUM_CLASSES, name="logits")


def _deepnet(conv: Callable[..., Any], dropout: float) -> Iterable[Any]:
    """Five convolutions without batch normalization."""
    yield conv(32, 3, padding="same", standardised=True)
    yield layers.MaxPooling2D()
    yield conv(48, 3, padding="same", standardised=True)
    yield conv(48, 3, padding="same", standardised=True)
    yield layers.MaxPooling2D()
    yield conv(96, 3, padding="same", standardised=True)
    yield conv(96, 3, padding="same", standardised=True)
    yield layers.MaxPooling2D()
    yield layers.Flatten()
    yield SampleDropout(dropout)
    yield layers.Dense(NUM_CLASSES, name="logits")


_NETWORKS = {"convnet": _convnet, "deepnet": _deepnet}


def build_training_network(name: str, *, dropout: float, precision: str, seed: int) -> keras.Model:
    """Build the network that is trained.

    Args:
        name: ``convnet`` or ``deepnet``.
        dropout: Share of units dropped before the last layer.
        precision: ``float32``, ``bfloat16`` or ``mixed``.
        seed: Decides the initial weights.

    Returns:
        A model from [images 0..255 (N, 28, 28, 1), keys uint32 (N,)] to logits float32 (N, 10).
    """
    policy = keras.dtype_policies.get(_DTYPE_POLICIES[precision])

    def conv(filters: int, size: int, *, standardised: bool = False, padding: str = "valid") -> Any:
        kind = ScaledConv2D if standardised else layers.Conv2D
        return kind(filters, size, padding=padding, activation="relu")

    images = keras.Input((IMAGE_SIDE, IMAGE_SIDE, 1), dtype="float32", name="images")
    keys = keras.Input((), dtype="uint32", name="keys")
    values = layers.Rescaling(1 / 255, dtype=policy)(images)
    for index, layer in enumerate(_NETWORKS[name](conv, dropout)):
        layer.dtype_policy = policy
        if hasattr(layer, "kernel_initializer"):
            layer.kernel_initializer = keras.initializers.GlorotUniform(seed=seed * 1000 + index)
        values = layer([values, keys]) if isinstance(layer, SampleDropout) else layer(values)
    return keras.Model([images, keys], layers.Activation("linear", dtype="float32", name="outputs")(values), name=name)


def build_published_model(name: str) -> keras.Model:
    """Build the model that is published: uint8 (N, 28, 28) -> probabilities float32 (N, 10)."""

    def conv(filters: int, size: int, *, standardised: bool = False, padding: str = "valid") -> Any:
        del standardised  # its effect is in the kernel that publish_weights brings
        return layers.Conv2D(filters, size, padding=padding, activation="relu")

    images = keras.Input((IMAGE_SIDE, IMAGE_SIDE), dtype="uint8", name="images")
    values = layers.Rescaling(1 / 255)(layers.Reshape((IMAGE_SIDE, IMAGE_SIDE, 1))(images))
    for layer in _NETWORKS[name](conv, 0.0):
        if not isinstance(layer, SampleDropout):
            values = layer(values)
    return keras.Model(images, layers.Softmax(name="probabilities")(values), name=name)


def publish_weights(network: keras.Model) -> list[npt.NDArray[np.float32]]:
    """The weights of ``build_published_model`` that compute what the trained network computes."""
    weights: list[Any] = []
    for layer in network.layers:
        if isinstance(layer, ScaledConv2D):
            weights += [layer.finished_kernel(), layer.bias]
        else:
            weights += layer.weights
    return [weight.numpy().astype(np.float32) for weight in weights]
