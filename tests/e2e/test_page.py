"""The page on which people draw, in a real browser on a real endpoint: ways to draw, answers, trouble, and looks."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Route, expect
from sheet import STROKES, contrast

from mnist_core.datasets import load_dataset

pytestmark = pytest.mark.ray

PHONE = {"viewport": {"width": 320, "height": 568}, "has_touch": True, "is_mobile": True, "device_scale_factor": 3}
PREDICT = "**/predict*"
SEVEN_IN_TWO = [[(0.28, 0.22), (0.72, 0.22)], [(0.72, 0.22), (0.46, 0.82)]]


@pytest.fixture
def digits(data_dir):
    """Real digits, written by people."""
    return load_dataset("mnist" if data_dir else "uci-digits", data_dir, download=False).test


def encode(kind: str, pixels: np.ndarray) -> bytes:
    """A picture as people have them: larger than MNIST's, with a margin, dark on light."""
    file = io.BytesIO()
    Image.fromarray(255 - np.pad(pixels, 10)).resize((192, 192), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("digit", STROKES)
def test_a_digit_drawn_with_the_mouse_is_read(sheet, digit):
    sheet.draw(STROKES[digit])
    sheet.expect_digit(digit)


def test_answers_come_while_the_mouse_is_still_down(sheet):
    sheet.draw(STROKES[7], lift=False)
    sheet.expect_digit(7)
    sheet.answer_to(lambda: sheet.page.mouse.move(*sheet.place((0.4, 0.9))))
    sheet.page.mouse.up()


def test_a_digit_drawn_with_a_finger_on_a_phone_is_read_and_the_page_does_not_scroll(open_page):
    sheet = open_page(**PHONE)
    sheet.touch(STROKES[7])
    sheet.expect_digit(7)
    assert sheet.page.evaluate("scrollX + scrollY") == 0


@pytest.mark.parametrize(("way", "kind"), [("choose", "png"), ("drop", "jpeg"), ("paste", "webp")])
def test_a_picture_of_a_real_digit_gets_the_answer_that_its_bytes_get(sheet, endpoint, digits, way, kind):
    file = encode(kind, digits.images[0])
    expected = endpoint.predict(file, f"image/{kind}")["predictions"][0]
    answer = sheet.answer_to(lambda: sheet.give(way, file, f"digit.{kind}", f"image/{kind}"))
    assert answer["predictions"][0]["probabilities"] == expected["probabilities"]
    assert expected["digit"] == digits.labels[0]
    sheet.expect_digit(digits.labels[0])


def test_the_page_shows_what_the_model_saw_how_sure_it_is_and_which_model_it_was(sheet, endpoint, digits):
    file = encode("png", digits.images[1])
    answer = sheet.answer_to(lambda: sheet.give("choose", file, "digit.png", "image/png"))
    found = answer["predictions"][0]
    sheet.expect_digit(found["digit"])
    expect(sheet.find("version")).to_have_text(endpoint.ready["model_version"])
    assert sheet.seen() == base64.b64decode(found["pixels"])
    shown = [float(text) for text in sheet.page.locator("#bars .share").all_inner_texts()]
    assert np.allclose(shown, 100 * np.array(found["probabilities"]), atol=0.1)
    assert abs(float(sheet.find("verdict").inner_text().removesuffix(" %")) - 100 * found["confidence"]) <= 0.01


def test_what_is_no_digit_is_said_to_look_like_none(sheet, data_dir):
    if not data_dir:
        pytest.skip("a model that knows what a digit is needs the real MNIST files: set MNIST_DATA_DIR to their folder")
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    sheet.give("drop", encode("png", noise), "noise.png", "image/png")
    expect(sheet.find("verdict")).to_have_text("Looks like no digit")
    expect(sheet.find("announcement")).to_have_text("Looks like no digit.")


def test_a_digit_drawn_with_the_keyboard_is_read_and_cleared(sheet):
    sheet.press("Tab")
    expect(sheet.find("canvas")).to_be_focused()
    sheet.press(*["ArrowLeft"] * 5, *["ArrowUp"] * 8, "Space", *["ArrowRight"] * 10)
    sheet.page.keyboard.down("ArrowLeft")  # and held while another is pressed: a slanted line
    sheet.press(*["ArrowDown"] * 6)
    sheet.page.keyboard.up("ArrowLeft")
    sheet.press(*["Shift+ArrowDown"] * 36, "Space", *["ArrowLeft"] * 8)
    sheet.expect_digit(7)
    expect(sheet.find("announcement")).to_have_text(re.compile(r"^7, \d+\.\d\d percent\.$"))
    sheet.press("Escape")
    sheet.expect_empty()


def test_every_control_is_reached_by_keyboard_and_shows_that_it_has_the_focus(sheet):
    reached = []
    for _ in range(5):
        sheet.press("Tab")
        name, outline = sheet.page.evaluate(
            """() => {
                const active = document.activeElement;
                const shown = active.type === "file" ? active.labels[0] : active;
                return [active.id || active.tagName, getComputedStyle(shown).outlineStyle];
            }"""
        )
        assert outline == "solid", name
        reached.append(name)
    assert reached == ["canvas", "clear", "undo", "file", "A"]


def test_undo_takes_back_the_last_stroke_and_the_clear_button_the_rest(sheet):
    bar, leg = SEVEN_IN_TWO
    sheet.draw([leg])
    sheet.expect_digit(1)
    sheet.draw([bar])
    sheet.expect_digit(7)
    sheet.press("Control+z")
    sheet.expect_digit(1)
    sheet.find("clear").click()
    sheet.expect_empty()
    sheet.draw(STROKES[0])
    sheet.expect_digit(0)
    sheet.find("undo").click()
    sheet.expect_empty()


def test_one_question_is_asked_at_a_time_and_the_newest_drawing_is_the_next(sheet):
    held: list[Route] = []
    sheet.page.route(PREDICT, lambda route: route.continue_() if held else held.append(route))
    first, second = SEVEN_IN_TWO
    with sheet.page.expect_request(PREDICT):
        sheet.draw([first])
    sheet.draw([second])
    assert (sheet.asked, len(held)) == (1, 1)
    held[0].continue_()
    sheet.expect_digit(7)
    assert sheet.asked == 2


def test_an_answer_to_what_was_cleared_meanwhile_is_not_shown(sheet):
    held: list[Route] = []
    sheet.page.route(PREDICT, lambda route: held.append(route))
    with sheet.page.expect_request(PREDICT):
        sheet.draw(STROKES[7])
    with sheet.page.expect_event("requestfailed"):  # given up by the page
        sheet.press("Escape")
    sheet.expect_empty()
    sheet.page.unroute_all(behavior="ignoreErrors")
    sheet.draw(STROKES[1])
    sheet.expect_digit(1)


def failing(status: int, **error: str) -> dict:
    return {"status": status, "content_type": "application/json", "body": json.dumps({"error": error})}


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (lambda route: route.abort("connectionrefused"), "The endpoint does not answer. Trying again."),
        (lambda route: route.fulfill(**failing(503, code="overloaded")), "The endpoint is busy. Trying again."),
        (
            lambda route: route.fulfill(**failing(500, code="internal", request_id="abc")),
            "The endpoint failed (status 500, request abc). Trying again.",
        ),
        (
            lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>"),
            "The endpoint failed (status 502). Trying again.",
        ),
    ],
)
def test_trouble_is_told_in_a_line_and_gone_as_soon_as_the_endpoint_answers_again(sheet, fault, line):
    sheet.page.route(PREDICT, fault)
    sheet.draw(STROKES[7])
    expect(sheet.find("problem")).to_have_text(line)
    expect(sheet.find("main")).to_have_class("stale")
    sheet.page.unroute_all(behavior="wait")
    sheet.expect_digit(7)
    expect(sheet.find("problem")).to_have_text("")
    assert all(complaint.startswith("Failed to load resource") for complaint in sheet.complaints)
    sheet.complaints.clear()


def test_a_file_that_is_no_picture_is_refused_in_a_line_and_drawing_goes_on(sheet):
    sheet.give("choose", b"%PDF-1.7 and so on", "seven.pdf", "application/pdf")
    expect(sheet.find("problem")).to_have_text(re.compile(r"^Received .* expected .*\.$"))
    sheet.draw(STROKES[7])
    sheet.expect_digit(7)
    expect(sheet.find("problem")).to_have_text("")
    assert ["400" in complaint for complaint in sheet.complaints] == [True]
    sheet.complaints.clear()


def test_a_phone_of_320_pixels_scrolls_in_one_direction_only_and_has_large_targets(open_page):
    sheet = open_page(**PHONE)
    for state in ("empty", "answered"):
        expect(sheet.find("main")).to_have_attribute("data-state", state)
        assert sheet.page.evaluate("document.documentElement.scrollWidth") == 320
        sheet.touch(STROKES[7])
    for target in sheet.page.locator("button:visible, .button:visible, a").all():
        box = target.bounding_box()
        assert min(box["width"], box["height"]) >= 44, target
    assert sheet.paper["width"] == 288


@pytest.mark.parametrize("size", [(568, 320), (667, 375), (640, 480), (768, 1024), (1024, 600), (1920, 1080)])
def test_no_window_scrolls_sideways_and_in_none_is_the_paper_larger_than_what_can_be_seen(open_page, size):
    sheet = open_page(viewport=dict(zip(("width", "height"), size, strict=True)))
    assert sheet.page.evaluate("document.documentElement.scrollWidth") == size[0]
    paper = sheet.paper
    assert paper["width"] == pytest.approx(paper["height"], abs=1)
    assert paper["y"] + paper["height"] <= size[1]


def test_the_paper_has_every_pixel_of_a_sharp_screen(open_page):
    sheet = open_page(**PHONE)
    expect(sheet.find("canvas")).to_have_attribute("width", str(3 * 288))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_in_dark(open_page, scheme):
    sheet = open_page(color_scheme=scheme)
    grounds = {each: sheet.colour(each, "background-color") for each in ("body", "#paper", "#clear")}
    assert len(set(grounds.values())) > 1
    for text, ground, least in [
        ("body", "body", 12),
        ("h2", "body", 4.5),
        ("#problem", "body", 4.5),
        ("#digit", "body", 7),
        ("#prompt", "#paper", 4.5),
        ("#canvas", "#paper", 7),
        ("#clear", "#clear", 12),
    ]:
        assert contrast(sheet.colour(text, "color"), grounds[ground]) >= least, text


def test_nothing_moves_for_who_asked_for_no_motion(open_page):
    sheet = open_page(reduced_motion="reduce")
    durations = "[...document.querySelectorAll('*')].map((each) => getComputedStyle(each).transitionDuration)"
    assert set(sheet.page.evaluate(durations)) == {"0s"}
