"""The endpoint as an ASGI application: the routes of every protocol, and what is said of other paths."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from starlette.middleware.cors import CORSMiddleware

from mnist_core.errors import MethodNotAllowedError, PathNotFoundError
from serve import pages, predict, protocol_tfs, protocol_v2
from serve.calls import Call, Reply
from serve.docs_page import make_routes
from serve.http_errors import error_reply, plain_error_reply
from serve.lane import App, Door, Receive, Scope, Send
from serve.routing import Route, Router
from serve.service import Service

API: Final = (*predict.ROUTES, *protocol_v2.ROUTES, *protocol_tfs.ROUTES)
ROUTES: Final = (*API, *make_routes(API), *pages.ROUTES)


class Website:
    """Everything the endpoint answers.

    Args:
        service: The replica's work.
    """

    def __init__(self, service: Service) -> None:
        self._door = Door(service)
        self._router = Router(ROUTES, service.models.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method, path = scope["method"], scope["path"]
        found = self._router.find("GET" if method == "HEAD" else method, path)
        route, version = found or (self._missing(method, path), None)
        await self._door.answer(route, version, scope, receive, send)

    def _missing(self, method: str, path: str) -> Route:
        """What answers where nothing is."""
        methods = self._router.methods(path)
        protocol = next(
            (each for each in (protocol_v2, protocol_tfs) if f"{path}/".startswith(f"{each.PREFIX}/")), None
        )
        tell = plain_error_reply if protocol else error_reply

        async def refuse(call: Call, service: Service) -> Reply:
            if not methods and protocol:
                raise protocol.no_such_path(path, service)
            if not methods:
                raise PathNotFoundError(f"path {path!r}: there is none, /docs has those that there are")
            allowed = ", ".join(methods)
            err = MethodNotAllowedError(f"{method} {path}: expected {allowed}")
            return replace(tell(err, call.request_id), headers=((b"allow", allowed.encode()),))

        name = protocol.ROUTES[0].protocol if protocol else "web"
        return Route(method, path, refuse, name, "", tell, guarded=False)


def build_app(service: Service) -> App:
    """The whole application; other origins may ask only if they are named in the configuration."""
    website = Website(service)
    origins = service.config.cors_origins
    if not origins:
        return website
    return CORSMiddleware(website, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"])
