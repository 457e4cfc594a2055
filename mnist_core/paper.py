"""The paper of an image: what it would show without its ink, shadows included, and whether the ink is the darker of the two.

It is estimated on a small copy, because light changes slowly across a photo. Where the ink is, is in ``mnist_core.ink``.

Three observations make the estimate. What is low and enclosed by higher ground is ink, however thick (a flood from the
image's edge finds it); so is what is low and thin (a morphological closing finds it, also where a shadow's edge crosses
the digit). And of the two readings, dark ink or bright, the right one leaves the smoother paper when its ink is taken
out, and little ink on the image's edge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats: TypeAlias = npt.NDArray[np.float32]

GRID_SIDE: Final = 40
"""Longest side, in cells, of the small copy. 32 to 48 are alike; the time grows with its third power."""

_SMALLEST_SIDE: Final = 4
_FIT_ROUNDS: Final = 6
_SHADED_TONES: Final = 3.0
_STROKE_FRACTION: Final = 0.05  # of the grid's side: half the widest stroke that the closing takes for ink
_EDGE_FRACTION: Final = 0.2  # of the shorter side: half the widest piece of a digit that may touch the image's edge
_INK_FRACTION: Final = 0.2  # of the deepest ink: from there on a cell is not paper
_INK_TONES: Final = 3.0  # less than this is never ink
_EDGE_COST: Final = 3.0
_SPREADS: Final = (1, 2, 4, 8, 16, 100)  # cells


def estimate_paper(tones: npt.NDArray[np.uint8]) -> tuple[bool, Floats]:
    """Estimate the tone that each pixel would have without ink.

    Args:
        tones: uint8 (H, W).

    Returns:
        Whether the ink is darker than the paper, and the paper's tones, float32 (H, W).
    """
    grid = shrink(Image.fromarray(tones))
    surface = fit_surface(grid)
    heights = np.concatenate([grid - surface, surface - grid])  # ink is low in one of the two
    paper = _fill_in(heights, _find_ink(heights))
    roughness = sum(np.abs(np.diff(surface + paper * [[[1]], [[-1]]], axis=axis)).sum((1, 2)) for axis in (1, 2))
    on_edge = np.maximum(paper - heights, 0)[(slice(None), *_edge(grid))].sum(1)
    ink_is_dark, dark_ink_cost = True, roughness + _EDGE_COST * on_edge
    if dark_ink_cost[1] < dark_ink_cost[0]:
        ink_is_dark = False
    best = surface[0] + paper[0] if ink_is_dark else surface[0] - paper[1]
    height, width = tones.shape
    large = Image.fromarray(best.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return ink_is_dark, np.asarray(large)
