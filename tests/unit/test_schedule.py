"""The learning rate as a function of the step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_core.schedule import END_FRACTION, START_FRACTION, WARMUP_FRACTION, learning_rates

PEAK = 3e-3
reproducible = settings(deadline=None, derandomize=True)


def one_cycle(total_steps: int) -> np.ndarray:
    return learning_rates("one-cycle", PEAK, np.arange(total_steps), total_steps)


def test_a_constant_rate_is_the_same_at_every_step():
    rates = learning_rates("constant", PEAK, np.arange(5), 5)
    assert rates.dtype == np.float32
    assert rates.tolist() == [np.float32(PEAK)] * 5


def test_one_cycle_starts_low_reaches_its_peak_after_the_warm_up_and_ends_near_zero():
    rates = one_cycle(401)
    assert rates.dtype == np.float32
    assert rates[0] == pytest.approx(PEAK * START_FRACTION)
    assert rates.max() == rates[round(400 * WARMUP_FRACTION)] == pytest.approx(PEAK)
    assert rates[-1] == pytest.approx(PEAK * END_FRACTION)


@pytest.mark.parametrize("total_steps", [2, 3, 10, 401, 4690])
def test_one_cycle_rises_to_one_peak_and_falls_from_there(total_steps):
    rates = one_cycle(total_steps)
    top = int(rates.argmax())
    # Neighbours may round to the same float32 where the curve is flat.
    assert (np.diff(rates[: top + 1]) >= 0).all()
    assert (np.diff(rates[top:]) <= 0).all()
    assert rates[0] < rates[top] > rates[-1] or total_steps == 2


def test_one_cycle_is_smooth():
    changes = np.diff(one_cycle(4001).astype(np.float64))
    # A half cosine over n steps changes by at most pi / 2n a step, and never all at once.
    assert np.abs(changes).max() <= PEAK * np.pi / 2 / (4000 * WARMUP_FRACTION)
    assert np.abs(np.diff(changes)).max() < PEAK * 1e-5


def test_a_run_of_one_step_has_a_rate():
    assert 0 < one_cycle(1)[0] <= PEAK


@reproducible
@given(st.integers(1, 500), st.data())
def test_a_rate_depends_on_its_step_alone(total_steps, data):
    steps = np.array(data.draw(st.lists(st.integers(0, total_steps - 1), min_size=1)))
    assert np.array_equal(learning_rates("one-cycle", PEAK, steps, total_steps), one_cycle(total_steps)[steps])
