"""The CNNs: one description, built twice.

``build_training_network`` makes what is trained: logits from images and, for dropout, one key a sample.
``build_published_model`` makes what is published: uint8 images in, ten probabilities and one strangeness out, stock
Keras only (no custom code to load), float32, pixel scaling inside. ``carry_weights`` carries trained weights across.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from mnist_core.kernels import convolve_image, max_pool

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


class TrainingConv2D(layers.Conv2D):  # type: ignore[misc]
    """Convolution and activation, fast on the one-channel image too; computes what ``Conv2D`` computes."""

    def finished_kernel(self) -> Any:
        """The kernel that is convolved with: float32 (height, width, channels in, filters)."""
        return keras.ops.cast(self._kernel, "float32")

    def call(self, inputs: Any) -> Any:
        """Convolve with the finished kernel, add the bias, apply the activation."""
        kernel = self.finished_kernel()
        if inputs.shape[-1] == 1:
            outputs = tf.cast(convolve_image(self._padded(inputs), kernel), self.compute_dtype)
        else:
            outputs = keras.ops.conv(inputs, keras.ops.cast(kernel, self.compute_dtype), padding=self.padding)
        return self.activation(outputs + keras.ops.cast(self.bias, self.compute_dtype))

    def _padded(self, images: Any) -> Any:
        around = [size // 2 if self.padding == "same" else 0 for size in self.kernel_size]
        return tf.pad(tf.cast(images, tf.float32), [[0, 0], *([size, size] for size in around), [0, 0]])


class ScaledConv2D(TrainingConv2D):
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
        """The kernel that is convolved with: float32 (height, width, channels in, filters)."""
        kernel = keras.ops.cast(self._kernel, "float32")
        mean, variance = keras.ops.moments(kernel, axes=(0, 1, 2), keepdims=True)
        fan_in = int(np.prod(self._kernel.shape[:3]))
        scale = keras.ops.cast(self.filter_scale, "float32") * self.RELU_GAIN
        return (kernel - mean) * keras.ops.rsqrt(variance * fan_in + 1e-4) * scale


class TrainingMaxPooling2D(layers.Layer):  # type: ignore[misc]
    """2x2 max pooling with a fast gradient; computes what ``MaxPooling2D`` computes."""

    def call(self, inputs: Any) -> Any:
        """Take the maximum of each window."""
        return max_pool(inputs)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Any:
        """Half the height and width, rounded down."""
        batch, height, width, channels = input_shape
        return batch, height // 2, width // 2, channels


def _convnet(conv: Callable[..., Any], pool: Callable[[], Any], dropout: float) -> Iterable[Any]:
    """The reference notebook's network: 34,826 parameters."""
    yield conv(32, 3)
    yield pool()
    yield conv(64, 3)
    yield pool()
    yield layers.Flatten()
    yield SampleDropout(dropout)
    yield layers.Dense(NUM_CLASSES, name="logits")


def _deepnet(conv: Callable[..., Any], pool: Callable[[], Any], dropout: float) -> Iterable[Any]:
    """Five convolutions without batch normalization."""
    yield conv(32, 3, padding="same", standardised=True)
    yield pool()
    yield conv(48, 3, padding="same", standardised=True)
    yield conv(48, 3, padding="same", standardised=True)
    yield pool()
    yield conv(96, 3, padding="same", standardised=True)
    yield conv(96, 3, padding="same", standardised=True)
    yield pool()
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
        kind = ScaledConv2D if standardised else TrainingConv2D
        return kind(filters, size, padding=padding, activation="relu")

    images = keras.Input((IMAGE_SIDE, IMAGE_SIDE, 1), dtype="float32", name="images")
    keys = keras.Input((), dtype="uint32", name="keys")
    values = layers.Rescaling(1 / 255, dtype=policy)(images)
    for index, layer in enumerate(_NETWORKS[name](conv, TrainingMaxPooling2D, dropout)):
        layer.dtype_policy = policy
        if hasattr(layer, "kernel_initializer"):
            layer.kernel_initializer = keras.initializers.GlorotUniform(seed=seed * 1000 + index)
        values = layer([values, keys]) if isinstance(layer, SampleDropout) else layer(values)
    return keras.Model([images, keys], layers.Activation("linear", dtype="float32", name="outputs")(values), name=name)


def build_published_model(name: str) -> keras.Model:
    """Build the model that is published: the network, and a head that says how unlike a digit an image is.

    The head sees the texture of an image, which is how strongly each filter of each convolution responds on average
    (the square root tames the long tail), and the logits. It has two dense layers, ``whiten`` and ``cost``, whose
    weights come from ``mnist_core.calibration``, and answers with the cost of the cheapest digit.

    Returns:
        A model from uint8 (N, 28, 28) to ``probabilities``, float32 (N, 10), and ``strangeness``, float32 (N,).
    """

    def conv(filters: int, size: int, *, standardised: bool = False, padding: str = "valid") -> Any:
        del standardised  # its effect is in the kernel that carry_weights brings
        return layers.Conv2D(filters, size, padding=padding, activation="relu")

    images = keras.Input((IMAGE_SIDE, IMAGE_SIDE), dtype="uint8", name="images")
    values = layers.Rescaling(1 / 255)(keras.ops.reshape(images, (-1, IMAGE_SIDE, IMAGE_SIDE, 1)))
    responses = []
    for layer in _NETWORKS[name](conv, layers.MaxPooling2D, 0.0):
        if isinstance(layer, layers.Flatten):
            # The layer asks for the batch size while it runs, which splits the graph that LiteRT compiles in two.
            values = keras.ops.reshape(values, (-1, math.prod(values.shape[1:])))
        elif not isinstance(layer, SampleDropout):
            values = layer(values)
        if isinstance(layer, layers.Conv2D):
            responses.append(layers.GlobalAveragePooling2D()(values))
    texture = keras.ops.sqrt(layers.Concatenate(name="texture")(responses))
    whitened = layers.Dense(texture.shape[-1], name="whiten")(texture)
    costs = layers.Dense(NUM_CLASSES, name="cost")(layers.Concatenate()([keras.ops.square(whitened), whitened, values]))
    outputs = {
        "probabilities": layers.Softmax(name="probabilities")(values),
        "strangeness": keras.ops.min(costs, axis=-1),
    }
    return keras.Model(images, outputs, name=name)


def carry_weights(network: keras.Model, published: keras.Model) -> None:
    """Give the published model the weights with which it computes what the trained network computes.

    Args:
        network: What ``build_training_network`` made, with its final weights.
        published: What ``build_published_model`` made of the same name; its head is left as it is.
    """
    trained = [layer for layer in network.layers if isinstance(layer, layers.Conv2D | layers.Dense)]
    plain = [layer for layer in published.layers if isinstance(layer, layers.Conv2D) or layer.name == "logits"]
    for source, target in zip(trained, plain, strict=True):
        kernel = source.finished_kernel() if isinstance(source, TrainingConv2D) else source.kernel
        target.set_weights([np.asarray(values).astype(np.float32) for values in (kernel, source.bias)])
