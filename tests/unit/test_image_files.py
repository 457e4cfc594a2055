"""What is read of a file before a decoder gets it, and what the decoder gets."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mnist_core.errors import ImageBrokenError, ImageTruncatedError
from mnist_core.image_files import read_image_file
from mnist_core.images import ImageLimits, decode_image

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80), np.uint8))
SCAN, END = b"\xff\xda", b"\xff\xd9"
FILM = b"\0\0\0\x18ftypmp42" + SCAN * 400 + END + bytes(2000)
"""A film as phones append it, with the bytes in it that begin a scan."""


def jpeg(image: Image.Image = NOISE, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("appended", [FILM, jpeg(progressive=True) * 3], ids=["film", "pictures"])
def test_what_phones_append_to_a_jpeg_is_cut_off_before_scans_are_counted(progressive, appended):
    plain = jpeg(progressive=progressive)
    found, expected = read_image_file(plain + appended), read_image_file(plain)
    assert found == expected
    assert found.cost == 1
    assert found.data.endswith(END)
    np.testing.assert_array_equal(pixels(found.data), pixels(plain))


def test_a_photo_with_a_film_is_no_larger_than_the_photo():
    photo = Image.new("L", (300, 200), 255)
    photo.paste(0, (140, 40, 150, 160))
    data, limits = jpeg(photo), ImageLimits(max_pixels=70_000)
    np.testing.assert_array_equal(decode_image(data + FILM, limits).pixels, decode_image(data, limits).pixels)


def test_an_end_marker_within_a_segment_is_none():
    plain = jpeg(progressive=True)
    second = plain.index(SCAN, plain.index(SCAN) + 2)
    for kind in (b"\xff\xfe", b"\xff\xe5"):
        remark = kind + b"\0\x08" + END + SCAN + END
        found = read_image_file(plain[:second] + remark + plain[second:])
        assert (found.data, found.cost) == (read_image_file(plain).data, 1)


def test_scans_are_counted_to_the_end():
    plain = jpeg()
    scan = plain[plain.index(SCAN) : -2]
    assert read_image_file(plain[:-2] + scan * 63 + END).cost == 4


def test_a_size_behind_the_first_scan_changes_nothing():
    plain = jpeg(progressive=True)
    size = b"\xff\xc0\0\x0b\x08" + b"\0\x01\0\x01" + b"\x01\x01\x11\0"
    found = read_image_file(plain[:-2] + size + END)
    assert (found.width, found.height) == NOISE.size


def test_a_jpeg_without_its_end_is_cut_off():
    plain = jpeg()
    start = plain.index(SCAN)
    for data in (plain[:-2], plain[: start + 40], plain[: start + 2], plain[:start], plain[:start] + END * 9):
        with pytest.raises(ImageTruncatedError):
            read_image_file(data)


def test_a_jpeg_of_nothing_but_segments_is_refused_soon():
    plain = jpeg()
    start = plain.index(SCAN)
    for place in (start, len(plain) - 2):
        with pytest.raises(ImageBrokenError, match="expected less than 100000 segments, found more"):
            read_image_file(plain[:place] + b"\xff\xfe\0\x02" * 100_000 + plain[place:])
