"""The flat vector of what is trained, and standardised kernels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from mnist_core.model import build_training_network
from mnist_core.weights import RELU_GAIN, WeightLayout, standardise


def network_of(name):
    return build_training_network(name, dropout=0.0, precision="float32", seed=1)


def stretched():
    """A kernel with all filters shifted and stretched, and a scale for each."""
    kernel = np.random.default_rng(4).normal(size=(3, 3, 7, 5)) * [0.1, 1, 2, 5, 0.5] + [0, 3, -2, 1, 0.2]
    return tf.constant(kernel, tf.float32), tf.constant([0.5, 1, 2, -1, 0])


def test_every_finished_filter_has_mean_zero_and_the_variance_of_its_scale():
    kernel, scale = stretched()
    filters = standardise(kernel, scale).numpy().reshape(-1, 5)
    np.testing.assert_allclose(filters.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(filters.var(axis=0), (RELU_GAIN * scale.numpy()) ** 2 / len(filters), rtol=1e-3)


def test_the_gain_undoes_what_a_relu_does_to_the_variance():
    normal = np.random.default_rng(5).normal(size=10**6)
    assert RELU_GAIN**2 * np.maximum(normal, 0).var() == pytest.approx(1, rel=0.01)


def test_without_standardised_kernels_the_vector_is_the_networks_weights():
    network = network_of("convnet")
    layout = WeightLayout(network)
    flat = np.concatenate([weight.ravel() for weight in network.get_weights()])
    assert np.array_equal(layout.initial, flat)
    assert np.array_equal(layout.finish(layout.initial), flat)
    assert np.array_equal(layout.gradient(layout.initial, flat), flat)


def test_standardised_kernels_are_finished_and_all_else_is_passed_on():
    network = network_of("deepnet")
    layout = WeightLayout(network)
    flat = np.random.default_rng(6).normal(size=layout.initial.shape).astype(np.float32)
    before = [variable.shape for variable in network.trainable_variables]
    layout.load(network, flat)
    *convolutions, dense = [layer for layer in network.layers if layer.weights]
    position, scales = 0, flat[sum(np.prod(shape) for shape in before) :]
    for layer in convolutions:
        kernel, bias = layer.get_weights()
        raw = flat[position : position + kernel.size].reshape(kernel.shape)
        expected = standardise(tf.constant(raw), tf.constant(scales[: len(bias)])).numpy()
        np.testing.assert_allclose(kernel, expected, rtol=1e-5, atol=1e-6)
        assert np.array_equal(bias, flat[position + kernel.size :][: len(bias)])
        position, scales = position + kernel.size + len(bias), scales[len(bias) :]
    last = np.concatenate([each.ravel() for each in dense.get_weights()])
    assert np.array_equal(last, flat[position : position + last.size])
    assert len(scales) == 0


def test_the_gradient_is_that_of_standardising():
    layout = WeightLayout(network_of("deepnet"))
    flat = tf.constant(np.random.default_rng(7).normal(size=layout.initial.shape), tf.float32)
    upstream = tf.constant(np.random.default_rng(8).normal(size=layout.finish(flat).shape), tf.float32)
    direction = np.random.default_rng(9).normal(size=layout.initial.shape).astype(np.float32)

    def value(step):
        moved = layout.finish(flat + np.float32(step) * direction).numpy().astype(np.float64)
        return moved @ upstream.numpy()

    slope = (value(1e-2) - value(-1e-2)) / 2e-2
    assert layout.gradient(flat, upstream).numpy().astype(np.float64) @ direction == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize("name", ["convnet", "deepnet"])
def test_only_kernels_decay(name):
    network = network_of(name)
    layout = WeightLayout(network)
    kernels = np.concatenate([np.full(weight.size, weight.ndim > 1) for weight in network.get_weights()])
    assert np.array_equal(layout.decayed[: len(kernels)], kernels)
    assert not layout.decayed[len(kernels) :].any()
