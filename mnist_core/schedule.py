"""The learning rate as a pure function of the step, so that a resumed run needs no schedule state."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WARMUP_FRACTION = 0.25
"""Share of the run in which the one-cycle rate rises (Smith and Topin, "Super-convergence", 2017)."""

START_FRACTION, END_FRACTION = 1 / 25, 1e-3
"""The one-cycle rate starts at this share of its peak and ends at that one."""


def learning_rates(
    schedule: str, peak: float, steps: npt.NDArray[np.int64], total_steps: int
) -> npt.NDArray[np.float32]:
    """Compute the rate of each step.

    Args:
        schedule: ``constant`` or ``one-cycle`` (cosine up to the peak, cosine down to almost nothing).
        peak: The constant, or the highest, rate.
        steps: Optimizer steps since the start of the run, from 0, int (S,).
        total_steps: Optimizer steps of the whole run.

    Returns:
        float32 (S,).
    """
    if schedule == "constant":
        return np.full(steps.shape, peak, np.float32)
    done = steps / max(total_steps - 1, 1)
    up = np.clip(done / WARMUP_FRACTION, 0, 1)
    down = np.clip((done - WARMUP_FRACTION) / (1 - WARMUP_FRACTION), 0, 1)
    rising = START_FRACTION + (1 - START_FRACTION) * (1 - np.cos(np.pi * up)) / 2
    falling = END_FRACTION + (1 - END_FRACTION) * (1 + np.cos(np.pi * down)) / 2
    return (peak * np.where(done < WARMUP_FRACTION, rising, falling)).astype(np.float32)
