"""The page as a person uses it: strokes, fingers, keys and files, and what can be read then."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, Request, Response, expect

Point = tuple[float, float]

STROKES: Final[dict[int, list[list[Point]]]] = {
    0: [[(0.5 - 0.2 * math.sin(t / 4), 0.5 - 0.32 * math.cos(t / 4)) for t in range(26)]],
    1: [[(0.53, 0.18), (0.47, 0.82)]],
    7: [[(0.28, 0.22), (0.72, 0.22), (0.58, 0.5), (0.46, 0.82)]],
}
"""By digit; points from 0 to 1 on the paper."""

_MAKE_FILE: Final = """([base64, name, type]) => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
    return transfer;
}"""


@dataclass
class Sheet:
    """An open page, and what it did: which hosts it asked, what it complained of, and how many questions at once."""

    page: Page
    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    asked: int = 0
    under_way: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.page.on("request", self._began)
        self.page.on("requestfinished", self._ended)
        self.page.on("requestfailed", self._ended)
        self.page.on("console", lambda message: message.type != "error" or self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _began(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("blob", "data"):
            self.hosts.add(url.netloc)
        if url.path == "/predict":
            self.asked += 1
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)

    def _ended(self, request: Request) -> None:
        self.under_way -= urlsplit(request.url).path == "/predict"

    def find(self, name: str) -> Locator:
        return self.page.locator(f"#{name}")

    @property
    def paper(self) -> dict[str, float]:
        box = self.find("canvas").bounding_box()
        assert box
        return dict(box)

    def place(self, point: Point) -> Point:
        """Where a point of the paper is in the window."""
        box = self.paper
        return box["x"] + point[0] * box["width"], box["y"] + point[1] * box["height"]

    def draw(self, strokes: Iterable[list[Point]], *, lift: bool = True) -> None:
        """With the mouse."""
        for first, *rest in strokes:
            self.page.mouse.move(*self.place(first))
            self.page.mouse.down()
            for point in rest:
                self.page.mouse.move(*self.place(point), steps=4)
            if lift:
                self.page.mouse.up()

    def touch(self, strokes: Iterable[list[Point]]) -> None:
        """With a finger: the events that a phone's screen sends."""
        session = self.page.context.new_cdp_session(self.page)

        def send(kind: str, points: list[Point]) -> None:
            places = [dict(zip("xy", self.place(point), strict=True)) for point in points]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

        for first, *rest in strokes:
            send("touchStart", [first])
            for start, end in zip([first, *rest], rest, strict=False):
                for part in (0.25, 0.5, 0.75, 1):
                    send("touchMove", [tuple(a + part * (b - a) for a, b in zip(start, end, strict=True))])
            send("touchEnd", [])

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def give(self, way: str, data: bytes, name: str, kind: str) -> None:
        """Choose, drop or paste a file."""
        if way == "choose":
            self.find("file").set_input_files({"name": name, "mimeType": kind, "buffer": data})
            return
        transfer = self.page.evaluate_handle(_MAKE_FILE, [base64.b64encode(data).decode(), name, kind])
        if way == "drop":
            for event in ("dragover", "drop"):
                self.find("paper").dispatch_event(event, {"dataTransfer": transfer})
        else:
            self.page.evaluate(
                "(clipboardData) => document.body.dispatchEvent("
                "new ClipboardEvent('paste', { clipboardData, bubbles: true }))",
                transfer,
            )

    def expect_digit(self, digit: int) -> None:
        expect(self.find("digit")).to_have_text(str(digit))
        expect(self.page.locator("#bars .first dt")).to_have_text(str(digit))
        expect(self.page.locator("main.stale")).to_have_count(0)

    def expect_empty(self) -> None:
        expect(self.find("main")).to_have_attribute("data-state", "empty")
        expect(self.find("digit")).to_have_text("")

    def answer_to(self, action: Callable[[], None]) -> dict[str, Any]:
        """The first answer that comes when something was done."""

        def answers(response: Response) -> bool:
            return urlsplit(response.url).path == "/predict" and response.ok

        with self.page.expect_response(answers) as waited:
            action()
        return dict(waited.value.json())

    def seen(self) -> bytes:
        """The 784 pixels that the page shows."""
        greys = self.page.evaluate(
            "() => [...document.getElementById('seen').getContext('2d').getImageData(0, 0, 28, 28).data]"
        )
        return bytes(greys[::4])

    def colour(self, selector: str, name: str) -> tuple[float, ...]:
        """A computed colour: red, green and blue."""
        text = self.page.locator(selector).first.evaluate("(each, name) => getComputedStyle(each)[name]", name)
        return tuple(float(part) for part in re.findall(r"[\d.]+", text)[:3])


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The contrast ratio of WCAG 2.2."""

    def luminance(colour: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)
