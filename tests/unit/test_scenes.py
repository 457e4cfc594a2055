"""How a picture shows its digits: all are read from drawings, crops, scans with a border, photos, notes on a table."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from lines import CLOSE, ByHeart, encode, glyph, write
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mnist_core.cutting import cut_picture
from mnist_core.errors import ImageBlankError
from mnist_core.images import decode_image

MODEL = ByHeart()
SIDE = 360
"""Of a picture with one digit, which the decoder does not reduce."""

Scene = Callable[[np.ndarray], bytes]


def read(data: bytes) -> int | str:
    try:
        return int(MODEL.predict(decode_image(data).pixels[None]).digits[0])
    except ImageBlankError as err:
        return err.code


def enlarge(digit: int, height: int = 180) -> np.ndarray:
    """An embedded digit with crisp strokes, cut to its ink: floats from 0, paper, to 1."""
    small = Image.fromarray(glyph(digit))
    large = small.resize((small.width * height // small.height, height), Image.Resampling.BICUBIC)
    return (np.asarray(large, np.float64) / 255 / 0.3 - 1.2).clip(0, 1)


def place(ink: np.ndarray, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Ink in the middle of paper."""
    above, left = (height - ink.shape[0]) // 2, (width - ink.shape[1]) // 2
    return np.pad(ink, ((above, height - ink.shape[0] - above), (left, width - ink.shape[1] - left)))


def tint(ink: np.ndarray, pen: float = 40, paper: float = 235) -> np.ndarray:
    return paper + (pen - paper) * ink


def photograph(tones: np.ndarray, noise: float = 3, kind: str = "JPEG") -> bytes:
    noisy = tones + np.random.default_rng(0).normal(0, noise, tones.shape)
    return encode(np.rint(noisy.clip(0, 255)).astype(np.uint8), kind)


def drawing(tones: np.ndarray) -> bytes:
    return photograph(tones, 0, "PNG")


def blur(share: np.ndarray, radius: float) -> np.ndarray:
    image = Image.fromarray(np.rint(255 * share).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float64) / 255


def frame(ink: np.ndarray, width: int, pen: float = 0) -> bytes:
    return drawing(np.pad(tint(place(ink), 0, 255), width, constant_values=pen))


def border(ink: np.ndarray, place_: tuple[slice, ...] | np.ndarray, tone: float = 5, **colours: float) -> bytes:
    tones = tint(place(ink), **colours)
    tones[place_] = tone
    return photograph(tones, 2)


def note(ink: np.ndarray, angle: float = 0, table: float = 70, **colours: float) -> bytes:
    """A sheet on a table, turned by some degrees."""
    sheet = Image.fromarray(np.rint(tint(place(ink, 260, 260), **colours)).astype(np.uint8))
    turned, visible = (
        np.asarray(image.rotate(angle, Image.Resampling.BICUBIC, expand=True), np.float64)
        for image in (sheet, Image.new("L", sheet.size, 255))
    )
    share = place(visible / 255, SIDE, 480)
    return photograph(table * (1 - share) + share * place(turned, SIDE, 480))


def reduce(ink: np.ndarray, side: int) -> bytes:
    small = Image.fromarray(tint(place(ink, 220, 220), 0, 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BOX
    )
    return encode(np.asarray(small))


def transparent(tones: np.ndarray, alpha: np.ndarray) -> bytes:
    image = Image.fromarray(np.rint(tones).astype(np.uint8)).convert("RGBA")
    image.putalpha(Image.fromarray(np.rint(alpha).astype(np.uint8)))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def opaque(but: tuple[slice, ...], alpha: int = 0) -> np.ndarray:
    """Transparency of a picture that is opaque nearly everywhere."""
    channel = np.full((SIDE, SIDE), 255)
    channel[but] = alpha
    return channel


def floats(ink: np.ndarray, low: float, high: float, overshoot: float = 0) -> bytes:
    tones = tint(place(ink), low, high).astype(np.float32)
    tones[0, 0] += overshoot
    return encode(tones, "TIFF")


def shadow(ink: np.ndarray, radius: float) -> bytes:
    share = np.zeros((SIDE, SIDE))
    share[:, 170:] = 0.5  # its edge crosses the digit
    return photograph(tint(place(ink)) * (1 - blur(share, radius)))


def shine(ink: np.ndarray, strength: float) -> bytes:
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    return photograph(tint(place(ink)) * (1 - strength + strength * np.exp(-(x * x + y * y) / 0.2)))


ROWS, COLUMNS = np.indices((SIDE, SIDE))
BRIGHT = {"pen": 220, "paper": 50}

SCENES: dict[str, Scene] = {
    **{f"a frame of {width}": lambda ink, width=width: frame(ink, width) for width in (4, 8, 20)},
    **{f"a border of {width}": lambda ink, width=width: border(ink, np.s_[:, :width]) for width in (8, 12, 24, 48)},
    **{f"a grey border of {width}": lambda ink, width=width: border(ink, np.s_[:, :width], 120) for width in (8, 16)},
    "a border that is not straight": lambda ink: border(ink, COLUMNS < 10 + ROWS / 20),
    "borders on two sides": lambda ink: border(ink, (COLUMNS < 40) | (ROWS > 330)),
    "a white border of a board": lambda ink: border(ink, np.s_[:16], 245, **BRIGHT),
    **{f"a note turned by {angle}": lambda ink, angle=angle: note(ink, angle) for angle in (0, 4, -12)},
    "a dark note on a light table": lambda ink: note(ink, 2, 220, **BRIGHT),
    "pencil on a note": lambda ink: note(ink, 3, pen=170),
    **{f"{side}x{side} pixels": lambda ink, side=side: reduce(ink, side) for side in (12, 14, 16, 20)},
    "one pixel not quite opaque": lambda ink: transparent(tint(place(ink), 185, 240), opaque(np.s_[:1, :1], 254)),
    "a corner transparent": lambda ink: transparent(tint(place(ink), 185, 240), opaque(np.s_[:9, :9])),
    "ink on transparent ground": lambda ink: transparent(0 * place(ink), 255 * place(ink)),
    "a digit cut out of a sheet": lambda ink: transparent(0 * place(ink), 255 - 255 * place(ink)),
    "floats from 0 to 1": lambda ink: floats(ink, 0, 1),
    "floats from 0 to 1, resampled": lambda ink: floats(ink, 0, 1, 0.02),
    "floats from -1 to 1": lambda ink: floats(ink, -1, 1),
    "plain": lambda ink: drawing(tint(place(ink))),
    "chalk": lambda ink: photograph(tint(place(ink), **BRIGHT), 5),
    "a shadow with a soft edge": lambda ink: shadow(ink, 12),
    "a shadow with a sharp edge": lambda ink: shadow(ink, 2),
    "the light of a torch": lambda ink: shine(ink, 0.5),
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_every_digit_is_read(scene: Scene):
    assert [read(scene(enlarge(digit))) for digit in range(10)] == list(range(10))


@pytest.mark.parametrize("digit", "0123456789")
def test_a_digit_that_is_cut_to_its_box_is_what_it_is_with_a_margin(digit: str):
    font = ImageFont.load_default(120)
    left, top, right, bottom = (round(side) for side in font.getbbox(digit))
    box = Image.new("L", (right - left, bottom - top), 255)
    ImageDraw.Draw(box).text((-left, -top), digit, 0, font)
    for board in (np.uint8(0), np.uint8(255)):
        cut, whole = (
            decode_image(encode(np.pad(np.asarray(box), margin, constant_values=255) ^ board)).pixels.ravel()
            for margin in (0, 60)
        )
        assert np.corrcoef(cut, whole)[0, 1] > 0.98


@pytest.mark.parametrize("colours", [{"pen": 0, "paper": 255}, {"pen": 230, "paper": 20}], ids=["pen", "chalk"])
@pytest.mark.parametrize("noise", [0, 4])
@pytest.mark.parametrize("margin", CLOSE)
def test_lines_that_are_cut_close_are_read(margin: int, noise: float, colours: dict[str, float]):
    tones = tint(1 - write("9021034567", margin=margin)[0] / 255, **colours)
    assert cut_picture(photograph(tones, noise, "PNG"), MODEL).text == "9021034567"


def test_the_digits_of_a_line_on_a_note_keep_their_place():
    pixels, boxes = write("4071", margin=60)
    height, width = pixels.shape
    scene = np.full((height + 150, width + 200), 70.0)
    scene[50 : 50 + height, 80 : 80 + width] = pixels * 0.9
    found = cut_picture(photograph(scene), MODEL)
    assert found.text == "4071"
    np.testing.assert_allclose(found.boxes, np.add(boxes, (80, 50, 0, 0)), atol=4)


def test_heavy_digits_are_no_sheets():
    heavy = Image.new("L", (300, 300), 255)
    ImageDraw.Draw(heavy).rounded_rectangle((60, 10, 240, 290), 60, fill=0)
    assert decode_image(encode(np.asarray(heavy))).pixels[14, 14] > 200
    ImageDraw.Draw(heavy).ellipse((130, 90, 170, 210), fill=255)
    assert decode_image(encode(np.asarray(heavy))).pixels[14, 14] < 50
    bar = np.full((300, 300), 255.0)
    bar[20:280, 110:190] = 30
    pixels = decode_image(photograph(bar, 5)).pixels
    assert (pixels > 100).sum(0).max() == 20
    assert 4 <= (pixels > 100).sum(1).max() <= 8
