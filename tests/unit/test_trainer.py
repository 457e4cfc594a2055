"""The training step against Keras's own optimizers, cut in every way a run may be cut, and in every precision."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from mnist_core.batches import Share, epoch_steps
from mnist_core.config import TrainConfig
from mnist_core.datasets import Split
from mnist_core.trainer import FIXED_POINT, STATE_NAMES, Trainer

PLAIN = {"dropout": 0.0}
EVERYTHING = {
    "dropout": 0.4,
    "augment": "affine",
    "weight_decay": 0.1,
    "label_smoothing": 0.1,
    "ema_decay": 0.9,
}
STEPS_AN_EPOCH = 5
PER_SAMPLE = ("images", "labels", "weights", "keys", "transforms")


def squares(count: int) -> Split:
    """Images with a bright square where their class says, in noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.uint8) % 10
    images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = 4 + 12 * (label // 5), 5 * (label % 5)
        image[top : top + 6, left : left + 6] += 190
    return Split(images, labels)


DATA = squares(53)  # batches of 12, the last one of 5


def make_trainer(**values) -> Trainer:
    config = TrainConfig(**{"recipe": "notebook", "batch_size": 12, "micro_batch_size": 4, **values})
    return Trainer(config, tf.distribute.get_strategy(), Share())


def take_steps(trainer, first=0, last=2 * STEPS_AN_EPOCH, *, per_call=1000, rate=1e-3) -> np.ndarray:
    """Run the optimizer steps from ``first`` to ``last`` of a run; returns their metrics."""
    config = trainer.config.model_copy(update={"steps_per_call": per_call})
    metrics = []
    while first < last:
        epoch, step = divmod(first, STEPS_AN_EPOCH)
        for steps in epoch_steps(DATA, config, trainer.share, epoch=epoch, first_step=step):
            metrics.append(trainer.run(steps, np.full(len(steps.sizes), rate, np.float32), first))
            first += len(steps.sizes)
            if first >= last:
                break
    return np.concatenate(metrics)


def restart(trainer: Trainer, start: dict[str, np.ndarray]) -> Trainer:
    trainer.load_state(start)
    return trainer


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in STATE_NAMES)


def one_step(trainer, index=-1, epoch=0):
    """All micro-batches of one step as one flat batch, padding removed: images, labels, keys."""
    (steps,) = epoch_steps(DATA, trainer.config, Share(), epoch=epoch)
    real = steps.weights[index] > 0
    return steps.images[index][real][..., None].astype(np.float32), steps.labels[index][real], steps.keys[index][real]


@pytest.fixture(scope="module")
def plain():
    trainer = make_trainer(**PLAIN)
    return trainer, trainer.state()


@pytest.fixture(scope="module")
def everything():
    trainer = make_trainer(**EVERYTHING)
    return trainer, trainer.state()


def keras_run(config: TrainConfig, optimizer: keras.optimizers.Optimizer, num_epochs: int) -> np.ndarray:
    """Train with Keras's optimizer on true, unpadded batches; returns the weights as one vector."""
    trainer = Trainer(config, tf.distribute.get_strategy(), Share())
    network = trainer.network
    variables = network.trainable_variables
    for step in range(num_epochs * STEPS_AN_EPOCH):
        images, labels, keys = one_step(trainer, step % STEPS_AN_EPOCH, step // STEPS_AN_EPOCH)
        with tf.GradientTape() as tape:
            logits = network([images, keys], training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            loss = tf.reduce_mean(losses)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
    return np.concatenate([weight.ravel() for weight in network.get_weights()])


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_twenty_steps_are_those_of_keras_adam_and_adamw(weight_decay):
    trainer = make_trainer(weight_decay=weight_decay, dropout=0.5)
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    take_steps(trainer, last=20)
    expected = keras_run(trainer.config, optimizer, num_epochs=4)
    np.testing.assert_allclose(trainer.state()["weights"], expected, rtol=0, atol=1e-6)


def test_only_kernels_decay():
    trainer = make_trainer(network="deepnet", weight_decay=0.5)
    before = trainer.network.get_weights()
    trainer._update(tf.zeros_like(trainer.state()["weights"]), tf.constant(0.1), tf.constant(1.0))
    after = trainer.load_network(trainer.state()["weights"])
    for variable, old, new in zip(after.weights, before, after.get_weights(), strict=True):
        np.testing.assert_allclose(new, old * (0.95 if variable.name == "kernel" else 1), rtol=1e-6)


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


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_shares_sum_to_the_whole_batch_bit_for_bit_whatever_the_number_of_workers(everything, world_size):
    """The update is a function of this sum, so equal sums at every step are equal runs."""
    trainer = restart(*everything)
    shares = [Share(rank, world_size) for rank in range(world_size)]
    for step in range(STEPS_AN_EPOCH):
        sums = []
        for share in [Share(), *shares]:
            (steps,) = epoch_steps(DATA, trainer.config, share, epoch=0)
            sums.append(trainer._sum_gradients(*(getattr(steps, name)[step] for name in PER_SAMPLE)).numpy())
        assert sums[0][:-3].any()
        assert np.array_equal(sum(sums[1:]), sums[0])
        take_steps(trainer, step, step + 1, per_call=1)


@pytest.mark.parametrize("world_size", [2, 3])
def test_evaluation_is_shared_out_exactly(plain, world_size, monkeypatch):
    monkeypatch.setattr("mnist_core.trainer.EVALUATION_BLOCK", 10)
    trainer = restart(*plain)
    whole = trainer.evaluate(DATA)
    parts = []
    for rank in range(world_size):
        monkeypatch.setattr(trainer, "share", Share(rank, world_size))
        parts.append(trainer.evaluate(DATA))
    assert (sum(part[0] for part in parts), sum(part[1] for part in parts)) == whole


@pytest.mark.parametrize("block", [1, 10, 53, 60])
def test_evaluation_counts_every_sample_once_in_blocks_of_any_size(plain, monkeypatch, block):
    monkeypatch.setattr("mnist_core.trainer.EVALUATION_BLOCK", block)
    trainer = restart(*plain)
    network = trainer.load_network(trainer.result_weights())
    images = DATA.images[..., None].astype(np.float32)
    logits = network([images, np.zeros(len(DATA), np.uint32)], training=False).numpy().astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    correct, loss = trainer.evaluate(DATA)
    assert correct == (logits.argmax(axis=1) == DATA.labels).sum()
    assert loss == pytest.approx(-np.log(chances[np.arange(len(DATA)), DATA.labels]).sum(), rel=1e-6)


def test_a_state_taken_anywhere_resumes_bit_for_bit(everything):
    trainer = restart(*everything)
    take_steps(trainer, last=3)
    taken = trainer.state()
    kept = {name: values.copy() for name, values in taken.items()}
    metrics = take_steps(trainer, 3, 10)
    assert same_bits(taken, kept), "a state is a copy"
    other = make_trainer(**EVERYTHING)
    other.load_state(taken)
    assert same_bits(other.state(), taken)
    assert np.array_equal(take_steps(other, 3, 10), metrics)
    assert same_bits(other.state(), trainer.state())


@pytest.mark.parametrize("per_call", [1, 3, 25])
def test_how_steps_are_grouped_into_calls_changes_no_bit(everything, per_call):
    metrics = take_steps(restart(*everything))
    expected = everything[0].state()
    assert np.array_equal(take_steps(restart(*everything), per_call=per_call), metrics)
    assert same_bits(everything[0].state(), expected)


def test_loss_and_right_answers_of_a_step_are_those_of_its_true_batch(plain):
    trainer = restart(*plain)
    network = trainer.load_network(trainer.state()["weights"])
    for index, (loss, correct) in enumerate(take_steps(trainer, last=STEPS_AN_EPOCH, rate=0.0)):
        images, labels, keys = one_step(trainer, index)
        logits = network([images, keys], training=False)
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True).numpy()
        assert loss == pytest.approx(losses.mean(), rel=1e-5)
        assert correct == (logits.numpy().argmax(axis=1) == labels).sum()


def test_label_smoothing_is_that_of_keras():
    trainer = make_trainer(**PLAIN, label_smoothing=0.2)
    images, labels, keys = one_step(trainer, 0)
    logits = trainer.network([images, keys], training=False)
    targets = keras.ops.one_hot(labels, 10)
    smoothed = keras.losses.categorical_crossentropy(targets, logits, from_logits=True, label_smoothing=0.2)
    ((loss, _),) = take_steps(trainer, last=1, per_call=1, rate=0.0)
    assert loss == pytest.approx(smoothed.numpy().mean(), rel=1e-5)


def test_the_average_follows_the_weights_closely_at_first_and_is_what_is_published(everything):
    trainer = restart(*everything)
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
    logits = trainer.network([images[..., None].astype(np.float32), np.zeros(4, np.uint32)], training=False)
    answered = Split(images, logits.numpy().argmax(axis=1).astype(np.uint8))
    (steps,) = epoch_steps(answered, trainer.config, Share(), epoch=0)
    ((loss, correct),) = trainer.run(steps, np.zeros(1, np.float32), 0)
    assert 0 < loss < 2.5
    assert correct == 4
