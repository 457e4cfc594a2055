"""Which function answers which path; every protocol brings a table of routes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from serve.calls import Call, Reply
from serve.http_errors import error_reply

if TYPE_CHECKING:
    from serve.service import Service

Handler = Callable[[Call, "Service"], Awaitable[Reply]]
ErrorReply = Callable[[Exception, str], Reply]

VERSION_IN_PATH: Final = "{version}"
MODEL_IN_PATH: Final = "{model}"
_ANY_VERSION: Final = r"(?P<version>[^/:]{1,100})"


@dataclass(frozen=True)
class Route:
    """One operation.

    Attributes:
        method: ``GET`` or ``POST``.
        path: May hold ``{model}``, the served model's name, and ``{version}``.
        handler: Answers.
        protocol: For the metrics: ``predict``, ``v2``, ``tfs`` or ``web``; ``grpc`` has none.
        summary: One line of what it is for.
        error: How this protocol tells an error, from the error and the request's id.
        guarded: Whether an API key is asked for, if there are any.
        docs: What ``serve.openapi`` says of it: parts of an OpenAPI operation object (``requestBody``, ``responses``,
            ``parameters``).
    """

    method: str
    path: str
    handler: Handler
    protocol: str
    summary: str
    error: ErrorReply = error_reply
    guarded: bool = True
    docs: dict[str, Any] = field(default_factory=dict)


class Router:
    """Finds routes.

    Args:
        routes: All of them.
        model: The name of the model that is served.
    """

    def __init__(self, routes: Sequence[Route], model: str) -> None:
        self.routes = [*routes]
        self._exact: dict[tuple[str, str], Route] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Route]] = []
        for route in routes:
            path = route.path.replace(MODEL_IN_PATH, model)
            if VERSION_IN_PATH in path:
                pattern = re.compile(re.escape(path).replace(re.escape(VERSION_IN_PATH), _ANY_VERSION))
                self._patterns.append((route.method, pattern, route))
            else:
                self._exact[route.method, path] = route

    def find(self, method: str, path: str) -> tuple[Route, str | None] | None:
        """Find the route of a request and the version its path names; None if there is none."""
        if route := self._exact.get((method, path)):
            return route, None
        for each, pattern, route in self._patterns:
            if each == method and (match := pattern.fullmatch(path)):
                return route, match["version"]
        return None

    def methods(self, path: str) -> list[str]:
        """The methods that a path has."""
        exact = [method for method, each in self._exact if each == path]
        return sorted({*exact, *(method for method, pattern, _ in self._patterns if pattern.fullmatch(path))})
