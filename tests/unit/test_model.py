"""The networks, and their dropout of our own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mnist_core.model import (
    SampleDropout,
    average_logits,
    build_published_model,
    build_training_network,
    carry_weights,
)

NETWORKS = ("convnet", "deepnet", "tinynet")
RATE = 0.3
UNITS = 1600
KEYS = np.random.default_rng(0).integers(0, 2**32, 400, dtype=np.uint32)
SIGMAS = 5


def build(name="convnet", *, seed=0, precision="float32", dropout=0.5, members=1):
    return build_training_network(name, dropout=dropout, precision=precision, seed=seed, members=members)


def masks(keys, *, rate=RATE):
    """Which units stay, bool (N, units), for ones as input."""
    values = np.ones((len(keys), UNITS), np.float32)
    outputs = SampleDropout(rate)([values, keys], training=True).numpy()
    assert set(np.unique(outputs)) == {np.float32(0), np.float32(1) / np.float32(1 - rate)}
    return outputs > 0


def agreement(one, other):
    """How far two sets of masks are from independent, in standard deviations."""
    kept = 1 - RATE
    expected = kept**2 + (1 - kept) ** 2
    return (np.mean(one == other) - expected) / np.sqrt(expected * (1 - expected) / one.size)


def test_the_reference_convnet_has_its_34826_parameters():
    assert build("convnet").count_params() == 34_826
    published = build_published_model("convnet")
    head = [published.get_layer(name).count_params() for name in ("whiten", "cost")]
    assert published.count_params() - sum(head) == 34_826


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_takes_images_and_keys_and_gives_float32_logits(name):
    network = build(name, precision="mixed")
    images, keys = np.zeros((3, 28, 28, 1), np.float32), KEYS[:3, None]
    logits = network([images, keys], training=True)
    assert (logits.shape, logits.dtype) == ((3, 10), "float32")


@pytest.mark.parametrize("name", NETWORKS)
def test_all_that_a_network_learns_is_trainable_so_that_a_flat_vector_holds_it(name):
    assert build(name).non_trainable_variables == []


def test_initial_weights_follow_from_the_seed():
    for one, same, other in zip(*(build("deepnet", seed=seed).get_weights() for seed in (0, 0, 1)), strict=True):
        assert np.array_equal(one, same)
        assert one.ndim == 1 or np.isclose(one, other).mean() < 0.01


def test_layers_of_one_shape_do_not_start_equal():
    kernels = [weight for weight in build("deepnet").get_weights() if weight.ndim == 4]
    # The same generator state would give the same numbers, scaled to each layer's range.
    for one, other in itertools.combinations(kernels, 2):
        count = min(one.size, other.size)
        assert abs(np.corrcoef(one.ravel()[:count], other.ravel()[:count])[0, 1]) < SIGMAS / np.sqrt(count)


def test_members_of_an_ensemble_start_apart_and_the_first_as_a_network_alone():
    alone, ensemble = build(), build(members=3)
    kernels = {layer.name: layer.get_weights()[0] for layer in ensemble.layers if layer.weights}
    assert len(kernels) == 9
    for layer in alone.layers:
        if layer.weights:
            first, *others = (kernels[f"member{member}_{layer.name}"] for member in range(3))
            assert np.array_equal(first, layer.get_weights()[0])
            assert not any(np.isclose(first, other).mean() > 0.01 for other in others)


def test_the_mean_of_probabilities_is_finite_where_all_members_are_certain():
    sure = np.float32([[0, 200, -200, *[0] * 7]])
    assert average_logits([sure]) is sure
    mean = average_logits([sure, sure]).numpy()
    assert np.isfinite(mean).all()
    assert mean.argmax() == 1


@pytest.mark.parametrize("seed", [0, 4_294_968, 2**31 - 1])
def test_every_seed_that_the_configuration_allows_is_taken(seed):
    assert np.isfinite(build(seed=seed).get_weights()[0]).all()


def test_a_dropout_mask_depends_on_the_key_and_not_on_the_place_in_the_batch():
    together = masks(KEYS)
    order = np.random.default_rng(1).permutation(len(KEYS))[:50]
    assert np.array_equal(masks(KEYS[order]), together[order])
    assert np.array_equal(masks(KEYS[7:8]), together[7:8])


def test_dropout_drops_its_share_of_every_sample_and_every_unit():
    dropped = ~masks(KEYS)
    deviation = np.sqrt(RATE * (1 - RATE))
    for axis in (None, 0, 1):
        shares = dropped.mean(axis=axis)
        assert np.abs(shares - RATE).max() < SIGMAS * deviation / np.sqrt(dropped.size / shares.size)


def test_masks_of_neighbouring_keys_and_units_are_independent():
    kept = masks(KEYS)
    assert abs(agreement(kept, masks(KEYS + np.uint32(1)))) < SIGMAS
    assert abs(agreement(kept[:, 1:], kept[:, :-1])) < SIGMAS
    assert abs(agreement(kept[1:], kept[:-1])) < SIGMAS


def test_dropout_keeps_the_values_it_does_not_drop_scaled_and_passes_gradients_there_only():
    import tensorflow as tf

    values = tf.constant(np.random.default_rng(2).normal(size=(4, UNITS)).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(values)
        outputs = SampleDropout(RATE)([values, KEYS[:4]], training=True)
        total = tf.reduce_sum(outputs)
    expected = masks(KEYS[:4]) / np.float32(1 - RATE)
    np.testing.assert_allclose(outputs, expected * values, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(total, values), expected, rtol=1e-6)


@pytest.mark.parametrize(("rate", "training"), [(RATE, False), (0.0, True)], ids=["inference", "rate 0"])
def test_dropout_is_off(rate, training):
    values = np.random.default_rng(3).normal(size=(4, UNITS)).astype(np.float32)
    assert np.array_equal(SampleDropout(rate)([values, KEYS[:4]], training=training), values)


@pytest.mark.parametrize("precision", ["float32", "mixed", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_published_weights_are_float32_and_those_of_the_network(name, precision):
    network, published = build(name, precision=precision), build_published_model(name)
    carry_weights(network, published)
    assert {np.dtype(weight.dtype) for weight in published.weights} == {np.dtype(np.float32)}
    assert np.array_equal(
        published.get_layer("logits").get_weights()[0],
        network.get_layer("logits").get_weights()[0].astype(np.float32),
    )


def test_a_published_model_says_how_probable_each_digit_is_and_how_strange_the_image():
    outputs = build_published_model("convnet")(np.zeros((3, 28, 28), np.uint8))
    assert {name: (tuple(values.shape), values.dtype) for name, values in outputs.items()} == {
        "probabilities": ((3, 10), "float32"),
        "strangeness": ((3,), "float32"),
    }
