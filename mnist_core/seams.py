"""Where touching digits may be cut apart: ways from top to bottom through as little ink as possible.

A way goes down one row a step and aside by one column at most, so that it follows slanted digits and passes between
digits that overhang each other (least-ink paths by dynamic programming, as seam carving has them; Avidan and Shamir,
2007). Which of the ways are right is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_INKED: Final = 0.5
_ASIDE: Final = 0.05
"""What a step aside costs, in pixels of ink: else a way would wander through paper without need."""


@dataclass(frozen=True, eq=False)
class Seams:
    """Ways through a piece of ink, from left to right.

    Attributes:
        ways: The first column to the right of each in every row, intp (N, height).
        ink: Pixels of ink that each goes through, floats (N,).
        lower: Rows from top to bottom of the ink on its one side or the other, whichever has fewer, intp (N,).
    """

    ways: npt.NDArray[np.intp]
    ink: npt.NDArray[Any]
    lower: npt.NDArray[np.intp]


def find_seams(ink: npt.NDArray[Any], *, apart: int, most_ink: float, lowest: float) -> Seams:
    """Find the ways through the least ink.

    Args:
        ink: Floats (height, width), 0 to 1: one piece of ink.
        apart: Least columns from one way to the next, in the middle row.
        most_ink: Ways through more than so many pixels of ink are left out.
        lowest: Ways with ink of fewer rows than so many on one of their sides are left out.
    """
    height, width = ink.shape
    middle = height // 2
    above, from_above = _descend(ink[: middle + 1])
    below, from_below = _descend(ink[middle:][::-1])
    costs = above + below - ink[middle]
    # The cheapest way through each pixel of the middle row.
    ways = np.concatenate([_follow(from_above)[:, ::-1], _follow(from_below)[:, 1:]], axis=1)
    inked = ink > _INKED
    begins = np.where(inked.any(1), inked.argmax(1), width)
    ends = np.where(inked.any(1), width - inked[:, ::-1].argmax(1), 0)
    lower = np.minimum(_extents(begins < ways), _extents(ends > ways))
    chosen: list[int] = []
    for column in np.argsort(costs, kind="stable").tolist():
        if costs[column] > most_ink:
            break
        if lower[column] >= lowest and all(abs(column - other) >= apart for other in chosen):
            chosen.append(column)
    chosen.sort()
    return Seams(ways[chosen], costs[chosen], lower[chosen])


def _descend(ink: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int8]]:
    """Costs of the cheapest ways from the first row to each pixel of the last, and the step aside to each pixel."""
    columns = np.arange(ink.shape[1])
    costs = np.pad(ink[0], 1, constant_values=np.inf)
    steps = np.zeros(ink.shape, np.int8)
    for row in range(1, len(ink)):
        ways = np.stack([costs[1:-1], costs[:-2] + _ASIDE, costs[2:] + _ASIDE])
        best = ways.argmin(0)
        steps[row] = np.array([0, -1, 1], np.int8)[best]
        costs[1:-1] = ways[best, columns] + ink[row]
    return costs[1:-1], steps


def _follow(steps: npt.NDArray[np.int8]) -> npt.NDArray[np.intp]:
    """Go back from each pixel of the last row to the first: columns (width, rows), the last row's first."""
    columns = np.arange(steps.shape[1])
    ways = np.empty(steps.shape[::-1], np.intp)
    for index, row in enumerate(steps[::-1]):
        ways[:, index] = columns
        columns = columns + row[columns]
    return ways


def _extents(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Rows from the first True to the last: bool (N, height) to intp (N,)."""
    length = rows.shape[1]
    return np.where(rows.any(1), length - rows.argmax(1) - rows[:, ::-1].argmax(1), 0)
