"""How an answer leaves a replica: through uvicorn itself, over a real connection."""

from __future__ import annotations

import asyncio
from asyncio.selector_events import _SelectorSocketTransport
from collections.abc import Awaitable, Callable
from contextlib import suppress

import uvicorn

from mnist_core.ports import held_ports
from serve.calls import Reply
from serve.lane import _send

REPLY = Reply(b'{"digit":7}', headers=((b"x-more", b"1"),))


async def app(scope, receive, send):  # noqa: ARG001
    assert scope["type"] == "http"
    await _send(REPLY, "request-1", send)


async def behind_a_wrapper(scope, receive, send):
    async def wrapped(message):
        await send(message)

    await app(scope, receive, wrapped)


def ask(application: Callable[..., Awaitable[None]], request: bytes) -> bytes:
    """What uvicorn sends in answer to a request whose connection it is to close."""

    async def run() -> bytes:
        with held_ports(1) as (port,):
            server = uvicorn.Server(uvicorn.Config(application, port=port, lifespan="off", log_level="error"))
            serving = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await reader.read()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            server.should_exit = True
            await serving
            return answer

    return asyncio.run(run())


def request(method: str) -> bytes:
    return f"{method} / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n".encode()


def test_head_and_body_of_an_answer_are_written_at_once(monkeypatch):
    written, write = [], _SelectorSocketTransport.write
    monkeypatch.setattr(
        _SelectorSocketTransport, "write", lambda self, data: (written.append(data), write(self, data))[1]
    )
    answer = ask(app, request("POST"))
    assert written == [request("POST"), answer]
    head, body = answer.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x-request-id: request-1\r\nx-more: 1" in head
    assert body == REPLY.body


def test_an_answer_without_body_is_written_too():
    head, body = ask(app, request("HEAD")).split(b"\r\n\r\n")
    assert b"content-length: 11" in head
    assert body == b""


def test_behind_others_an_answer_is_the_same():
    assert ask(behind_a_wrapper, request("POST")).endswith(b"\r\n\r\n" + REPLY.body)
