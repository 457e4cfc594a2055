"""Two operations of the training step for which TensorFlow's own CPU kernels are slow, compiled by XLA instead.

One thread, AMD EPYC with AVX2, 64 images of the notebook's network in micro-batches of 16, before and now: gradient of
the first max pooling 9.6 and 0.8 ms, of the second 2.5 and 0.3 ms; convolution of the one-channel image 3.9 and 0.5 ms,
gradient of its kernel 2.2 and 0.8 ms; of a step of 29 ms in all. What they compute is what the stock layers compute.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

_compiled: Callable[..., Any] = partial(tf.function, jit_compile=True)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def max_pool(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Take the maximum of each 2x2 window; an odd last row or column is left out.

    Args:
        values: (N, H, W, C).

    Returns:
        (N, H // 2, W // 2, C).
    """
    pooled = tf.nn.max_pool2d(values, 2, 2, "VALID")
    return pooled, lambda upstream: _max_pool_gradient(values, pooled, upstream)


@_compiled
def _max_pool_gradient(values: tf.Tensor, pooled: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """Hand each window's gradient to its first maximum, as TensorFlow does: equal neighbours are common in black."""
    batch, height, width, channels = values.shape
    rows, columns = height // 2, width // 2
    windows = tf.reshape(values[:, : 2 * rows, : 2 * columns], (batch, rows, 2, columns, 2, channels))
    gradients, left = [], upstream
    for row in tf.unstack(windows, axis=2):
        for corner in tf.unstack(row, axis=3):
            chosen, none = tf.equal(corner, pooled), tf.zeros_like(left)
            gradients.append(tf.where(chosen, left, none))
            left = tf.where(chosen, none, left)
    stacked = tf.stack([tf.stack(gradients[:2], axis=3), tf.stack(gradients[2:], axis=3)], axis=2)
    inside = tf.reshape(stacked, (batch, 2 * rows, 2 * columns, channels))
    return tf.pad(inside, [[0, 0], [0, height - 2 * rows], [0, width - 2 * columns], [0, 0]])


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


@_compiled
def _convolve_image(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    shifted = _shifted(images, kernel.shape)
    return tf.add_n([pixels * kernel[row, column, 0] for (row, column), pixels in shifted.items()])


@_compiled
def _kernel_gradient(images: tf.Tensor, upstream: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    pixels = tf.stack([tf.reshape(each, (-1,)) for each in _shifted(images, shape).values()])
    return tf.reshape(tf.matmul(pixels, tf.reshape(upstream, (-1, shape[-1]))), shape)


def _shifted(images: tf.Tensor, shape: tf.TensorShape) -> dict[tuple[int, int], tf.Tensor]:
    """For each place in the kernel, the pixels that it is multiplied with: (N, H - height + 1, W - width + 1, 1)."""
    rows, columns = images.shape[1] - shape[0] + 1, images.shape[2] - shape[1] + 1
    places = [(row, column) for row in range(shape[0]) for column in range(shape[1])]
    return {(row, column): images[:, row : row + rows, column : column + columns] for row, column in places}
