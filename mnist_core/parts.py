"""The parts that digits are made of: pieces of ink, cut wherever digits may touch, in lines from left to right.

A digit is one part or several neighbouring ones; which, is decided in ``mnist_core.cutting``. Lengths are told in
heights of a digit, since nothing else of a picture is known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mnist_core.errors import ImageBlankError, ImageTooManyDigitsError
from mnist_core.framing import BLANK
from mnist_core.ink import Ink, are_shadows, find_outlines
from mnist_core.pieces import Pieces, find_pieces
from mnist_core.seams import find_seams

_SMALLEST_FRACTION: Final = 0.05
"""Least ink of a digit that is a stroke one pixel wide, to the picture's shorter side."""
_SPECK_FRACTION: Final = 0.05
"""Ink of a piece that may belong to a digit, to that of a digit. Specks have less."""
_TALL: Final = 0.5
"""Height of a piece that has the size and the place of its line, to the tallest."""
_RULE_HEIGHT, _RULE_WIDTH = 0.15, 2.5
"""A piece that is lower than the one and wider than the other is a line on the paper."""
_SAME_LINE: Final = 0.4
"""Share of the lower one's height at which two neighbours in a line stand beside each other."""
_BLUR: Final = 0.04
"""How far the blurred edge of a stroke reaches beyond its ink."""

_PIECES_PER_DIGIT: Final = 8

_CUT_FROM: Final = 0.45
"""Width from which on a piece may be several digits."""
_CUT_APART: Final = 0.14
_CUT_HEIGHT: Final = 0.42
"""Least height of what is to the left and to the right of a cut: serifs and ends of strokes have less."""
_CUT_STROKES: Final = 2.2
"""Most ink that a cut may go through, in widths of a stroke."""


@dataclass(frozen=True)
class Cut:
    """Where a piece of ink may be two digits.

    Attributes:
        strokes: How much ink it goes through, in widths of a stroke.
        lower: Height of the ink on the side that has less, in heights of a digit.
    """

    strokes: float
    lower: float


@dataclass(frozen=True)
class Part:
    """Ink that belongs to one digit as a whole.

    Attributes:
        box: Left, top, right and bottom; the last two are just outside.
        line: Index of its line, from the top.
        height: That digits have in its line.
        piece: Which piece of ink it is of.
        place: Its place among the parts of that piece, from the left.
        left: The cut to its left, None where the piece ends.
        right: The cut to its right.
    """

    box: tuple[int, int, int, int]
    line: int
    height: float
    piece: int
    place: int
    left: Cut | None
    right: Cut | None


@dataclass(frozen=True, eq=False)
class Parts:
    """All parts of a picture.

    Attributes:
        parts: Line by line, from left to right.
        owners: int32 (height, width): one more than the index of the part that a pixel belongs to, blurred edges
            included; 0 on paper.
        shades: Floats (height, width), 0 to 1: paper to ink.
    """

    parts: list[Part]
    owners: npt.NDArray[np.int32]
    shades: npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Sheet:
    """What is known of a picture's pieces before they are cut; ``near`` has their labels, blurred edges included."""

    pieces: Pieces
    near: npt.NDArray[np.int32]
    shades: npt.NDArray[Any]
    stroke: float


@dataclass(frozen=True, eq=False)
class _Snippet:
    """A part, and which pixels in a place of the picture are its own, ``bool``."""

    part: Part
    place: tuple[slice, slice]
    pixels: npt.NDArray[np.bool_]

    @property
    def middle(self) -> float:
        return (self.part.box[0] + self.part.box[2]) / 2


def find_parts(ink: Ink, most: int) -> Parts:
    """Find the parts of a picture.

    Args:
        ink: Of the picture.
        most: Digits that it may have; far more pieces of ink than these have are not looked at.

    Raises:
        ImageBlankError: There is no ink.
        ImageTooManyDigitsError: There are far too many pieces of ink.
    """
    pieces = find_pieces(ink.inked)
    kept, height = _select(pieces, ink)
    if len(kept) > _PIECES_PER_DIGIT * most:
        raise ImageTooManyDigitsError(
            f"found {len(kept)} pieces of ink, expected those of at most {most} digits; cut the picture into several"
        )
    wanted = np.zeros(len(pieces) + 1, np.bool_)
    wanted[1 + kept] = True
    labels = np.where(wanted[pieces.labels], pieces.labels, 0)
    inked = labels > 0
    # Twice the area over the outline; an outline in steps of pixels is 4/pi too long, on average.
    stroke = max(1.0, 2 * np.count_nonzero(inked) / (int(find_outlines(inked)[0].sum()) * np.pi / 4))
    near = _grow(labels, _reach(height))
    sheet = _Sheet(pieces, near, ink.shade(inked, near > 0), stroke)
    parts: list[Part] = []
    owners = np.zeros_like(near)
    for number, line in enumerate(_find_lines(pieces.boxes, kept, height)):
        size = _usual_height(pieces.boxes[line])
        snippets = [snippet for index in line for snippet in _cut(sheet, index, number, size)]
        for snippet in sorted(snippets, key=lambda each: each.middle):
            parts.append(snippet.part)
            owners[snippet.place][snippet.pixels] = len(parts)
    return Parts(parts, owners, sheet.shades)


def _select(pieces: Pieces, ink: Ink) -> tuple[npt.NDArray[np.intp], float]:
    """Choose the pieces that may be of digits, (N,), and tell how high a digit is."""
    outline, on_edge = find_outlines(ink.inked)
    areas = pieces.count(ink.inked)
    blurred = areas - pieces.count(ink.full)
    shadows = are_shadows(blurred, pieces.count(outline), pieces.count(on_edge), max(ink.inked.shape))
    boxes = pieces.boxes[~shadows]
    if not len(boxes) or areas[~shadows].max() < max(3, _SMALLEST_FRACTION * min(ink.inked.shape)):
        raise ImageBlankError(BLANK)
    height = _usual_height(boxes)
    heights, widths = pieces.boxes[:, 3] - pieces.boxes[:, 1], pieces.boxes[:, 2] - pieces.boxes[:, 0]
    usual = float(np.median(areas[~shadows & (heights >= _TALL * height)]))
    rules = (heights < _RULE_HEIGHT * height) & (widths > _RULE_WIDTH * height)
    return np.flatnonzero(~shadows & ~rules & (areas >= _SPECK_FRACTION * usual)), height


def _usual_height(boxes: npt.NDArray[np.intp]) -> float:
    heights = boxes[:, 3] - boxes[:, 1]
    return float(np.median(heights[heights >= _TALL * heights.max()]))


def _find_lines(boxes: npt.NDArray[np.intp], kept: npt.NDArray[np.intp], height: float) -> list[list[int]]:
    """Put pieces in lines, from the top: each tall one goes on the line whose last one it stands beside the most.

    Low pieces, such as the bar of a five, come to the line that is the nearest.
    """
    tall = boxes[kept, 3] - boxes[kept, 1] >= _TALL * height
    lines: list[list[int]] = []
    for index in sorted(kept[tall].tolist(), key=lambda index: int(boxes[index, 0] + boxes[index, 2])):
        lasts = boxes[[line[-1] for line in lines]].reshape(-1, 4)
        top, bottom = boxes[index, [1, 3]]
        shared = np.minimum(lasts[:, 3], bottom) - np.maximum(lasts[:, 1], top)
        beside = shared / np.minimum(lasts[:, 3] - lasts[:, 1], bottom - top)
        if len(lines) and beside.max() >= _SAME_LINE:
            lines[int(beside.argmax())].append(index)
        else:
            lines.append([index])
    lines.sort(key=lambda line: float(boxes[line][:, [1, 3]].mean()))
    members = [boxes[line] for line in lines]
    for index in kept[~tall].tolist():
        left, top, right, bottom = boxes[index]
        distances = [
            np.hypot(
                np.maximum(0, np.maximum(each[:, 0] - right, left - each[:, 2])),
                np.maximum(0, np.maximum(each[:, 1] - bottom, top - each[:, 3])),
            ).min()
            for each in members
        ]
        lines[int(np.argmin(distances))].append(index)
    return lines


def _cut(sheet: _Sheet, index: int, line: int, height: float) -> list[_Snippet]:
    """Cut one piece wherever digits may touch."""
    left, top, right, bottom = sheet.pieces.boxes[index].tolist()
    reach = _reach(height)
    rows, columns = slice(max(0, top - reach), bottom + reach), slice(max(0, left - reach), right + reach)
    place = (rows, columns)
    mine, inked = sheet.near[place] == index + 1, sheet.pieces.labels[place] == index + 1
    sides = np.zeros(mine.shape, np.intp)
    cuts: list[Cut] = []
    if right - left >= _CUT_FROM * height:
        seams = find_seams(
            sheet.shades[place] * mine,
            apart=max(2, round(_CUT_APART * height)),
            most_ink=_CUT_STROKES * sheet.stroke,
            lowest=_CUT_HEIGHT * height,
        )
        cuts = [
            Cut(strokes, lower) for strokes, lower in zip(seams.ink / sheet.stroke, seams.lower / height, strict=True)
        ]
        for way in seams.ways:
            sides += np.arange(mine.shape[1]) >= way[:, None]
    snippets: list[_Snippet] = []
    for number in range(len(cuts) + 1):
        ink = inked & (sides == number)
        if not ink.any():  # two cuts that meet have nothing between them
            continue
        ys, xs = np.flatnonzero(ink.any(1)) + rows.start, np.flatnonzero(ink.any(0)) + columns.start
        part = Part(
            box=(int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1),
            line=line,
            height=height,
            piece=index,
            place=len(snippets),
            left=cuts[number - 1] if snippets else None,
            right=cuts[number] if number < len(cuts) else None,
        )
        snippets.append(_Snippet(part, place, mine & (sides == number)))
    return snippets


def _reach(height: float) -> int:
    """How many pixels the blurred edge of a stroke reaches."""
    return max(1, round(_BLUR * height))


def _grow(labels: npt.NDArray[np.int32], times: int) -> npt.NDArray[np.int32]:
    """Let every piece grow by so many pixels on all sides, where there is none yet."""
    for _ in range(times):
        padded = np.pad(labels, 1)
        rows = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
        around = np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
        labels = np.where(labels > 0, labels, around)
    return labels
