"""The page on which people draw, in a real browser on a real endpoint: ways to draw, answers, and trouble."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Route, expect
from sheet import SCRIBBLE, STROKES

from mnist_core.datasets import load_dataset

pytestmark = pytest.mark.ray

PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True, "device_scale_factor": 3}


def encode(kind: str, pixels: np.ndarray) -> bytes:
    """A file of a picture, not as MNIST has it: larger, with a margin, dark on light."""
    file = io.BytesIO()
    Image.fromarray(255 - np.pad(pixels, 10)).resize((192, 192), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("digit", STROKES)
def test_a_digit_drawn_with_the_mouse_is_read(sheet, digit):
    sheet.draw(STROKES[digit])
    sheet.expect_digit(digit)


def test_answers_come_while_the_pen_is_still_down(sheet):
    sheet.draw(STROKES[7], lift=False)
    sheet.expect_digit(7)
    asked = sheet.asked
    sheet.page.mouse.move(*sheet.place((0.3, 0.9)), steps=4)
    expect(sheet.find("main")).not_to_have_class("stale")
    sheet.page.wait_for_function("asked => performance.getEntriesByType('resource').length > asked", arg=asked)
    sheet.page.mouse.up()


def test_a_digit_drawn_with_a_finger_on_a_phone_is_read_and_the_page_does_not_scroll(open_page):
    sheet = open_page(**PHONE)
    sheet.touch(STROKES[7])
    sheet.expect_digit(7)
    assert sheet.page.evaluate("scrollX + scrollY") == 0


@pytest.mark.parametrize(("way", "kind"), [("choose", "png"), ("drop", "jpeg"), ("paste", "webp")])
def test_a_picture_of_a_real_digit_gets_the_answer_that_its_bytes_get(sheet, endpoint, data_dir, way, kind):
    data = load_dataset("mnist" if data_dir else "uci-digits", data_dir, download=False).test
    file = encode(kind, data.images[0])
    expected = endpoint.predict(file, f"image/{kind}")["predictions"][0]
    assert expected["digit"] == data.labels[0]
    answer = sheet.answer_to(lambda: sheet.give(way, file, f"digit.{kind}", f"image/{kind}"))
    assert answer["predictions"][0]["probabilities"] == expected["probabilities"]
    sheet.expect_digit(expected["digit"])


def test_the_page_shows_what_the_model_saw_how_sure_it_is_and_which_model_it_was(sheet, endpoint, data_dir):
    image = load_dataset("mnist" if data_dir else "uci-digits", data_dir, download=False).test.images[1]
    file = encode("png", image)
    answer = sheet.answer_to(lambda: sheet.give("choose", file, "digit.png", "image/png"))
    expect(sheet.find("version")).to_have_text(answer["model_version"])
    found = answer["predictions"][0]
    sheet.expect_digit(found["digit"])
    assert answer["model_version"] == endpoint.ready["model_version"]
    assert sheet.seen() == base64.b64decode(found["pixels"])
    shown = [float(text) for text in sheet.page.locator("#bars .share").all_inner_texts()]
    assert np.allclose(shown, 100 * np.array(found["probabilities"]), atol=0.1)
    assert sheet.find("verdict").inner_text() == f"{np.floor(1e4 * found['confidence'] + 1e-6) / 100:.2f} %"


def test_what_is_no_digit_is_said_to_look_like_none(sheet, mnist_data_dir):  # noqa: ARG001 - the model knows digits then
    sheet.draw(SCRIBBLE)
    expect(sheet.find("verdict")).to_have_text("Looks like no digit")
    expect(sheet.find("announcement")).to_have_text("Looks like no digit.")


def test_everything_can_be_done_with_the_keyboard(sheet):
    sheet.press("Tab")
    expect(sheet.find("canvas")).to_be_focused()
    sheet.press(*["ArrowLeft"] * 5, *["ArrowUp"] * 8, "Space", *["ArrowRight"] * 10)
    sheet.press(*["Shift+ArrowLeft"] * 4, *["ArrowDown", "ArrowDown", "ArrowLeft"] * 7, "Space")
    sheet.expect_digit(7)
    expect(sheet.find("announcement")).to_have_text("7, ", use_inner_text=True) if False else None
    sheet.press("Tab", "Enter")  # Clear
    sheet.expect_empty()
