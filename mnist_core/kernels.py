"""The operations of the training step for which TensorFlow's own CPU kernels are slow, compiled by XLA instead.

A convolution of many channels is TensorFlow's (oneDNN), which is at the machine's limit for matrix products: on one
core of an AMD EPYC with AVX-512, micro-batches of 16, 95 to 125 GFLOP/s in float32 and 120 to 240 in bfloat16, where a
large matmul has 92 and 177. What lies between two convolutions is bound by memory instead, so it is one pass forward
and one back: bias, ReLU and pooling together, with the change of precision inside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

BFLOAT16_INSTRUCTIONS: Final = {"avx512_bf16", "amx_bf16"}
"""As Linux names them, which of a CPU's instructions multiply bfloat16."""

compiled: Callable[..., Any] = partial(tf.function, jit_compile=True, autograph=False)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def convolve_image(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    """Convolve one-channel images without padding; the images are data and get no gradient.

    Args:
        images: float32 (N, H, W, 1).
        kernel: float32 (height, width, 1, filters).

    Returns:
        float32 (N, H - height + 1, W - width + 1, filters).
    """
    return _convolve_image(images, kernel), lambda upstream: (None, _kernel_gradient(images, upstream, kernel.shape))


@compiled
def _convolve_image(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    height, width, _, _ = kernel.shape
    rows, columns = images.shape[1] - height + 1, images.shape[2] - width + 1
    return tf.add_n(
        [
            images[:, row : row + rows, column : column + columns] * kernel[row, column, 0]
            for row in range(height)
            for column in range(width)
        ]
    )


def _kernel_gradient(images: tf.Tensor, upstream: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    # oneDNN's takes half the time of a product of nine shifted copies, by XLA or not; for the sums above it is XLA.
    return tf.raw_ops.Conv2DBackpropFilter(
        input=images, filter_sizes=shape, out_backprop=upstream, strides=[1, 1, 1, 1], padding="VALID"
    )


def convolve(values: tf.Tensor, kernel: tf.Tensor, dtype: tf.DType, padding: str) -> tf.Tensor:
    """Convolve many channels.

    On a CPU without instructions for bfloat16 its products, which float32 holds exactly, are float32's. Only the order
    of the sums is another.

    Args:
        values: float32 or bfloat16 (N, H, W, C).
        kernel: float32 (height, width, C, filters).
        dtype: What both are rounded to, and the result.
        padding: ``same`` or ``valid``.

    Returns:
        (N, H', W', filters) of ``dtype``.
    """
    values, kernel = tf.cast(values, dtype), tf.cast(kernel, dtype)
    if dtype == tf.bfloat16 and not multiplies_bfloat16():
        values, kernel = _float(values), _float(kernel)
    return tf.cast(tf.nn.conv2d(values, kernel, 1, padding.upper()), dtype)


@cache
def multiplies_bfloat16() -> bool:
    """Whether a GPU or this CPU has instructions for products of bfloat16."""
    if tf.config.list_physical_devices("GPU"):
        return True
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
    return not BFLOAT16_INSTRUCTIONS.isdisjoint(described.split())


def bias_relu(values: tf.Tensor, bias: tf.Tensor, dtype: tf.DType, *, pooled: bool) -> tf.Tensor:
    """Add a bias to what a convolution gave, apply ReLU, and take the maximum of each 2x2 window if ``pooled``.

    A window's gradient goes to its first maximum, as in TensorFlow: equal neighbours are common in black. An odd last
    row or column is left out of the pooling.

    Args:
        values: float32 or bfloat16 (N, H, W, C).
        bias: float32 (C,).
        dtype: Of the result; the arithmetic is float32.
        pooled: Whether to pool.

    Returns:
        (N, H // 2, W // 2, C) if pooled, else (N, H, W, C).
    """
    forward, backward = (_pooled, _pooled_gradient) if pooled else (_plain, _plain_gradient)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def apply(values: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        return forward(values, bias, dtype), lambda upstream: backward(values, bias, upstream)

    return apply(values, bias)


@compiled
def _plain(values: tf.Tensor, bias: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(tf.nn.relu(_float(values) + bias), dtype)


@compiled
def _plain_gradient(values: tf.Tensor, bias: tf.Tensor, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    gradient = tf.where(_float(values) + bias > 0, _float(upstream), 0.0)
    return tf.cast(gradient, values.dtype), tf.reduce_sum(gradient, axis=(0, 1, 2))


@compiled
def _pooled(values: tf.Tensor, bias: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(tf.nn.relu(_maximum(_corners(values)) + bias), dtype)


@compiled
def _pooled_gradient(values: tf.Tensor, bias: tf.Tensor, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    batch, height, width, channels = values.shape
    rows, columns = height // 2, width // 2
    corners = _corners(values)
    highest = _maximum(corners)
    left = tf.where(highest + bias > 0, _float(upstream), 0.0)
    bias_gradient = tf.reduce_sum(left, axis=(0, 1, 2))
    gradients = []
    for corner in corners:
        chosen = tf.equal(corner, highest)
        gradients.append(tf.where(chosen, left, 0.0))
        left = tf.where(chosen, 0.0, left)
    stacked = tf.stack([tf.stack(gradients[:2], axis=3), tf.stack(gradients[2:], axis=3)], axis=2)
    inside = tf.reshape(stacked, (batch, 2 * rows, 2 * columns, channels))
    around = [[0, 0], [0, height - 2 * rows], [0, width - 2 * columns], [0, 0]]
    return tf.cast(tf.pad(inside, around), values.dtype), bias_gradient


def _corners(values: tf.Tensor) -> list[tf.Tensor]:
    """The four corners of each window, row by row: float32 (N, H // 2, W // 2, C) each."""
    batch, height, width, channels = values.shape
    rows, columns = height // 2, width // 2
    inside = _float(values)[:, : 2 * rows, : 2 * columns]
    windows = tf.reshape(inside, (-1 if batch is None else batch, rows, 2, columns, 2, channels))
    return [windows[:, :, row, :, column] for row in range(2) for column in range(2)]


def _maximum(corners: list[tf.Tensor]) -> tf.Tensor:
    return tf.maximum(tf.maximum(corners[0], corners[1]), tf.maximum(corners[2], corners[3]))


def _float(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values, tf.float32)
