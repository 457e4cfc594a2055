"""The fast operations compute what TensorFlow's own compute, ties and odd sizes included."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from mnist_core import kernels
from mnist_core.kernels import bias_relu, convolve, convolve_image


def random(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32))


def plain(values: tf.Tensor, bias: tf.Tensor, *, pooled: bool) -> tf.Tensor:
    activated = tf.nn.relu(values + bias)
    return tf.nn.max_pool2d(activated, 2, 2, "VALID") if pooled else activated


@pytest.mark.parametrize("shape", [(3, 8, 6, 4), (2, 11, 7, 5), (1, 7, 7, 1)])
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_bias_relu_and_pooling_and_their_gradients_are_tensorflows(shape: tuple[int, ...], pooled: bool, tied: bool):
    values, bias = random(*shape), random(shape[-1])
    if tied:  # whole numbers: many windows have several maxima, many of them 0
        values, bias = tf.round(values), tf.round(bias)
    found = []
    for apply in (lambda *each, pooled: bias_relu(*each, tf.float32, pooled=pooled), plain):
        with tf.GradientTape() as tape:
            tape.watch((values, bias))
            outputs = apply(values, bias, pooled=pooled)
        upstream = random(*outputs.shape)
        found.append([outputs, *tape.gradient(outputs, (values, bias), upstream)])
    (outputs, gradient, bias_gradient), (true_outputs, true_gradient, true_bias_gradient) = found
    np.testing.assert_array_equal(outputs, true_outputs)
    np.testing.assert_array_equal(gradient, true_gradient)
    np.testing.assert_allclose(bias_gradient, true_bias_gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooled", [False, True])
def test_bfloat16_is_rounded_once_on_the_way_out(pooled: bool):
    values, bias = tf.cast(random(2, 6, 6, 4), tf.bfloat16), random(4)
    with tf.GradientTape() as tape:
        tape.watch((values, bias))
        outputs = bias_relu(values, bias, tf.bfloat16, pooled=pooled)
    upstream = tf.cast(random(*outputs.shape), tf.bfloat16)
    gradient, bias_gradient = tape.gradient(outputs, (values, bias), upstream)
    expected = plain(tf.cast(values, tf.float32), bias, pooled=pooled)
    np.testing.assert_array_equal(outputs, tf.cast(expected, tf.bfloat16))
    assert [each.dtype for each in (gradient, bias_gradient)] == [tf.bfloat16, tf.float32]


@pytest.mark.parametrize("size", [(3, 3), (5, 3), (1, 1)])
def test_the_convolution_of_an_image_and_its_kernels_gradient_are_tensorflows(size: tuple[int, int]):
    images, kernel = random(4, 12, 10, 1), random(*size, 1, 6)
    upstream = random(4, 13 - size[0], 11 - size[1], 6)
    found = []
    for function in (convolve_image, lambda x, w: tf.nn.conv2d(x, w, 1, "VALID")):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            outputs = function(images, kernel)
        found.append((outputs.numpy(), tape.gradient(outputs, kernel, upstream).numpy()))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_multiplied_as_such_or_as_its_exact_products_in_float32(native: bool, monkeypatch):
    monkeypatch.setattr(kernels, "multiplies_bfloat16", lambda: native)
    values, kernel = tf.cast(random(2, 8, 8, 16), tf.bfloat16), random(3, 3, 16, 8)
    upstream = tf.cast(random(2, 6, 6, 8), tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch((values, kernel))
        outputs = convolve(values, kernel, tf.bfloat16, "valid")
    gradients = tape.gradient(outputs, (values, kernel), upstream)
    rounded = [tf.cast(each, tf.float32) for each in (values, tf.cast(kernel, tf.bfloat16))]
    with tf.GradientTape() as tape:
        tape.watch(rounded)
        exact = tf.nn.conv2d(*rounded, 1, "VALID")
    expected = [exact, *tape.gradient(exact, rounded, tf.cast(upstream, tf.float32))]
    assert [each.dtype for each in (outputs, *gradients)] == [tf.bfloat16, tf.bfloat16, tf.float32]
    for found, true in zip((outputs, *gradients), expected, strict=True):
        np.testing.assert_allclose(tf.cast(found, tf.float32), true, rtol=2**-7, atol=2**-5)
