"""The fast operations compute what TensorFlow's own compute, ties and odd sizes included."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from mnist_core.kernels import convolve_image, max_pool


def random(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("shape", [(3, 8, 6, 4), (2, 11, 7, 5), (1, 7, 7, 1)])
@pytest.mark.parametrize("tied", [False, True])
def test_max_pooling_and_its_gradient_are_tensorflows(shape: tuple[int, ...], tied: bool):
    values = tf.round(random(*shape)) if tied else random(*shape)  # whole numbers: many windows have several maxima
    upstream = random(shape[0], shape[1] // 2, shape[2] // 2, shape[3])
    found = []
    for pool in (max_pool, lambda each: tf.nn.max_pool2d(each, 2, 2, "VALID")):
        with tf.GradientTape() as tape:
            tape.watch(values)
            pooled = pool(values)
        found.append((pooled.numpy(), tape.gradient(pooled, values, upstream).numpy()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("size", [(3, 3), (5, 3), (1, 1)])
def test_the_convolution_of_an_image_and_its_kernels_gradient_are_tensorflows(size: tuple[int, int]):
    images, kernel = random(4, 12, 10, 1), random(*size, 1, 6)
    upstream = random(4, 13 - size[0], 11 - size[1], 6)
    found = []
    for convolve in (convolve_image, lambda x, w: tf.nn.conv2d(x, w, 1, "VALID")):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            outputs = convolve(images, kernel)
        found.append((outputs.numpy(), tape.gradient(outputs, kernel, upstream).numpy()))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-4)
