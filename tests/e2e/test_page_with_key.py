"""The page of an endpoint that asks for an API key."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from sheet import STROKES

pytestmark = pytest.mark.ray

KEY = "open-sesame"


def SERVE_FLAGS(folder):  # noqa: N802 - read by the endpoint's fixture
    (folder / "keys").write_text(f"# for the test\n{KEY}\n")
    return ["--api-key-file", str(folder / "keys")]


@pytest.fixture
def asked(sheet):
    """The page after a drawing, which the endpoint did not look at."""
    before = sheet.paper
    sheet.draw(STROKES[7])
    expect(sheet.find("problem")).to_have_text("This endpoint asks for an API key.")
    expect(sheet.find("key")).to_be_visible()
    assert sheet.paper == before  # it does not move under the pen
    assert (sheet.asked, len(sheet.complaints)) == (1, 1)  # and asking is no use until there is a key
    sheet.complaints.clear()
    return sheet


def enter(sheet, key):
    sheet.find("key").fill(key)
    sheet.press("Enter")


def test_the_drawing_is_read_once_the_key_is_given(asked):
    enter(asked, KEY)
    asked.expect_digit(7)
    expect(asked.find("key-form")).to_be_hidden()
    expect(asked.find("canvas")).to_be_focused()
    expect(asked.find("problem")).to_have_text("")


def test_a_wrong_key_is_said_to_be_wrong_and_another_can_be_given(asked):
    enter(asked, "not it")
    expect(asked.find("problem")).to_have_text("A key has letters, digits and signs only, no spaces.")
    enter(asked, "guess")
    expect(asked.find("problem")).to_have_text("This API key was not accepted.")
    enter(asked, KEY)
    asked.expect_digit(7)
    assert ["401" in complaint for complaint in asked.complaints] == [True]
    asked.complaints.clear()


def test_the_key_is_kept_in_the_tab_only_and_until_it_is_forgotten(asked):
    enter(asked, KEY)
    asked.expect_digit(7)
    stored = "[JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie, location.href]"
    in_tab, *elsewhere = asked.page.evaluate(stored)
    assert KEY in in_tab
    assert not [place for place in elsewhere if KEY in place]
    asked.page.reload()
    asked.draw(STROKES[1])
    asked.expect_digit(1)
    asked.find("forget-key").click()
    expect(asked.find("key")).to_be_focused()
    assert KEY not in asked.page.evaluate(stored)[0]


def test_the_field_fits_on_a_phone_of_320_pixels(open_page):
    sheet = open_page(viewport={"width": 320, "height": 568}, has_touch=True, is_mobile=True)
    sheet.touch(STROKES[7])
    expect(sheet.find("key")).to_be_visible()
    assert sheet.page.evaluate("document.documentElement.scrollWidth") == 320
    assert sheet.find("key").bounding_box()["height"] >= 44
    sheet.complaints.clear()
