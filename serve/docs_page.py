"""``/openapi.json``, and ``/docs``: Swagger UI on it, whose files come from a package and from no foreign host."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import orjson

from serve.calls import Call, Reply
from serve.openapi import build_openapi
from serve.pages import HEADERS, KINDS, static_file
from serve.routing import Handler, Route
from serve.service import Service

PACKAGE: Final = "fastapi_swagger"
"""Has Swagger UI's files in its folder ``resources``; not one line of its own is run."""

BUNDLE: Final = ("swagger-ui-bundle.js", "swagger-ui.css")


def make_routes(routes: Sequence[Route]) -> tuple[Route, ...]:
    """The routes of the documentation of those routes."""
    documents: dict[tuple[str, str, bool], bytes] = {}

    async def document(_: Call, service: Service) -> Reply:
        model, config = service.models.current, service.config
        key = (model.name, model.version, config.api_key_file is not None)
        if key not in documents:
            documents.clear()
            documents[key] = orjson.dumps(build_openapi(routes, config, model.name, model.version))
        return Reply(documents[key])

    return (
        Route("GET", "/openapi.json", document, "web", "This document", guarded=False),
        Route("GET", "/docs", static_file("docs.html"), "web", "A page to try it on", guarded=False),
        Route("GET", "/docs/five.png", static_file("docs.png"), "web", "A picture to try it with", guarded=False),
        Route("GET", "/docs/line.png", static_file("line.png"), "web", "A picture to split", guarded=False),
        Route("GET", "/docs/docs.js", static_file("docs.js"), "web", "The page's program", guarded=False),
        *(Route("GET", f"/docs/{name}", _bundled(name), "web", "Swagger UI", guarded=False) for name in BUNDLE),
    )


def _bundled(name: str) -> Handler:
    async def answer(_: Call, __: Service) -> Reply:
        return Reply(_read(name), content_type=KINDS[name.rpartition(".")[2]], headers=HEADERS)

    return answer


@cache
def _read(name: str) -> bytes:
    spec = find_spec(PACKAGE)  # finds it and does not import it
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "resources" / name).read_bytes()
