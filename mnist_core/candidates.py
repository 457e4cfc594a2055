"""What may be a digit in a picture of several: every run of neighbouring parts that is neither too wide nor too low.

Each is brought to MNIST's form as any image's digit is. What speaks against a run from its shape alone is told with it;
what the model says is added in ``mnist_core.cutting``, which chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mnist_core.errors import ImageBlankError, ImageTooManyDigitsError
from mnist_core.framing import BLANK, frame_ink
from mnist_core.images import ImageLimits, decode_tones
from mnist_core.ink import find_ink
from mnist_core.parts import Cut, Part, Parts, find_parts

MOST_DIGITS: Final = 64
"""Digits that a picture may have, unless told otherwise."""

_AREA: Final = 400_000
"""Pixels that a picture is reduced to: of 64 digits each still has 79 x 79."""
_COARSEST_SIDE: Final = 128
"""Length of the shorter side from which on a picture with much noise is halved."""

_MOST_PARTS: Final = 8
"""Of 3,300 digits in composed pictures one had so many, and none had more."""
_RUNS_PER_DIGIT, _SPARE_RUNS = 20, 100
"""Runs that a picture may have for each of its digits, and besides: all are framed, and all are shown to the model.
Pictures of many digits have 9 a digit, and 16 to 19 where every digit touches the next."""
_WIDEST: Final = 1.45
"""Width of a digit, in heights of its line; a piece of ink that is wider is one only if there is nowhere to cut it."""
_LOWEST: Final = 0.45
_FARTHEST: Final = 0.35
"""Gap between two pieces of one digit."""
_INKED: Final = 0.35
_SMALL: Final = 0.35
"""Neither wider nor higher than that: a dot or a comma, which may be left out."""

# What speaks against a run of parts being one digit; the sum along a line is to be least. The weights, these and
# those in ``mnist_core.cutting``, were found by a random search on pictures of MNIST's training digits; those that
# ``benchmarks/split.py`` measures are others, of test digits.
_CUT_INK: Final = 1.15
"""For each width of a stroke that is cut through; the digits on both sides share it."""
_CUT_LOW: Final = 2.4
"""For a cut that leaves low ink on one of its sides."""
_UNCUT: Final = 0.7
"""For a way through little ink that is not taken."""
_TWO_TALL: Final = 4.8
"""For pieces that are tall both: the bar of a five is not."""
_GAP: Final = 0.4
_USUAL_WIDTH: Final = (0.7, 1.0)
_WIDE: Final = (-3.2, 23.0)
"""For each height beyond either of those widths. The first is a reward, since halves of digits are narrow."""
_USUAL_HEIGHT: Final = 0.8
_LOW: Final = 19.0
_LEFT_OUT: Final = 3.0
"""For a dot that is left out."""
_LOST: Final = 30.0
"""For other ink that is left out, when nothing else can be done with it."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """All that may be a digit in one picture.

    Attributes:
        pixels: uint8 (M, 28, 28), white on black, in MNIST's form.
        boxes: intp (M, 4): left, top, width and height in the upright picture, in its own pixels.
        spans: intp (M, 2): the first of the picture's P parts that it is made of, and the one after its last.
        costs: float64 (M,): what speaks against it before the model is asked.
        pieces: bool (M,): whether it is one connected piece of ink, all of it.
        lines: intp (P,): the line that a part is in.
        losses: float64 (P,): what it costs to leave a part out.
        fewest: How many digits there are at least.
        num_frames: Above 1, the image is animated or has more pages, and only the first was read.
    """

    pixels: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.intp]
    spans: npt.NDArray[np.intp]
    costs: npt.NDArray[np.float64]
    pieces: npt.NDArray[np.bool_]
    lines: npt.NDArray[np.intp]
    losses: npt.NDArray[np.float64]
    fewest: int
    num_frames: int


def find_candidates(data: bytes, limits: ImageLimits | None = None, most: int = MOST_DIGITS) -> Candidates:
    """Find all that may be a digit in a picture; arguments and errors are those of ``cut_picture``."""
    decoded = decode_tones(data, limits or ImageLimits(), _AREA)
    if decoded.digit is not None:
        return _take_one(decoded.digit, decoded.num_frames)
    height, width = decoded.tones.shape
    ink = find_ink(decoded.tones, _COARSEST_SIDE * max(height, width) // min(height, width))
    parts = find_parts(ink, most)
    check_work(len(parts.parts), most, "pieces of digits")
    spans, costs = _find_runs(parts.parts)
    lines = np.array([part.line for part in parts.parts])
    losses = np.array([_LEFT_OUT if max(_size(part.box)) < _SMALL * part.height else _LOST for part in parts.parts])
    fewest = len(divide(spans, np.ones(len(spans)), np.where(losses < _LOST, 0, _LOST)))
    check_count(fewest, most)
    check_work(len(spans), most)  # before any is framed, at nearly a millisecond each
    framed = [_frame(parts, first, end) for first, end in spans]
    kept = [index for index, pixels in enumerate(framed) if pixels is not None]
    if not kept:
        raise ImageBlankError(BLANK)
    boxes = np.array([_around(parts.parts[slice(*spans[index])]) for index in kept]) * (
        decoded.size[0] / ink.inked.shape[1]
    )
    corners = np.concatenate([np.floor(boxes[:, :2]), np.minimum(np.ceil(boxes[:, 2:]), decoded.size)], axis=1)
    corners[:, 2:] -= corners[:, :2]
    return Candidates(
        pixels=np.stack([pixels for pixels in framed if pixels is not None]),
        boxes=corners.astype(np.intp),
        spans=spans[kept],
        costs=costs[kept],
        pieces=np.array([_is_piece(parts.parts[slice(*spans[index])]) for index in kept]),
        lines=lines,
        losses=losses,
        fewest=fewest,
        num_frames=decoded.num_frames,
    )


def check_count(count: int, most: int) -> None:
    """Refuse more digits than a picture may have.

    Raises:
        ImageTooManyDigitsError: There are more.
    """
    if count > most:
        raise ImageTooManyDigitsError(
            f"found {count} digits or more, expected at most {most} in a picture; cut it into several"
        )


def check_work(count: int, most: int, what: str = "places where a digit may be") -> None:
    """Refuse a picture that costs far more work than its digits may.

    Args:
        count: What was found.
        most: Digits that it may have.
        what: That was found.

    Raises:
        ImageTooManyDigitsError: There are too many.
    """
    if count > most_work(most):
        raise ImageTooManyDigitsError(
            f"found {count} {what}, expected at most {most_work(most)} in a picture of {most} digits; "
            "cut it into several"
        )


def most_work(num_digits: int) -> int:
    """How many candidates so many digits may have."""
    return _RUNS_PER_DIGIT * num_digits + _SPARE_RUNS


def divide(spans: npt.NDArray[np.intp], costs: npt.NDArray[np.float64], losses: npt.NDArray[np.float64]) -> list[int]:
    """Divide parts into runs, so that what the runs and the parts left out cost is the least together.

    Args:
        spans: intp (M, 2): first part of a run, and the one after its last.
        costs: Of the runs, float64 (M,).
        losses: Of leaving a part out, float64 (P,).

    Returns:
        Indices of runs, in order.
    """
    ending: list[list[int]] = [[] for _ in range(len(losses) + 1)]
    for index, end in enumerate(spans[:, 1].tolist()):
        ending[end].append(index)
    firsts = spans[:, 0].tolist()
    least, last = [0.0], [-1]
    for end, loss in enumerate(losses.tolist(), 1):
        least.append(least[-1] + loss)
        last.append(-1)
        for index in ending[end]:
            if (cost := least[firsts[index]] + float(costs[index])) < least[end]:
                least[end], last[end] = cost, index
    chosen: list[int] = []
    end = len(losses)
    while end:
        if last[end] >= 0:
            chosen.append(last[end])
        end = firsts[last[end]] if last[end] >= 0 else end - 1
    return chosen[::-1]


def _find_runs(parts: Sequence[Part]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """All runs that may be a digit: spans (M, 2) and what their shapes cost (M,)."""
    spans, costs = [], []
    for first in range(len(parts)):
        for end in range(first + 1, min(first + _MOST_PARTS, len(parts)) + 1):
            run = parts[first:end]
            if run[-1].line != run[0].line:
                break
            if (cost := _judge_shape(run)) is not None:
                spans.append((first, end))
                costs.append(cost)
    return np.array(spans, np.intp).reshape(-1, 2), np.array(costs, np.float64)


def _is_piece(run: Sequence[Part]) -> bool:
    """Whether a run is one connected piece of ink, all of it."""
    return len({part.piece for part in run}) == 1 and run[0].left is None and run[-1].right is None


def _judge_shape(run: Sequence[Part]) -> float | None:
    """What speaks against these parts being one digit; None: they are none."""
    usual = run[0].height
    width, height = (side / usual for side in _size(_around(run)))
    whole = len(run) == 1 and not run[0].left and not run[0].right
    if not whole and (width > _WIDEST or height < _LOWEST):
        return None
    pieces: dict[int, list[Part]] = {}
    for part in run:
        pieces.setdefault(part.piece, []).append(part)
    boxes = sorted(_around(piece) for piece in pieces.values())
    gap = max(
        [0.0, *((box[0] - max(each[2] for each in boxes[:index])) / usual for index, box in enumerate(boxes) if index)]
    )
    if gap > _FARTHEST:
        return None
    cost = _GAP * gap + _LOW * max(0.0, _USUAL_HEIGHT - height)
    cost += sum(each * max(0.0, width - limit) for limit, each in zip(_USUAL_WIDTH, _WIDE, strict=True))
    if len(boxes) > 1:
        cost += _TWO_TALL * sorted(_size(box)[1] / usual for box in boxes)[-2]
    taken, left = _sort_cuts(run)
    if taken:
        cost += _CUT_INK * sum(cut.strokes for cut in taken) / 2
        cost += _CUT_LOW * max(0.0, 1 - min(cut.lower for cut in taken))
    return cost + _UNCUT * max([0.0, *(max(0.0, 2 - cut.strokes) * max(0.0, cut.lower - 0.5) for cut in left)])


def _sort_cuts(run: Sequence[Part]) -> tuple[list[Cut], list[Cut]]:
    """The cuts that part a run from others, and those within it."""
    places = {(part.piece, part.place) for part in run}
    taken: list[Cut] = []
    left: list[Cut] = []
    for part in run:
        if part.left and (part.piece, part.place - 1) not in places:
            taken.append(part.left)
        if part.right:
            (left if (part.piece, part.place + 1) in places else taken).append(part.right)
    return taken, left


def _around(run: Sequence[Part]) -> tuple[int, int, int, int]:
    """The box around parts."""
    lefts, tops, rights, bottoms = zip(*(part.box for part in run), strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _size(box: tuple[int, int, int, int]) -> tuple[int, int]:
    """Width and height."""
    return box[2] - box[0], box[3] - box[1]


def _frame(parts: Parts, first: int, end: int) -> npt.NDArray[np.uint8] | None:
    """Draw a run of parts as MNIST's digits are; None if next to nothing of it is left."""
    left, top, right, bottom = _around(parts.parts[first:end])
    owners = parts.owners[top:bottom, left:right]
    ink = parts.shades[top:bottom, left:right] * ((owners > first) & (owners <= end))
    try:
        return frame_ink(ink)
    except ImageBlankError:
        return None


def _take_one(digit: npt.NDArray[np.uint8], num_frames: int) -> Candidates:
    """An image that is one digit already."""
    inked = digit >= _INKED * digit.max()
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    box = columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    return Candidates(
        pixels=digit[None],
        boxes=np.array([box], np.intp),
        spans=np.array([[0, 1]], np.intp),
        costs=np.zeros(1),
        pieces=np.ones(1, np.bool_),
        lines=np.zeros(1, np.intp),
        losses=np.full(1, np.inf),
        fewest=1,
        num_frames=num_frames,
    )
