"""The training step against Keras's own optimizers and losses, in every precision, and when it goes wrong."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from small_run import DATA, PER_SAMPLE, PLAIN, STEPS_AN_EPOCH, make_trainer, restart, take_steps

from mnist_core.batches import Share, epoch_steps
from mnist_core.config import TrainConfig
from mnist_core.datasets import Split
from mnist_core.distortion import distort
from mnist_core.trainer import FIXED_POINT, Trainer


def one_step(trainer, index=-1, epoch=0):
    """All micro-batches of one step as one flat batch, padding removed: images, labels, keys."""
    (steps,) = epoch_steps(DATA, trainer.config, Share(), epoch=epoch)
    real = steps.weights[index] > 0
    images, labels, keys = (values[index][:, 0][real] for values in (steps.images, steps.labels, steps.keys))
    return images[..., None].astype(np.float32), labels, keys[:, None]


@pytest.fixture(scope="module")
def plain():
    trainer = make_trainer(**PLAIN)
    return trainer, trainer.state()


def keras_run(config: TrainConfig, optimizer: keras.optimizers.Optimizer, num_epochs: int) -> np.ndarray:
    """Train with Keras's optimizer on true, unpadded batches; returns the weights as one vector."""
    trainer = Trainer(config, tf.distribute.get_strategy(), Share())
    network = trainer.network
    variables = network.trainable_variables

    @tf.function
    def gradients(images, labels, keys):
        with tf.GradientTape() as tape:
            logits = network([images, keys], training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(losses)
        return tape.gradient(loss, variables)

    for step in range(num_epochs * STEPS_AN_EPOCH):
        batch = one_step(trainer, step % STEPS_AN_EPOCH, step // STEPS_AN_EPOCH)
        optimizer.apply_gradients(zip(gradients(*map(tf.constant, batch)), variables, strict=True))
    return np.concatenate([weight.ravel() for weight in network.get_weights()])


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_twenty_steps_are_those_of_keras_adam_and_adamw(weight_decay):
    trainer = make_trainer(weight_decay=weight_decay, dropout=0.5)
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    take_steps(trainer, last=20)
    expected = keras_run(trainer.config, optimizer, num_epochs=4)
    np.testing.assert_allclose(trainer.state()["weights"], expected, rtol=0, atol=1e-6)


def test_the_gradient_of_a_padded_batch_is_that_of_the_true_short_batch(plain):
    trainer = restart(*plain)
    (steps,) = epoch_steps(DATA, trainer.config, Share(), epoch=0)
    padded = trainer._sum_gradients(*(getattr(steps, name)[-1] for name in PER_SAMPLE)).numpy()[:-3] / FIXED_POINT
    images, labels, keys = one_step(trainer)
    assert len(labels) == 5
    network = trainer.load_network(trainer.state()["weights"])
    with tf.GradientTape() as tape:
        logits = network([images, keys], training=True)
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))
    true = np.concatenate([part.numpy().ravel() for part in tape.gradient(loss, network.trainable_variables)])
    np.testing.assert_allclose(padded, true, rtol=0, atol=1e-7)


def test_loss_and_right_answers_of_a_step_are_those_of_its_true_batch(plain):
    trainer = restart(*plain)
    network = trainer.load_network(trainer.state()["weights"])
    for index, (loss, correct) in enumerate(take_steps(trainer, last=STEPS_AN_EPOCH, rate=0.0)):
        images, labels, keys = one_step(trainer, index)
        logits = network([images, keys], training=False)
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True).numpy()
        assert loss == pytest.approx(losses.mean(), rel=1e-5)
        assert correct == (logits.numpy().argmax(axis=1) == labels).sum()


def test_augmentation_reads_each_image_through_its_own_map():
    trainer = make_trainer(**PLAIN, augment="affine")
    images, labels, keys = one_step(trainer, 0)
    (steps,) = epoch_steps(DATA, trainer.config, Share(), epoch=0)
    for image, (a0, a1, a2, b0, b1, b2, *_) in zip(images[..., 0], steps.transforms[0].reshape(-1, 8), strict=True):
        # SciPy counts rows first, so y comes before x.
        image[:] = ndimage.affine_transform(image, [[b1, b0], [a1, a0]], [b2, a2], order=1, mode="grid-constant")
    logits = trainer.network([images, keys], training=False)
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True).numpy()
    ((loss, _),) = take_steps(trainer, last=1, per_call=1, rate=0.0)
    assert loss == pytest.approx(losses.mean(), rel=1e-5)


def test_label_smoothing_is_that_of_keras():
    trainer = make_trainer(**PLAIN, label_smoothing=0.2)
    images, labels, keys = one_step(trainer, 0)
    logits = trainer.network([images, keys], training=False)
    targets = keras.ops.one_hot(labels, 10)
    smoothed = keras.losses.categorical_crossentropy(targets, logits, from_logits=True, label_smoothing=0.2)
    ((loss, _),) = take_steps(trainer, last=1, per_call=1, rate=0.0)
    assert loss == pytest.approx(smoothed.numpy().mean(), rel=1e-5)


def test_members_of_an_ensemble_learn_as_if_they_were_alone():
    """The first has the initial weights and the dropout of a network alone, so it ends with that one's weights."""
    settings = {"dropout": 0.5, "weight_decay": 0.1, "network": "tinynet", "augment": "affine"}
    alone, ensemble = (make_trainer(**settings, ensemble=members) for members in (1, 2))
    (first_loss, _), (both_loss, _) = (take_steps(trainer, last=6)[0] for trainer in (alone, ensemble))
    assert first_loss == pytest.approx(both_loss, rel=0.2)  # their mean, not their sum
    network = alone.load_network(alone.result_weights())
    members = ensemble.load_network(ensemble.result_weights())
    layers = [layer for layer in network.layers if layer.weights]
    for layer in layers:
        first, second = (members.get_layer(f"member{member}_{layer.name}").get_weights() for member in (0, 1))
        np.testing.assert_allclose(first[0], layer.get_weights()[0], rtol=0, atol=1e-6)
        assert not np.allclose(second[0], layer.get_weights()[0], rtol=0, atol=1e-3)
    assert len(layers) == 5


def test_each_member_learns_from_its_own_images_labels_and_keys():
    trainer = make_trainer(dropout=0.5, ensemble=3)
    network = trainer.load_network(trainer.state()["weights"])
    (steps,) = epoch_steps(DATA, trainer.config, Share(), epoch=0)
    real = steps.weights[0] > 0
    images, labels, keys = (
        [values[0][:, member][real] for member in range(3)] for values in (steps.images, steps.labels, steps.keys)
    )
    outputs = network([np.stack(images, axis=-1).astype(np.float32), np.stack(keys, axis=-1)], training=True)
    losses = [
        keras.losses.sparse_categorical_crossentropy(own, logits, from_logits=True).numpy().mean()
        for own, logits in zip(labels, outputs, strict=True)
    ]
    ((loss, correct),) = take_steps(trainer, last=1, per_call=1, rate=0.0)
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert correct == sum(
        (logits.numpy().argmax(axis=1) == own).sum() for own, logits in zip(labels, outputs, strict=True)
    )


def test_every_other_member_sees_no_image_that_is_spoiled():
    trainer = make_trainer(**PLAIN, augment="wild", ensemble=3, micro_batch_size=12)
    (steps,) = epoch_steps(DATA, trainer.config, Share(), epoch=0)
    images, transforms, keys = (values[0, 0] for values in (steps.images, steps.transforms, steps.keys))
    seen = trainer._pixels(tf.constant(images), tf.constant(transforms), tf.constant(keys)).numpy()
    for member, wild in enumerate([True, False, True]):
        own = [tf.constant(values[member]) for values in (images, transforms, keys)]
        assert np.array_equal(seen[..., member], distort(*own, wild=wild)[..., 0])
        assert not np.array_equal(seen[..., member], distort(*own, wild=not wild)[..., 0])


def test_an_ensemble_is_evaluated_by_the_mean_of_its_probabilities():
    trainer = make_trainer(**PLAIN, ensemble=3)
    take_steps(trainer, last=5)
    network = trainer.load_network(trainer.result_weights())
    seen = np.repeat(DATA.images[..., None], 3, axis=-1).astype(np.float32)
    outputs = network([seen, np.zeros((len(DATA), 3), np.uint32)], training=False)
    mean = np.mean([keras.ops.softmax(logits) for logits in outputs], axis=0)
    correct, loss = trainer.evaluate(DATA)
    assert correct == (mean.argmax(axis=1) == DATA.labels).sum()
    assert loss == pytest.approx(-np.log(mean[np.arange(len(DATA)), DATA.labels]).sum(), rel=1e-5)


def test_the_average_follows_the_weights_closely_at_first_and_is_what_is_published():
    trainer = make_trainer(ema_decay=0.9)
    average = trainer.state()["weights"]
    for step in range(10):
        take_steps(trainer, step, step + 1, per_call=1)
        decay = min(0.9, (2 + step) / (11 + step))
        average = decay * average + (1 - decay) * trainer.state()["weights"]
    np.testing.assert_allclose(trainer.state()["average"], average, rtol=0, atol=1e-6)
    assert np.array_equal(trainer.result_weights(), trainer.state()["average"])
    assert not np.allclose(trainer.result_weights(), trainer.state()["weights"], rtol=0, atol=1e-4)


def test_without_an_average_the_last_weights_are_published(plain):
    trainer = restart(*plain)
    take_steps(trainer, last=2, per_call=2)
    assert np.array_equal(trainer.result_weights(), trainer.state()["weights"])
    loaded = trainer.load_network(trainer.result_weights()).get_weights()
    assert np.array_equal(np.concatenate([weight.ravel() for weight in loaded]), trainer.result_weights())


def test_float32_learns(plain):
    trainer = restart(*plain)
    metrics = take_steps(trainer, last=25, rate=3e-3)
    assert metrics[0, 0] > 2
    assert metrics[-1, 0] < 0.5
    assert trainer.evaluate(DATA)[0] > 45


@pytest.mark.parametrize("precision", ["mixed", "bfloat16"])
def test_a_lower_precision_is_really_used_and_learns_too(plain, precision):
    exact = take_steps(restart(*plain), last=1, per_call=1)
    trainer = make_trainer(**PLAIN, precision=precision, micro_batch_size=12)
    rough = take_steps(trainer, last=25, rate=3e-3)
    assert rough[0, 0] != exact[0, 0]
    assert rough[0, 0] == pytest.approx(exact[0, 0], rel=0.05)
    assert rough[-1, 0] < 0.5
    assert trainer.evaluate(DATA)[0] > 45
    assert {values.dtype for values in trainer.state().values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_weights_that_are_no_good_make_a_loss_that_is_no_number(plain, bad):
    trainer, start = plain
    trainer.load_state({**start, "weights": np.full_like(start["weights"], bad)})
    metrics = take_steps(trainer, last=2, per_call=2)
    assert np.isnan(metrics[:, 0]).all()
    assert np.isnan(trainer.evaluate(DATA)[1])


def test_many_right_answers_in_one_micro_batch_are_no_divergence(monkeypatch):
    """The limit is on the terms of sums, not on counts; real micro-batches of 1,000 would take long."""
    monkeypatch.setattr("mnist_core.trainer.LARGEST_TERM", 3.5)
    trainer = make_trainer(**PLAIN, batch_size=4)
    images = DATA.images[:4]
    logits = trainer.network([images[..., None].astype(np.float32), np.zeros((4, 1), np.uint32)], training=False)
    answered = Split(images, logits.numpy().argmax(axis=1).astype(np.uint8))
    (steps,) = epoch_steps(answered, trainer.config, Share(), epoch=0)
    ((loss, correct),) = trainer.run(steps, np.zeros(1, np.float32), 0)
    assert 0 < loss < 2.5
    assert correct == 4
