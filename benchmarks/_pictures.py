"""Pictures of several digits on a line, whose truth is known: made of single digits of MNIST's form, from a seed.

What differs from picture to picture: number and size of the digits, the gaps between them, how they slant and leave the
line, the margin, colours of pen and paper, light, paper texture, noise, and the kind of file.

One picture in six is cut close to its digits; the others are what they were before there were such. Figures can be
compared with older ones: of the digits in 1,000 pictures, the best model reads 98.2% with these and without.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from mnist_core.splits import Split

Floats = npt.NDArray[np.float32]

FEWEST, MOST = 3, 8
"""Digits in a picture."""
HEIGHTS = (22.0, 70.0)
"""Of a digit of 20 pixels, in pixels of the picture."""
GAPS = (0.06, 0.5)
"""Between two digits at their nearest, in heights."""
TOUCHING, OVERLAPPING = 0.1, 0.03
"""Share of the gaps at which strokes touch, and at which they run into each other."""
OVERLAP = (0.01, 0.06)
"""How far, in heights."""
MARGINS = (0.3, 0.9)
"""Around the digits, in heights."""
CLOSE = 0.8
"""Margin that is drawn from which on a picture is cut close instead."""
CLOSE_MARGINS = (0.03, 0.2)
LEAST_CONTRAST = 70.0
"""Between pen and paper, in tones."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture.

    Attributes:
        data: PNG or JPEG.
        text: What is written on it.
        boxes: Left, top, right and bottom of each digit.
        touching: Whether strokes of two digits meet.
    """

    data: bytes
    text: str
    boxes: list[tuple[int, int, int, int]]
    touching: bool


def compose_pictures(digits: Split, count: int, seed: int) -> list[Picture]:
    """Compose pictures; the same digits and seed give the same ones."""
    return [_compose(digits, np.random.default_rng((seed, index))) for index in range(count)]


def _compose(digits: Split, random: np.random.Generator) -> Picture:
    chosen = random.integers(0, len(digits), random.integers(FEWEST, MOST, endpoint=True))
    height, slant = random.uniform(*HEIGHTS), random.uniform(-0.3, 0.3)
    glyphs = [_draw(digits.images[index], height, slant, random) for index in chosen]
    line, boxes, touching = _write(glyphs, height, random)
    text = "".join(str(digits.labels[index]) for index in chosen)
    return Picture(_photograph(line, random), text, boxes, touching)


def _draw(digit: npt.NDArray[np.uint8], height: float, slant: float, random: np.random.Generator) -> Floats:
    """One digit at its size and slant, cut to its ink: float32, 0 to 1."""
    scale = height / 20 * random.uniform(0.88, 1.12)
    lean = slant + random.normal(0, 0.05)
    side = round(28 * scale * 1.5)
    middle = side / 2
    # Pillow asks where each pixel of the result comes from.
    across = (1 / scale, lean / scale, 14 - (middle + lean * middle) / scale)
    down = (0.0, 1 / scale, 14 - middle / scale)
    image = Image.fromarray(digit).transform(
        (side, side), Image.Transform.AFFINE, (*across, *down), Image.Resampling.BICUBIC
    )
    ink = np.asarray(image, np.float32) / 255
    rows, columns = np.flatnonzero((ink > 0.2).any(1)), np.flatnonzero((ink > 0.2).any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _write(glyphs: list[Floats], height: float, random: np.random.Generator) -> tuple[Floats, list[Any], bool]:
    """Put digits on a line; also tells where each is, and whether any two of them touch."""
    margin = _draw_margin(height, random)
    tallest = max(len(glyph) for glyph in glyphs)
    canvas = np.zeros((round(tallest * 1.3) + 2 * margin, sum(g.shape[1] for g in glyphs) * 2 + 20 * margin))
    canvas = canvas.astype(np.float32)
    end, boxes, touching = margin, [], False
    for number, glyph in enumerate(glyphs):
        top = margin + round((tallest - len(glyph)) / 2 + tallest * (0.15 + random.uniform(-0.08, 0.08)))
        rows = slice(top, top + len(glyph))
        left = margin
        if number:
            gap, meets = _draw_gap(height, random)
            touching |= meets
            left = max(margin, _nearest(canvas[rows, :end], glyph) + gap)
        place = canvas[rows, left : left + glyph.shape[1]]
        np.maximum(place, glyph, out=place)
        boxes.append((left, top, left + glyph.shape[1], top + len(glyph)))
        end = max(end, left + glyph.shape[1])
    return canvas[:, : end + margin], boxes, touching


def _draw_margin(height: float, random: np.random.Generator) -> int:
    """Pixels around the digits: one draw, so that all that is drawn later is the same for each of them."""
    wide = random.uniform(*MARGINS)
    if wide < CLOSE:
        return round(height * wide)
    return round(height * float(np.interp(wide, (CLOSE, MARGINS[1]), CLOSE_MARGINS)))


def _draw_gap(height: float, random: np.random.Generator) -> tuple[int, bool]:
    """Pixels between two digits, and whether they touch."""
    kind = random.random()
    if kind < OVERLAPPING:
        return -max(1, round(height * random.uniform(*OVERLAP))), True
    if kind < OVERLAPPING + TOUCHING:
        return 0, True
    return max(2, round(height * random.uniform(*GAPS))), False


def _nearest(line: Floats, glyph: Floats) -> int:
    """Where a digit begins that touches what is on the line already in one row; where no row has both, side by side."""
    ends = np.where((line > 0.4).any(1), line.shape[1] - (line[:, ::-1] > 0.4).argmax(1), -(10**6))
    starts = np.where((glyph > 0.4).any(1), (glyph > 0.4).argmax(1), 10**6)
    nearest = int((ends - starts).max())
    return nearest if nearest > -(10**5) else line.shape[1]


def _photograph(line: Floats, random: np.random.Generator) -> bytes:
    """Ink on paper, as a file."""
    pen, paper = _choose_colours(random)
    light = np.ones((*line.shape, 1), np.float32)
    if random.random() < 0.3:  # it falls from one side
        light *= np.linspace(1, random.uniform(0.75, 1), line.shape[1], dtype=np.float32)[None, :, None]
    tones = (paper + (pen - paper) * line[..., None]) * light
    if random.random() < 0.3:  # paper that has a grain
        grain = Image.fromarray(random.normal(128, 60, line.shape).clip(0, 255).astype(np.uint8))
        blurred = np.asarray(grain.filter(ImageFilter.GaussianBlur(random.uniform(1, 4))), np.float32) - 128
        tones += blurred[..., None] * np.float32(random.uniform(2, 5) / max(float(blurred.std()), 1e-3))
    tones += random.normal(0, random.uniform(0, 6), tones.shape).astype(np.float32)
    pixels = Image.fromarray(np.rint(tones.clip(0, 255)).astype(np.uint8))
    options: dict[str, Any] = {"quality": 85} if random.random() < 0.3 else {"compress_level": 1}
    file = io.BytesIO()
    pixels.save(file, "JPEG" if "quality" in options else "PNG", **options)
    return file.getvalue()


def _choose_colours(random: np.random.Generator) -> tuple[Floats, Floats]:
    """Colours of pen and paper that can be told apart; one time in six the pen is the brighter one."""
    while True:
        pen, paper = random.uniform(0, 150, 3), random.uniform(150, 255) + random.normal(0, 8, 3)
        if paper.mean() - pen.mean() >= LEAST_CONTRAST:
            break
    if random.random() < 1 / 6:
        pen, paper = 255 - pen, 255 - paper
    return pen.astype(np.float32), paper.clip(0, 255).astype(np.float32)
