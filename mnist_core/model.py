"""The CNNs: one description, built twice.

``build_training_network`` makes what is trained: logits from images and, for dropout, the samples' keys.
``build_published_model`` makes what is published: uint8 images in, ten probabilities and one strangeness out, stock
Keras only (no custom code to load), float32, pixel scaling inside. ``carry_weights`` carries trained weights across.

An ensemble is several such CNNs side by side in one model, its members, each with initial weights of its own. Each
learns as if it were alone, from input of its own; together they say the mean of their probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from mnist_core.draws import hash_bits
from mnist_core.kernels import bias_relu, compiled, convolve, convolve_image

NUM_CLASSES = 10
IMAGE_SIDE = 28
MAX_LAYERS: Final = 50
"""Of one network, so that no two layers of an ensemble start from the same numbers."""

SMALLEST_PROBABILITY: Final = 1e-30
"""Keeps the logarithm of a mean probability finite."""

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
        return values * tf.cast(_dropout_factors(keys, values.shape[-1], self.rate), values.dtype)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Any:
        """The shape of the values."""
        return input_shape[0]


@compiled
def _dropout_factors(keys: tf.Tensor, num_units: int, rate: float) -> tf.Tensor:
    """What each unit is multiplied with, 0 or 1 / (1 - rate): float32 (N, num_units)."""
    bits = hash_bits(keys, 0, num_units)
    keep = bits >= tf.constant(int(rate * 2**32), tf.uint32)
    return tf.where(keep, 1 / (1 - rate), 0.0)


class TrainingConv2D(layers.Conv2D):  # type: ignore[misc]
    """Convolution, bias, ReLU and, if ``pooled``, 2x2 max pooling, as fast as they can be trained on a CPU.

    Under a policy of mixed precision the convolution multiplies bfloat16 and hands bfloat16 on; sums, bias and all
    that is not a convolution of many channels are float32. The one-channel image is convolved in float32.
    ``standardised`` is for those who keep the weights: the kernel is used as it is.
    """

    def __init__(self, filters: int, size: int, *, pooled: bool, standardised: bool, **options: Any) -> None:
        super().__init__(filters, size, **options)
        self.pooled = pooled
        self.standardised = standardised

    def call(self, inputs: Any) -> Any:
        """Take (N, H, W, channels) to (N, H', W', filters) of the policy's type."""
        dtype, kernel = tf.as_dtype(self.compute_dtype), keras.ops.cast(self._kernel, "float32")
        if inputs.shape[-1] == 1:
            outputs = convolve_image(self._padded(inputs), kernel)
        else:
            outputs = convolve(inputs, kernel, dtype, self.padding)
        return bias_relu(outputs, keras.ops.cast(self.bias, "float32"), dtype, pooled=self.pooled)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Any:
        """Shape of the result: half the height and width, rounded down, if pooled."""
        batch, height, width, channels = super().compute_output_shape(input_shape)
        return (batch, height // 2, width // 2, channels) if self.pooled else (batch, height, width, channels)

    def _padded(self, images: Any) -> Any:
        around = [size // 2 if self.padding == "same" else 0 for size in self.kernel_size]
        return tf.pad(tf.cast(images, tf.float32), [[0, 0], *([size, size] for size in around), [0, 0]])


@dataclass(frozen=True)
class Convolution:
    """One 3x3 convolution of a network, with bias and ReLU; what follows the last is dropout and a dense layer.

    Attributes:
        filters: Channels out.
        padding: ``same`` or ``valid``.
        pooled: Whether 2x2 max pooling follows.
        standardised: Whether its kernel is standardised; see ``mnist_core.weights``.
    """

    filters: int
    padding: str = "same"
    pooled: bool = False
    standardised: bool = True


NETWORKS: Final[dict[str, tuple[Convolution, ...]]] = {
    # The reference notebook's: 34,826 parameters.
    "convnet": (
        Convolution(32, "valid", pooled=True, standardised=False),
        Convolution(64, "valid", pooled=True, standardised=False),
    ),
    "deepnet": (
        Convolution(32, "valid", pooled=True),
        Convolution(64),
        Convolution(64, pooled=True),
        Convolution(96),
        Convolution(96, pooled=True),
    ),
    "tinynet": (
        Convolution(16, pooled=True),
        Convolution(24),
        Convolution(24, pooled=True),
        Convolution(32, pooled=True),
    ),
}


def build_training_network(name: str, *, dropout: float, precision: str, seed: int, members: int = 1) -> keras.Model:
    """Build the network that is trained.

    Args:
        name: Of ``NETWORKS``.
        dropout: Share of units dropped before the last layer.
        precision: ``float32``, ``bfloat16`` or ``mixed``.
        seed: Decides the initial weights.
        members: CNNs of an ensemble; the first has the weights of a CNN alone.

    Returns:
        A model from [images 0..255 (N, 28, 28, members), keys uint32 (N, members)], which is what each member sees, to
        its logits, float32 (N, 10); that of an ensemble to a list of each member's.
    """
    policy = keras.dtype_policies.get(_DTYPE_POLICIES[precision])
    # Around the convolutions casting costs more than bfloat16 saves.
    others = policy if precision == "bfloat16" else keras.dtype_policies.get("float32")
    images = keras.Input((IMAGE_SIDE, IMAGE_SIDE, members), dtype="float32", name="images")
    keys = keras.Input((members,), dtype="uint32", name="keys")
    pixels = layers.Rescaling(1 / 255, dtype=others)(images)

    def initializer(member: int, index: int) -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(seed=seed * 1000 + member * MAX_LAYERS + index)

    def logits_of(member: int) -> Any:
        *names, last = _layer_names(name, member, members)
        values = pixels[..., member : member + 1] if members > 1 else pixels
        for index, each in enumerate(NETWORKS[name]):
            values = TrainingConv2D(
                each.filters,
                3,
                pooled=each.pooled,
                standardised=each.standardised,
                padding=each.padding,
                kernel_initializer=initializer(member, index),
                dtype=policy,
                name=names[index],
            )(values)
        values = SampleDropout(dropout, dtype=others)([layers.Flatten(dtype=others)(values), keys[:, member]])
        dense = {"kernel_initializer": initializer(member, len(names)), "dtype": others, "name": last}
        return layers.Activation("linear", dtype="float32")(layers.Dense(NUM_CLASSES, **dense)(values))

    outputs = [logits_of(member) for member in range(members)]
    return keras.Model([images, keys], outputs if members > 1 else outputs[0], name=name)


def build_published_model(name: str, members: int = 1) -> keras.Model:
    """Build the model that is published: the network, and a head that says how unlike a digit an image is.

    The head sees the texture of an image, which is how strongly each filter of each convolution responds on average
    (the square root tames the long tail), and the logits. It has two dense layers, ``whiten`` and ``cost``, whose
    weights come from ``mnist_core.calibration``, and answers with the cost of the cheapest digit. An ensemble's head
    sees the texture of the first member.

    Returns:
        A model from uint8 (N, 28, 28) to ``probabilities``, float32 (N, 10), and ``strangeness``, float32 (N,). The
        layer ``logits`` has the weights by which a temperature is set.
    """
    images = keras.Input((IMAGE_SIDE, IMAGE_SIDE), dtype="uint8", name="images")
    pixels = layers.Rescaling(1 / 255)(keras.ops.reshape(images, (-1, IMAGE_SIDE, IMAGE_SIDE, 1)))

    def published(member: int) -> tuple[Any, Any]:
        *names, last = _layer_names(name, member, members)
        values, responses = pixels, []
        for each, layer_name in zip(NETWORKS[name], names, strict=True):
            convolution = layers.Conv2D(each.filters, 3, padding=each.padding, activation="relu", name=layer_name)
            values = convolution(values)
            responses.append(layers.GlobalAveragePooling2D()(values))
            values = layers.MaxPooling2D()(values) if each.pooled else values
        # Not Flatten: it asks for the batch size while it runs, which splits the graph that LiteRT compiles in two.
        values = keras.ops.reshape(values, (-1, math.prod(values.shape[1:])))
        return layers.Dense(NUM_CLASSES, name=last)(values), responses

    logits, responses = published(0)
    if members > 1:
        mean = average_logits([logits, *(published(member)[0] for member in range(1, members))])
        logits = layers.Dense(NUM_CLASSES, kernel_initializer="identity", name="logits")(mean)
    texture = keras.ops.sqrt(layers.Concatenate(name="texture")(responses))
    whitened = layers.Dense(texture.shape[-1], name="whiten")(texture)
    costs = layers.Dense(NUM_CLASSES, name="cost")(layers.Concatenate()([keras.ops.square(whitened), whitened, logits]))
    outputs = {
        "probabilities": layers.Softmax(name="probabilities")(logits),
        "strangeness": keras.ops.min(costs, axis=-1),
    }
    return keras.Model(images, outputs, name=name)


def average_logits(members: Sequence[Any]) -> Any:
    """Logits whose softmax is the mean of the members' probabilities: (N, 10) of (N, 10) each."""
    if len(members) == 1:
        return members[0]
    mean = keras.ops.mean(keras.ops.stack([keras.ops.softmax(logits) for logits in members]), axis=0)
    return keras.ops.log(keras.ops.maximum(mean, SMALLEST_PROBABILITY))


def carry_weights(network: keras.Model, published: keras.Model) -> None:
    """Give the published model the weights with which it computes what the trained network computes.

    Args:
        network: What ``build_training_network`` made, with its final weights.
        published: What ``build_published_model`` made of the same name and members; its head is left as it is.
    """
    for layer in network.layers:
        if layer.weights:
            weights = [np.asarray(values).astype(np.float32) for values in layer.get_weights()]
            published.get_layer(layer.name).set_weights(weights)


def _layer_names(name: str, member: int, members: int) -> list[str]:
    """Names of a member's layers that have weights, the same in what is trained and in what is published."""
    own = [*(f"convolution{index}" for index in range(len(NETWORKS[name]))), "logits"]
    return own if members == 1 else [f"member{member}_{each}" for each in own]
