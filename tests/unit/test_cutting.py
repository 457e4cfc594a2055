"""Several digits in one picture: found, in order, each with its box; and refused with a code where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lines import HEIGHT, ByHeart, encode, glyph, write
from PIL import Image

from mnist_core.candidates import divide, find_candidates, most_work
from mnist_core.cutting import Digits, choose_digits, cut_picture
from mnist_core.datasets import load_dataset
from mnist_core.errors import ImageError
from mnist_core.images import ImageLimits, decode_image
from mnist_core.ink import Ink
from mnist_core.parts import find_parts
from mnist_core.predictor import Predictions

MODEL = ByHeart()


def read(pixels: np.ndarray, **options):
    return cut_picture(encode(pixels), MODEL, **options)


def code_of(data: bytes, **options) -> str:
    with pytest.raises(ImageError) as caught:
        cut_picture(data, MODEL, **options)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value.code


def test_digits_come_from_left_to_right_with_their_boxes():
    pixels, boxes = write("90210")
    found = read(pixels)
    assert found.text == "90210"
    np.testing.assert_allclose(found.boxes, boxes, atol=4)
    assert (found.pixels.shape, found.pixels.dtype, found.num_frames) == ((5, 28, 28), np.uint8, 1)
    assert len(found.predictions.confidences) == len(found) == 5


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_on_a_line_is_framed_as_it_is_alone(digit):
    pixels, boxes = write(f"{digit}0")
    left, _, width, _ = boxes[0]
    alone = decode_image(encode(pixels[:, : left + width + 8])).pixels
    cut = read(pixels).pixels[0]
    assert np.corrcoef(alone.ravel(), cut.ravel())[0, 1] > 0.98


def test_lines_are_read_from_top_to_bottom_even_if_they_slope():
    first, second = write("123")[0], write("4567")[0]
    page = np.full((first.shape[0] + second.shape[0], max(first.shape[1], second.shape[1])), 255, np.uint8)
    page[: first.shape[0], : first.shape[1]] = first
    page[first.shape[0] :, : second.shape[1]] = second
    found = read(page)
    assert (found.text, found.lines.tolist()) == ("123\n4567", [0] * 3 + [1] * 4)
    tilted = Image.fromarray(page).rotate(8, Image.Resampling.BICUBIC, expand=True, fillcolor=255)
    assert read(np.asarray(tilted)).text == "123\n4567"


@pytest.mark.parametrize(("paper", "ink"), [((255, 250, 235), (20, 30, 150)), ((30, 60, 40), (240, 240, 230))])
def test_colours_of_pen_and_paper_do_not_matter(paper, ink):
    share = 1 - write("4071")[0][..., None] / 255
    assert read((np.array(paper) + share * (np.array(ink) - paper)).astype(np.uint8)).text == "4071"


@pytest.mark.parametrize("text", ["83", "05", "42", "33", "6073"])
def test_digits_that_touch_are_cut_apart(text):
    pixels, boxes = write(text, gaps=-3)
    found = read(pixels)
    assert found.text == text
    np.testing.assert_allclose(found.boxes[:, [0, 2]], np.array(boxes)[:, [0, 2]], atol=8)


def test_a_digit_whose_strokes_do_not_meet_is_one():
    pixels, boxes = write("353")
    left, top, width, _ = boxes[1]
    pixels[top + 14 : top + 18, left : left + width] = 255  # the bar of the five floats
    found = read(pixels)
    assert found.text == "353"
    np.testing.assert_allclose(found.boxes, boxes, atol=4)


def test_specks_dots_and_ruled_lines_are_no_digits():
    pixels = write("27182", gaps=25)[0]
    pixels[20:23, 40:42] = 0
    left = 30 + glyph(2).shape[1] + 8
    pixels[30 + HEIGHT - 9 : 30 + HEIGHT, left : left + 9] = 0  # a decimal point
    pixels[-14:-11, 10:-10] = 60
    assert read(pixels).text == "27182"


def test_an_image_of_28x28_is_one_digit_bit_for_bit():
    digit = load_dataset("uci-digits").test.images[0]
    for pixels in (digit, 255 - digit):
        found = read(pixels)
        np.testing.assert_array_equal(found.pixels, digit[None])
        rows, columns = np.nonzero(digit > 100)
        left, top, width, height = found.boxes[0]
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)


def test_boxes_are_told_in_the_pixels_of_the_file_turned_upright():
    pixels, boxes = write("7410")
    large = Image.fromarray(pixels).resize((pixels.shape[1] * 8, pixels.shape[0] * 8))
    found = read(np.asarray(large))
    assert found.text == "7410"
    np.testing.assert_allclose(found.boxes, 8 * np.array(boxes), atol=40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = np.asarray(Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90))
    upright = cut_picture(encode(turned, "JPEG", exif=exif, quality=95), MODEL)
    assert upright.text == "7410"
    np.testing.assert_allclose(upright.boxes, boxes, atol=5)


def test_there_is_a_limit_to_the_digits_of_a_picture():
    pixels = write("1234567")[0]
    assert len(read(pixels, most=7)) == 7
    assert code_of(encode(pixels), most=6) == "image_too_many_digits"
    with pytest.raises(ImageError, match=r"found 7 digits.*expected at most 6.*cut it into several"):
        find_candidates(encode(pixels), most=6)


def test_cuts_too_are_counted_against_the_limit():
    data = encode(write("6073", gaps=-3)[0])
    candidates = find_candidates(data, most=3)
    assert candidates.fewest < 4
    with pytest.raises(ImageError, match="at most 3"):
        choose_digits(candidates, MODEL.predict(candidates.pixels), most=3)


def test_what_is_refused_has_the_codes_of_the_decoder():
    png = encode(write("12")[0])
    assert code_of(b"") == "image_empty"
    assert code_of(b"a text that is long enough to be no image") == "not_an_image"
    assert code_of(png[: len(png) // 2]) == "image_truncated"
    assert code_of(png, limits=ImageLimits(max_bytes=100)) == "image_too_many_bytes"
    assert code_of(png, limits=ImageLimits(max_pixels=1000)) == "image_too_many_pixels"
    for blank in (np.full((100, 500), 255, np.uint8), np.zeros((28, 28), np.uint8), np.full((9, 9), 7, np.uint8)):
        assert code_of(encode(blank)) == "image_blank"


def test_noise_costs_bounded_work_and_nothing_else_is_ever_raised():
    noise = np.random.default_rng(0).integers(0, 256, (600, 900), np.uint8)
    assert code_of(encode(noise)) in ("image_too_many_digits", "image_blank")


def test_thousands_of_pieces_are_refused_before_they_are_looked_at():
    rows, columns = np.indices((600, 600)) % 12
    inked = (rows >= 2) & (rows < 10) & (columns >= 2) & (columns < 10)
    ink = Ink(np.where(inked, 200.0, 0.0), inked, np.float64(200), inked)
    with pytest.raises(ImageError, match=r"found 2500 pieces of ink.*at most 64 digits"):
        find_parts(ink, most=64)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_any_pixels_give_digits_or_an_image_error(height, width, seed, share):
    pixels = 255 * (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    try:
        found = read(pixels)
    except ImageError:
        return
    left, top, wide, high = found.boxes.T
    assert len(found) >= 1
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (wide > 0).all()
    assert (high > 0).all()
    assert (left + wide <= width).all()
    assert (top + high <= height).all()


def test_the_cheapest_division_is_found_and_parts_are_left_out_only_at_their_price():
    spans = np.array([[0, 1], [1, 2], [0, 2], [2, 3]])
    losses = np.array([9.0, 9.0, 1.0])
    assert divide(spans, np.array([2.0, 2.0, 3.0, 5.0]), losses) == [2]
    assert divide(spans, np.array([1.0, 1.0, 3.0, 0.5]), losses) == [0, 1, 3]
    assert divide(spans[:0], np.empty(0), losses) == []


def bars(rows: int, columns: int = 64) -> np.ndarray:
    """Strokes that stand so close that many runs of them may be a digit."""
    page = np.full((80 * rows, 464), 255, np.uint8)
    for top in range(20, len(page), 80):
        for left in range(40, 40 + 6 * columns, 6):
            page[top : top + 40, left : left + 2] = 0
    return page


@pytest.mark.parametrize("rows", [3, 8])
def test_strokes_that_may_be_digits_in_thousands_of_ways_are_refused_before_any_is_framed(rows, monkeypatch):
    monkeypatch.setattr("mnist_core.candidates.frame_ink", lambda _: pytest.fail("framed"))
    data = encode(bars(rows))
    with pytest.raises(ImageError, match=r"found \d{4} places where a digit may be, expected at most 1380") as caught:
        find_candidates(data)
    assert (caught.value.code, len(str(caught.value).splitlines())) == ("image_too_many_digits", 1)


def test_a_long_piece_of_ink_in_thousands_of_parts_is_refused_before_they_are_looked_at(monkeypatch):
    page = np.full((632, 632), 255, np.uint8)
    for top in range(8, 600, 16):
        page[top + 5 : top + 7, 10:610] = 0
        for left in range(10, 610, 4):
            page[top : top + 10, left : left + 2] = 0
    monkeypatch.setattr("mnist_core.candidates._judge_shape", lambda _: pytest.fail("looked at"))
    assert code_of(encode(page)) == "image_too_many_digits"


def test_pictures_within_the_limits_are_read_though_all_digits_touch():
    page = np.concatenate([write("9021046", gaps=-3)[0]] * 8)
    found = find_candidates(encode(page))
    assert len(found.pixels) < most_work(56)
    assert choose_digits(found, MODEL.predict(found.pixels)).text == "\n".join(["9021046"] * 8)
    assert 64 < len(find_candidates(encode(bars(1))).pixels) <= most_work(64)


def test_a_rejected_digit_is_a_question_mark_in_the_text():
    probabilities = np.eye(10, dtype=np.float32)[[4, 2, 7, 1]]
    said = Predictions(probabilities, np.array([0, 1.5, np.nan, 1], np.float32))
    found = Digits(np.empty((4, 4)), np.empty((4, 28, 28)), np.array([0, 0, 1, 1]), said, 1)
    assert found.text == "4?\n?1"
    assert said.digits.tolist() == [4, 2, 7, 1]
