"""Connected pieces of ink: pixels that touch, also over a corner, whatever their number and shape.

Runs of ink within a row are found at once for the whole image, and runs that touch in neighbouring rows are united
until nothing changes (labelling by runs; Rosenfeld and Pfaltz, "Sequential operations in digital picture processing",
1966). SciPy has the same, at 29 MB in every replica.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of an image.

    Attributes:
        labels: int32 (height, width): 0 where there is none, else one more than the piece's index.
        boxes: intp (N, 4): left, top, right and bottom of each; the last two are just outside.
    """

    labels: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.boxes)

    def count(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Add pixels up over each piece: (height, width) to float64 (N,)."""
        places = np.flatnonzero(self.labels)
        found = np.bincount(self.labels.ravel()[places], pixels.ravel()[places], minlength=len(self) + 1)
        return np.asarray(found[1:], np.float64)


def find_pieces(inked: npt.NDArray[np.bool_]) -> Pieces:
    """Find the connected pieces of ink.

    Args:
        inked: bool (height, width).

    Returns:
        Pieces in the order of their first rows.
    """
    height, width = inked.shape
    stride = width + 2  # with paper at both ends no run goes on in the next row
    flat = np.pad(inked, ((0, 0), (1, 1))).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    owners = _unite(starts, ends, stride)
    firsts, indices = np.unique(owners, return_inverse=True)
    steps = np.zeros(flat.size + 1, np.int32)
    steps[starts] = indices + 1
    steps[ends] -= (indices + 1).astype(np.int32)
    labels = np.cumsum(steps[:-1], dtype=np.int32).reshape(height, stride)[:, 1:-1]
    boxes = np.empty((len(firsts), 4), np.intp)
    boxes[:, :2], boxes[:, 2:] = max(height, width), 0
    rows = starts // stride
    np.minimum.at(boxes[:, 0], indices, starts % stride - 1)
    np.minimum.at(boxes[:, 1], indices, rows)
    np.maximum.at(boxes[:, 2], indices, ends % stride - 1)
    np.maximum.at(boxes[:, 3], indices, rows + 1)
    return Pieces(np.ascontiguousarray(labels), boxes)


def _unite(starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp], stride: int) -> npt.NDArray[np.intp]:
    """Give each run the least index of all runs it is connected with, (R,)."""
    first = np.searchsorted(ends, starts + stride, "left")  # the runs of the next row from one corner to the other
    counts = np.maximum(np.searchsorted(starts, ends + stride, "right") - first, 0)
    upper = np.repeat(np.arange(len(starts)), counts)
    lower = np.arange(counts.sum()) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    owners = np.arange(len(starts))
    while True:
        least = np.minimum(owners[upper], owners[lower])
        united = owners.copy()
        for side in (upper, lower):
            np.minimum.at(united, side, least)
            np.minimum.at(united, owners[side], least)
        united = united[united]
        if np.array_equal(united, owners):
            return owners
        owners = united
