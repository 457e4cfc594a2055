"""What people open in a browser: the page to draw on, from the plain files in ``serve/page``."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from serve.calls import Call, Reply
from serve.routing import Handler, Route

if TYPE_CHECKING:
    from serve.service import Service

KINDS: Final = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
    "png": b"image/png",
}

HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)


def static_file(name: str) -> Handler:
    """A function that answers with one file of the page."""

    async def answer(_: Call, __: Service) -> Reply:
        return Reply(_read(name), content_type=KINDS[name.rpartition(".")[2]], headers=HEADERS)

    return answer


@cache
def _read(name: str) -> bytes:
    return (files("serve") / "page" / name).read_bytes()


SCRIPTS: Final = ("draw.js", "paper.js", "questions.js", "view.js")

ROUTES: Final = (
    Route("GET", "/", static_file("index.html"), "web", "A page to draw a digit on", guarded=False),
    Route("GET", "/page/style.css", static_file("style.css"), "web", "The page's looks", guarded=False),
    *(Route("GET", f"/page/{name}", static_file(name), "web", "The page's program", guarded=False) for name in SCRIPTS),
    Route("GET", "/page/icon.svg", static_file("icon.svg"), "web", "The page's icon", guarded=False),
)
