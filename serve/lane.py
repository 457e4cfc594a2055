"""The short way into a replica: the ASGI application, called before Ray does anything with a request.

For a request that has reached a replica Ray Serve copies metadata, starts a task that waits for the client to go away,
keeps metrics and takes a semaphore. With this way past it a replica answers 2.1 times the requests (3,034 over 1,416 a
second; wrk, 32 connections, two rounds on two cores). What Ray does that for is done here: requests in work are counted
(they decide on the number of replicas), waiting is bounded by the batcher, deadlines are kept there too. Ray calls
middleware first, and this is one; ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names it. Without it, or through Ray's
own proxy, the same application answers at the end of the long way.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

from starlette.middleware import Middleware

from mnist_core.errors import DeadlineError, OverloadedError, RequestError, RequestTooLargeError
from serve.calls import Call, Reply
from serve.front import keep_on_host
from serve.routing import Route
from serve.service import Service

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
TIMEOUT_HEADER: Final = b"x-request-timeout-seconds"
"""Ray Serve's name for it."""

CLIENT_GONE: Final = 499
"""What is counted where the client went away; HTTP has no status for it."""

BODIES_AT_ONCE: Final = 8
"""How many bodies as long as may be have room in a replica together; of shorter ones, more."""

_current: App | None = None


def open_lane(app: App | None) -> None:
    """Let requests in this process go to an application; None: nowhere."""
    global _current
    _current = app


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """The application that answers in this process, as ASGI has it."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    assert _current is not None

    async def send_without_id(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":  # on this way Ray adds the header itself
            message["headers"] = [each for each in message["headers"] if each[0] != b"x-request-id"]
        await send(message)

    await _current(scope, receive, send_without_id)


def middlewares() -> list[Middleware]:
    """What Ray is to put before its own way through a replica. Ray calls this before it starts a server."""
    keep_on_host()
    return [Middleware(Lane)]


class Lane:
    """Calls the replica's application where there is one in this process, else goes Ray's way."""

    def __init__(self, app: App) -> None:
        self._ray = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request; Ray's own paths begin with ``/-/``."""
        app = _current
        if app is None or scope["type"] != "http" or scope["path"].startswith("/-/"):
            app = self._ray
        await app(scope, receive, send)


class Door:
    """Reads a request, has it answered, and counts it.

    Args:
        service: Answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._claimed = 0

    async def answer(self, route: Route, version: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Args:
            route: Who answers.
            version: Of the model, if the path names one.
            scope: Of ASGI, as the next two.
            receive: Gives the body.
            send: Takes the answer.
        """
        service, metrics = self._service, self._service.metrics
        started = time.monotonic()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if REQUEST_ID.fullmatch(given) else os.urandom(8).hex()
        metrics.arrived()
        reply = Reply(b"", CLIENT_GONE, code="cancelled")
        claimed = 0
        try:
            call = Call(b"", headers, scope["query_string"], version, request_id=request_id)
            if route.guarded:
                service.authorize(call)
            call.deadline = started + self._timeout(call)
            if _is_whole(receive):
                body = await self._read(receive, [])
            else:
                claimed = self._claim(call)
                body = await self._read_in_time(receive)
            if body is not None:
                call.body = body
                reply = await route.handler(call, service)
        except Exception as err:
            reply = route.error(err, request_id)
            if reply.status == 500:
                service.failed(request_id, err)
        finally:
            self._claimed -= claimed
            seconds = time.monotonic() - started
            metrics.left(route.protocol, reply.status, reply.code, seconds)
            service.access_log.write(scope, reply, request_id, seconds)
        if reply.status != CLIENT_GONE:
            await _send(reply, request_id, send)

    def _timeout(self, call: Call) -> float:
        limit = self._service.config.request_timeout_s
        text = call.headers.get(TIMEOUT_HEADER)
        if text is None:
            return limit
        try:
            wanted = float(text)
        except ValueError:
            wanted = 0.0
        if not wanted > 0:
            received = text.decode("latin-1")
            raise RequestError(f"{TIMEOUT_HEADER.decode()}: received {received!r}, expected seconds above 0")
        return min(wanted, limit)

    def _claim(self, call: Call) -> int:
        """Reserve memory for a body that is still to come: its bytes, until the request is answered.

        Who does not say a length may send as much as is allowed. What came in one piece with its head is not counted:
        it is small, and those requests are many.
        """
        most = self._service.config.max_body_bytes
        length = call.header(b"content-length")
        unknown = most if b"transfer-encoding" in call.headers else 0
        size = int(length) if length.isdigit() else unknown
        if size > most:
            raise _too_large(size, most)
        room = BODIES_AT_ONCE * most
        if self._claimed + size > room:
            raise OverloadedError(f"requests of {self._claimed} bytes are in work, at most {room} may be; try later")
        self._claimed += size
        return size

    async def _read_in_time(self, receive: Receive) -> bytes | None:
        limit = self._service.config.body_timeout_s
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(limit):
                return await self._read(receive, chunks)
        except TimeoutError as err:
            size = sum(map(len, chunks))
            raise DeadlineError(f"received {size} bytes of a request in {limit:g} s, expected all of it") from err

    async def _read(self, receive: Receive, chunks: list[bytes]) -> bytes | None:
        """Read the body, not more than is allowed; None if the client went away before its end."""
        most = self._service.config.max_body_bytes
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > most:
                raise _too_large(size, most)
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)


def _is_whole(receive: Receive) -> bool:
    """Whether uvicorn has a whole request already, so that no time can pass; elsewhere that is not known."""
    return getattr(getattr(receive, "__self__", None), "more_body", None) is False


def _too_large(size: int, most: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"received {size} bytes or more, expected at most {most} in a request; send several")


async def _send(reply: Reply, request_id: str, send: Send) -> None:
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", str(len(reply.body)).encode()),
        (b"x-request-id", request_id.encode()),
        *reply.headers,
    ]
    with _one_write(send):
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


@contextmanager
def _one_write(send: Send) -> Iterator[None]:
    """Let uvicorn write head and body of an answer at once, where it would in two system calls and two packets.

    Each of them wakes HAProxy, which then works twice too. Elsewhere than under uvicorn itself nothing is changed.
    """
    cycle: Any = getattr(send, "__self__", None)
    transport = getattr(cycle, "transport", None)
    if transport is None:
        yield
        return
    together = _Together(transport)
    cycle.transport = together
    try:
        yield
    finally:
        cycle.transport = transport
        together.flush()


class _Together:
    """Stands in for a transport: what is written goes out when it is told so, or closed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._parts.append(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()
