"""The training loop: what it reports, that it can start anywhere, and that it stops when a loss is no number."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mnist_core.batches import Share
from mnist_core.config import TrainConfig
from mnist_core.datasets import Split, load_dataset
from mnist_core.errors import DatasetError, DivergedError
from mnist_core.schedule import learning_rates
from mnist_core.trainer import Trainer
from mnist_core.training import EpochReport, Progress, hold_out, load_training_data, train

RNG = np.random.default_rng(0)
EPOCHS, STEPS_AN_EPOCH = 2, 5
NEW = Progress()


def noise(count: int) -> Split:
    return Split(RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10)


TRAINING, VALIDATION = noise(37), noise(13)  # batches of 8, the last one of 5


def make_trainer(**values) -> Trainer:
    values = {"recipe": "notebook", "epochs": EPOCHS, "batch_size": 8, "schedule": "one-cycle"} | values
    return Trainer(TrainConfig(**values), tf.distribute.get_strategy(), Share())


@pytest.fixture(scope="module")
def trainer():
    return make_trainer(steps_per_call=2, ema_decay=0.5)


@pytest.fixture(scope="module")
def start(trainer):
    return trainer.state()


@pytest.fixture(scope="module")
def undisturbed(trainer, start):
    """One whole run: (progress, trainer's state) wherever somebody is told, and whether it is the end of an epoch."""
    trainer.load_state(start)
    told = []

    def tell(progress: Progress, is_end: bool = False) -> None:
        told.append((progress, trainer.state(), is_end))

    for progress in train(trainer, TRAINING, VALIDATION, NEW, tell):
        tell(progress, is_end=True)
    return told


def no_seconds(progress: Progress) -> Progress:
    history = tuple(replace(report, seconds=0.0) for report in progress.history)
    return replace(progress, seconds=0.0, history=history)


def collect(trainer, progress=NEW):
    """Train on; returns the last progress and where ``on_call`` was told."""
    told = []
    *_, ended = train(trainer, TRAINING, VALIDATION, progress, told.append)
    return ended, told


def test_somebody_is_told_after_every_call_and_an_epoch_ends_with_its_report(undisturbed):
    places = [(progress.epoch, progress.step, is_end) for progress, _, is_end in undisturbed]
    assert places == [(0, 2, False), (0, 4, False), (1, 0, True), (1, 2, False), (1, 4, False), (2, 0, True)]
    for progress, _, is_end in undisturbed:
        assert [report.epoch for report in progress.history] == list(range(1, progress.epoch + 1))
        assert is_end == (progress.loss_sum == progress.correct == progress.seconds == 0)


@pytest.mark.parametrize("place", range(5))
def test_a_run_that_starts_anywhere_ends_bit_for_bit_like_the_undisturbed_one(trainer, undisturbed, place):
    progress, state, _ = undisturbed[place]
    expected, last_state, _ = undisturbed[-1]
    trainer.load_state(state)
    ended, told = collect(trainer, Progress.from_dict(json.loads(json.dumps(progress.to_dict()))))
    assert no_seconds(ended) == no_seconds(expected)
    for name, values in trainer.state().items():
        assert values.tobytes() == last_state[name].tobytes()
    later = [no_seconds(other) for other, _, is_end in undisturbed[place + 1 :] if not is_end]
    assert [no_seconds(other) for other in told] == later


def test_seconds_go_on_counting_over_a_restart(trainer, undisturbed):
    progress, state, _ = undisturbed[1]
    trainer.load_state(state)
    ended, _ = collect(trainer, replace(progress, seconds=1000.0))
    assert ended.history[0].seconds > 1000
    assert 0 < ended.history[1].seconds < 1000


def test_a_finished_run_has_nothing_left_to_do(trainer, undisturbed):
    progress, _, _ = undisturbed[-1]
    assert list(train(trainer, TRAINING, VALIDATION, progress, pytest.fail)) == []


def test_reports_hold_the_rate_of_the_epoch_s_last_step_and_exact_validation(trainer, undisturbed):
    last_steps = np.array([STEPS_AN_EPOCH - 1, 2 * STEPS_AN_EPOCH - 1])
    rates = learning_rates("one-cycle", trainer.config.learning_rate, last_steps, EPOCHS * STEPS_AN_EPOCH)
    ends = [(progress, state) for progress, state, is_end in undisturbed if is_end]
    for (progress, state), rate in zip(ends, rates.tolist(), strict=True):
        report = progress.history[-1]
        assert report.learning_rate == rate
        trainer.load_state(state)
        correct, loss = trainer.evaluate(VALIDATION)
        assert report.validation_accuracy == correct / 13
        assert report.validation_loss == loss / 13


def test_every_call_is_told_its_place_in_the_run_and_the_rates_of_its_steps(trainer, start, monkeypatch):
    calls, run = [], trainer.run

    def record(steps, rates, first_step):
        calls.append((first_step, rates))
        return run(steps, rates, first_step)

    monkeypatch.setattr(trainer, "run", record)
    trainer.load_state(start)
    collect(trainer)
    every_step = np.arange(EPOCHS * STEPS_AN_EPOCH)
    expected = learning_rates("one-cycle", trainer.config.learning_rate, every_step, len(every_step))
    assert [first_step for first_step, _ in calls] == [0, 2, 4, 5, 7, 9]
    assert np.array_equal(np.concatenate([rates for _, rates in calls]), expected)


def test_a_reported_training_loss_is_the_mean_over_all_samples():
    trainer = make_trainer(dropout=0.0, learning_rate=1e-12, epochs=1, steps_per_call=5)
    correct, loss = trainer.evaluate(TRAINING)  # the same before and after: nothing is learned at such a rate
    ended, told = collect(trainer)
    (report,) = ended.history
    assert told == [], "one call was all of the epoch"
    assert report.train_loss == pytest.approx(loss / 37, rel=1e-6)
    assert report.train_accuracy == correct / 37


def test_a_reported_training_accuracy_is_the_mean_of_what_the_members_of_an_ensemble_have_alone():
    trainer = make_trainer(dropout=0.0, learning_rate=1e-12, epochs=1, steps_per_call=5, ensemble=2)
    network = trainer.load_network(trainer.state()["weights"])
    seen = np.repeat(TRAINING.images[..., None], 2, axis=-1).astype(np.float32)
    outputs = network([seen, np.zeros((37, 2), np.uint32)], training=False)
    right = [(logits.numpy().argmax(axis=1) == TRAINING.labels).sum() for logits in outputs]
    ended, _ = collect(trainer)
    assert ended.history[0].train_accuracy == sum(right) / (2 * 37)


def test_how_steps_are_grouped_into_calls_changes_no_report(undisturbed):
    trainer = make_trainer(steps_per_call=3, ema_decay=0.5)
    ended, told = collect(trainer)
    assert no_seconds(ended) == no_seconds(undisturbed[-1][0])
    assert [(progress.epoch, progress.step) for progress in told] == [(0, 3), (1, 3)]


@pytest.mark.parametrize("place", [0, 2], ids=["in epoch 1", "at the end of epoch 1"])
def test_a_loss_that_is_no_number_stops_the_run_and_says_where(trainer, undisturbed, place):
    progress, state, _ = undisturbed[place]
    trainer.load_state({**state, "weights": np.full_like(state["weights"], np.nan)})
    where = f"epoch {progress.epoch + 1}, step {progress.step + 1}"
    with pytest.raises(DivergedError, match=rf"the loss is nan at {where}; .* lower --learning-rate"):
        next(train(trainer, TRAINING, VALIDATION, progress, pytest.fail))


def test_the_step_that_diverged_is_named_and_not_the_call():
    trainer = make_trainer(learning_rate=1e38, schedule="constant", steps_per_call=5)
    with pytest.raises(DivergedError, match="at epoch 1, step 2;"):
        next(train(trainer, TRAINING, VALIDATION, NEW, pytest.fail))


def test_a_last_update_that_ruins_the_weights_is_divergence_too():
    """The loss of the epoch's only step was fine: nobody would know but for the validation."""
    trainer = make_trainer(learning_rate=1e38, schedule="constant", batch_size=37, epochs=1)
    with pytest.raises(DivergedError, match=r"validation loss is .* after epoch 1"):
        next(train(trainer, TRAINING, VALIDATION, NEW, pytest.fail))


def report(epoch, accuracy):
    return EpochReport(epoch, 0.5, 0.8, 0.4, accuracy, 1e-3, 9.0)


def test_the_best_epoch_is_the_first_with_the_highest_validation_accuracy():
    history = tuple(report(epoch, accuracy) for epoch, accuracy in enumerate([0.7, 0.9, 0.8, 0.9], start=1))
    assert Progress(history=history).best.epoch == 2


def test_the_epoch_to_publish_is_the_best_or_the_last_one():
    progress = Progress(history=tuple(report(epoch, 1 / epoch) for epoch in (1, 2, 3)))
    assert (progress.selected("best").epoch, progress.selected("last").epoch) == (1, 3)


def test_what_is_trained_on_is_cut_from_the_training_split_alone():
    splits, facts = load_training_data(TrainConfig(dataset="uci-digits", validation_fraction=0.25))
    assert {name: len(split) for name, split in splits.items()} == {"train": 1078, "validation": 359, "test": 360}
    dataset = load_dataset("uci-digits")
    assert np.array_equal(splits["test"].images, dataset.test.images)
    counts = {"train": 1078, "validation": 359, "test": 360}
    assert facts == {"name": "uci-digits", "source": "embedded", "sha256": dataset.sha256, **counts}


@pytest.mark.parametrize(("count", "sizes"), [(60, (45, 5, 10)), (3, (1, 1, 1))])
def test_a_dataset_with_one_split_has_a_test_set_held_out(tmp_path, count, sizes):
    save_class_folders(tmp_path, noise(count))
    splits, _ = load_training_data(TrainConfig(dataset=str(tmp_path), validation_fraction=0.1))
    assert tuple(len(splits[name]) for name in ("train", "validation", "test")) == sizes
    assert len({image.tobytes() for split in splits.values() for image in split.images}) == count


def test_too_few_images_are_refused(tmp_path):
    save_class_folders(tmp_path, noise(2))
    with pytest.raises(DatasetError, match="2 images are too few to train on; expected at least 3"):
        load_training_data(TrainConfig(dataset=str(tmp_path), validation_fraction=0.1))


def save_class_folders(folder, data):
    for index, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{index}.png")


def test_progress_survives_json_exactly():
    progress = Progress(3, 17, 0.1 + 0.2, 12, math.pi, (report(1, 1 / 3), report(2, 2 / 3)))
    assert Progress.from_dict(json.loads(json.dumps(progress.to_dict()))) == progress
    assert Progress.from_dict(Progress().to_dict()) == Progress()


def marked(count: int) -> Split:
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(count)
    return Split(images, np.arange(count, dtype=np.uint8) % 10)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(2, 250), st.floats(0.001, 0.899), st.integers(0, 2**31 - 1))
def test_a_held_out_share_is_exact_disjoint_and_complete(count, fraction, seed):
    rest, held = hold_out(marked(count), fraction, seed)
    assert len(held) == min(max(1, round(count * fraction)), count - 1), "neither part is empty"
    for part in (rest, held):
        assert np.array_equal(part.labels, part.images[:, 0, 0] % 10)
        assert (np.diff(part.images[:, 0, 0].astype(int)) > 0).all(), "in the order of the source"
    assert sorted([*rest.images[:, 0, 0], *held.images[:, 0, 0]]) == list(range(count))


def test_what_is_held_out_follows_from_seed_and_draw():
    def held(seed, draw=0):
        return set(hold_out(marked(200), 0.25, seed, draw)[1].images[:, 0, 0].tolist())

    assert held(1) == held(1)
    for other in (held(2), held(1, draw=1)):
        assert 3 < len(held(1) & other) < 25  # 12.5 expected of independent draws
