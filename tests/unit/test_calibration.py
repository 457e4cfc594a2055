"""Confidence is honest, and what is no digit is told from what is: the arithmetic, on numbers made for it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from mnist_core import calibration as calibration_module
from mnist_core.calibration import Observation, calibrate, disturb, fit_temperature, softmax

CHANNELS = 12


def observe(count=4000, *, seed=0, digits=10):
    """Textures around a mean of each digit, and logits that mostly know it."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, digits, count).astype(np.uint8)
    means = np.random.default_rng(99).uniform(1, 2, (10, CHANNELS))
    mixing = np.random.default_rng(98).normal(size=(CHANNELS, CHANNELS)) / 10
    textures = means[labels] + rng.normal(size=(count, CHANNELS)) @ mixing
    logits = 6.0 * (np.arange(10) == labels[:, None]) + rng.normal(size=(count, 10))
    return Observation(textures.astype(np.float32), logits.astype(np.float32), labels)


def strangeness(calibration, seen):
    """The published model's head, in numpy."""
    whitened = seen.textures @ calibration.whiten[0] + calibration.whiten[1]
    logits = seen.logits / calibration.temperature
    costs = np.concatenate([whitened**2, whitened, logits], axis=1) @ calibration.cost[0] + calibration.cost[1]
    return costs.min(axis=1)


def draw_labels(logits, seed=3):
    """Labels that are as probable as a softmax of the logits says."""
    cumulative = softmax(logits).cumsum(axis=1)
    return (
        (np.random.default_rng(seed).uniform(size=(len(logits), 1)) > cumulative[:, :-1]).sum(axis=1).astype(np.uint8)
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_again(temperature):
    honest = np.random.default_rng(2).normal(size=(20_000, 10)) * 2
    labels = draw_labels(honest)
    assert fit_temperature((honest * temperature).astype(np.float32), labels) == pytest.approx(temperature, rel=0.03)


def test_no_other_temperature_makes_the_labels_more_likely():
    logits = np.random.default_rng(4).normal(size=(500, 10)).astype(np.float32) * 3
    labels = draw_labels(logits * 0.7)

    def loss(temperature):
        return -np.log(softmax(logits / temperature)[np.arange(500), labels]).mean()

    best = fit_temperature(logits, labels)
    assert loss(best) < min(loss(best * 1.01), loss(best / 1.01))


@pytest.mark.parametrize(("right", "bound"), [(True, 0.2), (False, 5.0)])
def test_the_temperature_has_bounds_where_every_answer_is_right_or_wrong(right, bound):
    logits = np.eye(10, dtype=np.float32)
    labels = np.arange(10, dtype=np.uint8)
    assert fit_temperature(logits, labels if right else labels[::-1].copy()) == pytest.approx(bound)


def test_half_a_percent_of_the_validation_digits_is_rejected_and_the_median_is_not_strange():
    validation = observe(seed=1)
    values = strangeness(calibrate(observe(), validation), validation)
    assert (values > 1).mean() == pytest.approx(0.005, abs=0.0005)
    assert np.median(values) == pytest.approx(0, abs=1e-3)


def test_new_digits_are_rejected_about_as_often():
    values = strangeness(calibrate(observe(), observe(seed=1)), observe(20_000, seed=2))
    assert 0.002 < (values > 1).mean() < 0.01


def test_an_unknown_texture_is_rejected_though_the_logits_know_a_digit():
    seen = observe(seed=1)
    odd = Observation(seen.textures + 1, seen.logits, seen.labels)
    assert (strangeness(calibrate(observe(), seen), odd) > 1).mean() > 0.99


def test_logits_that_know_no_digit_are_rejected_though_the_texture_is_a_digits():
    seen = observe(seed=1)
    unsure = Observation(seen.textures, seen.logits - 4 * (seen.logits > 3), seen.labels)
    assert (strangeness(calibrate(observe(), seen), unsure) > 1).mean() > 0.5


def test_a_filter_that_no_digit_wakes_gives_away_what_does():
    training, validation = observe(), observe(seed=1)
    for seen in (training, validation):
        seen.textures[:, 0] = 0
    calibration = calibrate(training, validation)
    assert (strangeness(calibration, validation) > 1).mean() < 0.006
    validation.textures[:, 0] = 0.5
    assert (strangeness(calibration, validation) > 1).all()


def test_a_digit_that_the_training_images_lack_is_no_error():
    values = strangeness(calibrate(observe(digits=3), observe(seed=1, digits=3)), observe(seed=2, digits=3))
    assert (values > 1).mean() < 0.02


def test_one_validation_image_is_enough_for_a_number():
    assert np.isfinite(strangeness(calibrate(observe(50), observe(1, seed=1)), observe(seed=2))).all()


def test_the_fit_is_computed_by_one_thread_whatever_else_is_set(monkeypatch):
    """The last bits of a product may depend on the number of threads, though on few machines they do."""
    seen, fit = [], calibration_module._fit_costs

    def watched(*arguments):
        seen.extend(pool["num_threads"] for pool in threadpool_info())
        return fit(*arguments)

    monkeypatch.setattr(calibration_module, "_fit_costs", watched)
    with threadpool_limits(2):
        assert 2 in [pool["num_threads"] for pool in threadpool_info()], "else a limit of 1 shows nothing"
        calibrate(observe(), observe(seed=1))
    assert seen
    assert set(seen) == {1}


def test_the_fit_takes_a_few_copies_of_the_textures_and_not_one_for_each_digit():
    training, validation = observe(100), observe(20_000, seed=1)
    copy = validation.textures.nbytes * 2  # in float64
    tracemalloc.start()
    try:
        calibrate(training, validation)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * copy


DIGITS = np.zeros((300, 28, 28), np.uint8)
DIGITS[:, 10:18, 12:15] = 255


def test_disturbed_digits_follow_from_the_seed():
    assert np.array_equal(disturb(DIGITS, 1), disturb(DIGITS, 1))
    assert not np.array_equal(disturb(DIGITS, 1), disturb(DIGITS, 2))


def test_no_two_digits_are_disturbed_alike_and_none_is_lost():
    disturbed = disturb(DIGITS, 0)
    assert (disturbed.shape, disturbed.dtype) == (DIGITS.shape, np.uint8)
    assert len({image.tobytes() for image in disturbed}) == len(DIGITS)
    ink = disturbed.sum(axis=(1, 2)) / DIGITS[0].sum()
    assert 0.6 * 0.7 < ink.min() < ink.max() < 1.4  # dimmed to 0.6 at most, stretched by an eighth each way


def test_a_third_of_the_disturbed_digits_stays_sharp_and_the_brightest_pixel_is_dimmed_to_between_0_6_and_1():
    bright = disturb(DIGITS, 0).max(axis=(1, 2)) / 255
    assert bright.min() > 0.3
    assert 0.99 < bright.max() <= 1


def test_what_is_black_stays_black_and_what_leaves_the_image_is_gone():
    assert not disturb(np.zeros((50, 28, 28), np.uint8), 0).any()
    full = disturb(np.full((50, 28, 28), 255, np.uint8), 0)
    assert (full[:, 0, 0] < full[:, 14, 14]).mean() > 0.5
