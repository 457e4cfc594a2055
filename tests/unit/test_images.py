"""The decoder: any image becomes one digit in MNIST's form, or is refused with a code; nothing else ever happens."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from fuzz_images import valid_files
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mnist_core.datasets import load_dataset
from mnist_core.errors import ImageError
from mnist_core.image_files import looks_encoded
from mnist_core.images import ImageLimits, decode_image, prepare_images

DIGITS = load_dataset("uci-digits").test.images[:40]


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels)


def drawing(size=(200, 300), paper=255, ink=0, mode="L") -> Image.Image:
    """A seven, off the middle."""
    image = Image.new(mode, size, paper)
    ImageDraw.Draw(image).line([(40, 60), (130, 60), (80, 220)], fill=ink, width=14, joint="curve")
    return image


SEVEN = decode_image(encode(drawing())).pixels


def alike(pixels: np.ndarray) -> float:
    """Correlation with the drawn seven."""
    return float(np.corrcoef(pixels.ravel(), SEVEN.ravel())[0, 1])


def code_of(data: bytes, limits: ImageLimits = ImageLimits()) -> str:  # noqa: B008
    with pytest.raises(ImageError) as caught:
        decode_image(data, limits)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value.code


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_a_digit_in_mnists_form_passes_bit_for_bit(mode):
    for digit in DIGITS:
        np.testing.assert_array_equal(decode_image(encode(grey(digit).convert(mode))).pixels, digit)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "GIF"])
def test_it_passes_bit_for_bit_in_other_lossless_formats(kind):
    np.testing.assert_array_equal(decode_image(encode(grey(DIGITS[0]), kind)).pixels, DIGITS[0])


def test_real_mnist_passes_bit_for_bit(mnist_data_dir: Path):
    images = load_dataset("mnist", mnist_data_dir).test.images
    for image in images[:300]:
        np.testing.assert_array_equal(decode_image(encode(grey(image))).pixels, image)
    prepared, blank = prepare_images(images)
    assert not blank.any()
    np.testing.assert_array_equal(prepared, images)


def test_dark_on_light_is_inverted_in_files_and_arrays_alike():
    inverted = 255 - DIGITS
    prepared, blank = prepare_images(inverted)
    assert not blank.any()
    np.testing.assert_array_equal(prepared, DIGITS)
    np.testing.assert_array_equal(decode_image(encode(grey(inverted[0]))).pixels, DIGITS[0])


def test_a_drawn_digit_is_fitted_into_20x20_and_centred_by_mass():
    rows, columns = np.nonzero(SEVEN > 20)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20, 21)
    mass = SEVEN.astype(float)
    middle = [(mass.sum(axis=axis) @ np.arange(28)) / mass.sum() for axis in (1, 0)]
    assert middle == pytest.approx([13.5, 13.5], abs=0.75)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_format_gives_the_same_digit(kind, mode):
    assert alike(decode_image(encode(drawing().convert(mode), kind)).pixels) > 0.97


@pytest.mark.parametrize(
    "image",
    [
        drawing(paper=0, ink=255),
        drawing(mode="RGB", paper=(250, 240, 200), ink=(20, 40, 160)),
        drawing(mode="RGBA", paper=(0, 0, 0, 0), ink=(0, 0, 0, 255)),
        drawing(mode="RGBA", paper=(0, 0, 0, 0), ink=(255, 255, 255, 255)),
        drawing(mode="1", paper=1, ink=0),
        Image.fromarray(np.asarray(drawing()).astype(np.uint16) * 257),
    ],
    ids=["white on black", "colours", "black on transparent", "white on transparent", "1 bit", "16 bit"],
)
def test_every_mode_gives_the_same_digit(image):
    assert alike(decode_image(encode(image)).pixels) > 0.97


def test_the_shadow_on_a_photo_and_its_noise_are_no_ink():
    tones = np.asarray(drawing(size=(400, 400))).astype(float)
    shadow = np.linspace(0.55, 1, 400)[None, :] * np.linspace(0.8, 1, 400)[:, None]
    noise = np.random.default_rng(0).normal(0, 4, tones.shape)
    photo = np.clip((60 + tones * 0.7) * shadow + noise, 0, 255).astype(np.uint8)
    assert alike(decode_image(encode(grey(photo), "JPEG", quality=85)).pixels) > 0.9


def test_a_photo_is_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = drawing().transpose(Image.Transpose.ROTATE_90)
    assert alike(decode_image(encode(turned, "JPEG", exif=exif)).pixels) > 0.97


def test_what_is_refused_has_a_code():
    png = encode(drawing())
    assert code_of(b"") == "image_empty"
    assert code_of(b"a text that is long enough to be no image") == "not_an_image"
    assert code_of(png[: len(png) // 2]) == "image_truncated"
    assert code_of(png, ImageLimits(max_bytes=100)) == "image_too_many_bytes"
    assert code_of(png, ImageLimits(max_pixels=1000)) == "image_too_many_pixels"
    for blank in (
        grey(np.zeros((28, 28), np.uint8)),
        Image.new("L", (300, 200), 255),
        Image.new("RGB", (90, 90), "red"),
    ):
        assert code_of(encode(blank)) == "image_blank"


def test_a_bomb_is_refused_from_its_header():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )
    assert code_of(bomb) == "image_too_many_pixels"


def test_of_an_animation_the_first_frame_is_taken_and_the_number_is_said():
    frames = [drawing(), drawing(paper=200), drawing(paper=180)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    image = decode_image(data)
    assert image.num_frames == 3
    assert alike(image.pixels) > 0.97


def test_blank_arrays_are_told_from_digits():
    images = np.concatenate([DIGITS[:3], np.zeros((1, 28, 28), np.uint8), np.full((1, 28, 28), 255, np.uint8)])
    assert prepare_images(images)[1].tolist() == [False] * 3 + [True] * 2
    assert [len(each) for each in prepare_images(np.empty((0, 28, 28), np.uint8))] == [0, 0]


VALID = [encode(drawing(size=(40, 60)).convert(mode), kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
         for mode in ("L", "RGB")]  # fmt: skip


@given(st.sampled_from(VALID), st.data())
@settings(max_examples=300, deadline=None)
def test_a_mutated_file_gives_a_digit_or_an_image_error_and_nothing_else(valid, data):
    content = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    stop = data.draw(st.integers(1, len(content)))
    try:
        pixels = decode_image(bytes(content[:stop])).pixels
    except ImageError:
        return
    assert (pixels.shape, pixels.dtype) == ((28, 28), np.uint8)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_refused_or_read(data):
    with contextlib.suppress(ImageError):
        decode_image(data)


def test_every_kind_of_file_looks_like_one_and_pixels_do_not_though_they_begin_as_some_do():
    assert all(map(looks_encoded, valid_files()))
    assert not any(looks_encoded(digit.tobytes()) for digit in DIGITS)
    for beginning in (b"", b"BM", b"RIFF", b"\xff\xd8\xff"):
        for rest in (b"\0", b"\xc8", b"\xff"):
            assert not looks_encoded(beginning.ljust(784, rest))
