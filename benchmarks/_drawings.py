"""Digits, letters and scribbles that nobody wrote: drawn as people send them, files with dark ink on light paper."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from mnist_core.errors import ImageError
from mnist_core.images import decode_image

DIGITS = "0123456789"
LETTERS = "AEFHKMNRVWXhkmnvwx"
"""Capitals and small letters that no digit looks like, in print or in a careless hand.

Left out, since they look like one: O o Q D U u C c (0), I i l J j L r t (1), Z z (2), Y y (4), S s (5), b d e G (6),
f T (7), B a (8), g q p P (9).
"""
HOLES = {"0": (1, 2), "1": (0, 0), "6": (1, 1), "7": (0, 0), "8": (2, 2), "9": (1, 1), "F": (0, 0)}
"""Least and most holes of a sign; a zero may have a bar. A font of symbols has others: its F is a Greek phi."""
PLAIN_STYLES = ("Regular", "Book", "Roman", "Normal", "Medium", "Light")
"""The plainest first."""
WEIGHTS = {"Thin", "Hairline", "Light", "ExtraLight", "Medium", "Semibold", "Demi", "Bold", "Heavy", "Black"}
"""What some files have in the name of the family."""
HARMONICS = 5


def find_fonts(folders: Iterable[Path], count: int) -> dict[str, Path]:
    """Choose fonts that have digits, one file for a family.

    Args:
        folders: Where font files are, at any depth.
        count: How many families at most; of more, some from A to Z.

    Returns:
        Family to file, in the order of the alphabet: the plain style, if there is one.
    """
    files: dict[str, list[tuple[int, int, str, Path]]] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*.[ot]tf")):
        try:
            name, style = ImageFont.truetype(path, 64).getname()
        except OSError:  # not a font that can be drawn in any size
            continue
        family = " ".join(word for word in (name or "").split() if word not in WEIGHTS)
        plainness = PLAIN_STYLES.index(style) if style in PLAIN_STYLES else len(PLAIN_STYLES)
        files.setdefault(family, []).append((len(name or ""), plainness, path.name, path))
    plain = {family: min(files[family])[-1] for family in sorted(files)}
    usable = [family for family, path in plain.items() if family and has_characters(path)]
    chosen = np.linspace(0, len(usable) - 1, min(count, len(usable))).round().astype(int)
    return {usable[index]: plain[usable[index]] for index in chosen}


def has_characters(path: Path) -> bool:
    """Whether a font has a sign of its own for each digit and letter, with the holes that those have."""
    font = ImageFont.truetype(path, 64)
    try:
        signs = {character: np.asarray(_draw_alone(font, character)) for character in DIGITS + LETTERS}
    except OSError:
        return False
    if len({sign.tobytes() for sign in signs.values()}) < len(signs):  # what a font lacks, it draws as an empty box
        return False
    return all(least <= count_holes(signs[character] < 128) <= most for character, (least, most) in HOLES.items())


def count_holes(ink: npt.NDArray[np.bool_]) -> int:
    """Count the pieces of paper that ink encloses; specks of a few pixels, where strokes meet, are none."""
    pieces, count = ndimage.label(np.pad(~ink, 1, constant_values=True))
    areas = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    return int((areas > 4).sum()) - 1


def draw_character(character: str, path: Path, rng: np.random.Generator) -> bytes:
    """Draw a character of a font: somewhere on a sheet of 64 to 320 pixels, a third to two thirds as high, as PNG."""
    height, width = rng.integers(64, 321), rng.uniform(0.8, 1.25)
    sheet = Image.new("L", (round(height * width), int(height)), int(rng.integers(190, 256)))
    font = ImageFont.truetype(path, float(rng.uniform(0.45, 0.8)) * min(sheet.size))
    left, top, right, bottom = font.getbbox(character)
    room = sheet.width - (right - left), sheet.height - (bottom - top)
    across, down = (float(space * share) for space, share in zip(room, rng.uniform(0.1, 0.9, 2), strict=True))
    ImageDraw.Draw(sheet).text((across - left, down - top), character, int(rng.integers(0, 91)), font)
    return _to_png(sheet)


def draw_scribble(rng: np.random.Generator) -> bytes:
    """Draw a smooth line that runs back and forth over a sheet of 96 to 320 pixels, as PNG.

    A sum of five waves in each direction, all of them strong: it turns and crosses itself more often than any digit.
    """
    side = int(rng.integers(96, 321))
    times = np.linspace(0, rng.uniform(0.75, 1), 300)[:, None, None]
    waves = np.arange(1, HARMONICS + 1)
    phases, strengths = rng.uniform(0, 1, (2, HARMONICS)), rng.uniform(0.5, 1, (2, HARMONICS))
    points = (strengths * np.sin(2 * np.pi * (waves * times + phases))).sum(axis=2)
    points = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    box = rng.uniform(0.4, 0.8, 2) * side
    points = points * box + rng.uniform(0.1, 0.9, 2) * (side - box)
    sheet = Image.new("L", (side, side), int(rng.integers(190, 256)))
    ink, pen = int(rng.integers(0, 91)), max(2, round(side * rng.uniform(0.015, 0.04)))
    ImageDraw.Draw(sheet).line([tuple(point) for point in points.tolist()], ink, pen, joint="curve")
    return _to_png(sheet)


def draw_characters(
    characters: str, fonts: Sequence[Path], times: int, rng: np.random.Generator
) -> tuple[list[bytes], list[str], list[int]]:
    """Draw each character of each font some times; returns the files, what each shows and its font's index."""
    wanted = [(which, sign) for which in range(len(fonts)) for sign in characters for _ in range(times)]
    files = [draw_character(sign, fonts[which], rng) for which, sign in wanted]
    return files, [sign for _, sign in wanted], [which for which, _ in wanted]


def decode_all(files: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Decode files as the endpoint does; returns the images, uint8 (N, 28, 28), and which were refused, bool (N,)."""
    images, refused = np.zeros((len(files), 28, 28), np.uint8), np.zeros(len(files), np.bool_)
    for index, data in enumerate(files):
        try:
            images[index] = decode_image(data).pixels
        except ImageError:
            refused[index] = True
    return images, refused


def _draw_alone(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    alone = Image.new("L", (right - left + 4, bottom - top + 4), 255)
    ImageDraw.Draw(alone).text((2 - left, 2 - top), character, 0, font)
    return alone


def _to_png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()
