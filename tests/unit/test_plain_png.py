"""Plain PNG files are decoded as Pillow decodes them, whatever their filters; everything else is left alone."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mnist_core.images import ImageLimits, decode_image
from mnist_core.inputs.readers import ItemBatch
from mnist_core.plain_png import HEADER, decode_plain_pngs
from mnist_core.scoring import MANY, score_batch


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(scanlines: bytes) -> bytes:
    return HEADER + chunk(b"IDAT", zlib.compress(scanlines)) + chunk(b"IEND", b"")


def scanlines(rng: np.random.Generator, filters: list[int]) -> bytes:
    """Random stored bytes under given filters: every file is valid, whatever they say."""
    stored = rng.integers(0, 256, (28, 28), dtype=np.uint8)
    return b"".join(bytes([kind]) + row.tobytes() for kind, row in zip(filters, stored, strict=True))


def by_pillow(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@given(st.lists(st.lists(st.integers(0, 4), min_size=28, max_size=28), min_size=1, max_size=5), st.integers(0, 999))
@settings(max_examples=50, deadline=None)
def test_any_filters_are_undone_as_pillow_does(filters, seed):
    rng = np.random.default_rng(seed)
    contents = [png(scanlines(rng, each)) for each in filters]
    indices, pixels = decode_plain_pngs(contents)
    assert indices.tolist() == list(range(len(contents)))
    np.testing.assert_array_equal(pixels, [by_pillow(content) for content in contents])


GOOD = png(scanlines(np.random.default_rng(1), [4, 3, 2, 1] * 7))
RAW = zlib.compress(bytes(28 * 29))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        GOOD[:-1],
        GOOD[:60] + bytes([GOOD[60] ^ 1]) + GOOD[61:],
        GOOD + b"more",
        png(bytes(28 * 29 - 1)),
        png(bytes(28 * 29 + 1)),
        png(b"\5" + bytes(28 * 29 - 1)),
        HEADER + chunk(b"IDAT", RAW[:9]) + chunk(b"IDAT", RAW[9:]) + chunk(b"IEND", b""),
        HEADER + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", RAW) + chunk(b"IEND", b""),
        HEADER + chunk(b"IDAT", b"no zlib") + chunk(b"IEND", b""),
        ValueError("not bytes"),
    ],
)
def test_what_is_not_plain_or_not_whole_is_left_alone(content):
    indices, pixels = decode_plain_pngs([GOOD, content, GOOD])
    assert indices.tolist() == [0, 2]
    np.testing.assert_array_equal(pixels, [by_pillow(GOOD)] * 2)


def test_nothing_gives_nothing():
    assert decode_plain_pngs([])[1].shape == decode_plain_pngs([b""])[1].shape == (0, 28, 28)


class Echo:
    """A predictor whose answer is the pixels themselves, to see which were decoded."""

    def predict(self, images):
        self.images = images
        from mnist_core.predictor import Predictions

        return Predictions(np.full((len(images), 10), 0.1, np.float32), np.zeros(len(images), np.float32))


def test_a_large_batch_gives_what_each_file_gives_alone():
    rng = np.random.default_rng(2)
    contents: list = [png(scanlines(rng, rng.integers(0, 5, 28).tolist())) for _ in range(MANY)]
    light = np.full((28, 28), 255, np.uint8)
    light[10:20, 12:15] = 0
    for spoiled in (
        b"",
        b"junk",
        png(bytes(28 * 29)),
        GOOD[:-9],
        png(b"".join(b"\0" + row.tobytes() for row in light)),
    ):
        contents.insert(7, spoiled)
    limits = ImageLimits()
    echo = Echo()
    rows = score_batch(
        ItemBatch([str(i) for i in range(len(contents))], [None] * len(contents), None, contents), echo, limits
    )
    alone, codes = [], []
    for content in contents:
        single = score_batch(ItemBatch(["x"], [None], None, [content]), Echo(), limits)
        codes.append((single.codes[0], single.messages[0]))
        if single.codes[0] is None:
            alone.append(decode_image(content).pixels)
    assert list(zip(rows.codes, rows.messages, strict=True)) == codes
    np.testing.assert_array_equal(echo.images, alone)
