"""The files of the page to draw on, without a browser: all that they need is served, and from nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from serve import pages

FOLDER = Path(pages.__file__).with_name("page")
PATHS = {route.path for route in pages.ROUTES}
HTML = (FOLDER / "index.html").read_text(encoding="utf-8")


def test_all_that_the_page_names_is_served():
    named = set(re.findall(r'(?:href|src)="(page/[^"]+)"', HTML))
    imported = {
        f"page/{name}" for path in FOLDER.glob("*.js") for name in re.findall(r'from "\./(.+)"', path.read_text())
    }
    assert {"page/draw.js", "page/style.css", "page/icon.svg"} <= named
    assert imported <= named  # preloaded, so that one does not wait for the other
    assert {f"/{path}" for path in named} <= PATHS


@pytest.mark.parametrize("name", ["index.html", "style.css", "icon.svg", *pages.SCRIPTS])
def test_a_file_of_the_page_asks_no_other_host(name: str):
    text = (FOLDER / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"(https?:|[\"'(]//|@import|url\()\S*", text)


def test_the_page_has_nothing_inline_that_its_policy_would_refuse():
    assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", HTML)
    assert all(f'src="page/{name}"' in script for script in re.findall(r"<script[^>]*>", HTML) for name in ["draw.js"])


@pytest.mark.parametrize("name", pages.SCRIPTS)
def test_a_script_stays_below_300_lines_of_which_none_is_longer_than_120(name: str):
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) < 300
    assert max(map(len, lines)) <= 120
