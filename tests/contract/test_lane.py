"""How a request enters a replica and an answer leaves it: through uvicorn itself, over a real connection."""

from __future__ import annotations

import asyncio
import json
from asyncio.selector_events import _SelectorSocketTransport
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvicorn
from fuzz_requests import PIXELS

from mnist_core.config_serve import ServeConfig
from mnist_core.ports import held_ports
from serve.calls import Reply
from serve.lane import BODIES_AT_ONCE, _send
from serve.service import Service
from serve.web import build_app

REPLY = Reply(b'{"digit":7}', headers=((b"x-more", b"1"),))


async def app(scope, receive, send):  # noqa: ARG001
    assert scope["type"] == "http"
    await _send(REPLY, "request-1", send)


async def behind_a_wrapper(scope, receive, send):
    async def wrapped(message):
        await send(message)

    await app(scope, receive, wrapped)


@asynccontextmanager
async def running(application: Callable[..., Awaitable[None]]) -> AsyncIterator[int]:
    """The port where uvicorn has an application."""
    with held_ports(1) as (port,):
        server = uvicorn.Server(uvicorn.Config(application, port=port, lifespan="off", log_level="error"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        try:
            yield port
        finally:
            server.should_exit = True
            await serving


async def exchange(port: int, sent: bytes) -> bytes:
    """All that comes back until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return answer


def ask(application: Callable[..., Awaitable[None]], request: bytes) -> bytes:
    """What uvicorn sends in answer to a request whose connection it is to close."""

    async def run() -> bytes:
        async with running(application) as port:
            return await exchange(port, request)

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


class Endpoint:
    """The whole endpoint but for Ray, behind uvicorn."""

    def __init__(self, port: int, log: Path, service: Service, gone: asyncio.Event) -> None:
        self._port, self._log, self._service = port, log, service
        self.gone = gone
        self._open: list[asyncio.StreamWriter] = []

    async def begin(self, *headers: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request's head; the answer is ``100 Continue`` when its body is waited for."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._open.append(writer)
        writer.write(post(b"expect: 100-continue", *headers))
        return reader, writer

    async def close(self) -> None:
        """Go away, whatever was begun."""
        for writer in self._open:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def post(self, body: bytes) -> bytes:
        """The answer to a request that comes in one piece."""
        return await exchange(self._port, post(b"content-length: %d" % len(body)) + body)

    def logged(self) -> list[tuple[int, str | None]]:
        self._service.access_log.flush()
        return [(each["status"], each["code"]) for each in map(json.loads, self._log.read_text().splitlines())]


def post(*headers: bytes) -> bytes:
    lines = (b"POST /predict HTTP/1.1", b"host: test", b"connection: close", b"content-type: application/octet-stream")
    return b"\r\n".join([*lines, *headers, b"\r\n"])


def run(scenario: Callable[[Endpoint], Awaitable[None]], storage: str, folder: Path, **config) -> None:
    """Run a scenario; ``gone`` is set whenever a request is done with."""

    async def main() -> None:
        log, gone = folder / "access.jsonl", asyncio.Event()
        service = Service(ServeConfig(storage=storage, device="cpu", access_log=log, **config))
        website = build_app(service)

        async def noted(scope, receive, send):
            await website(scope, receive, send)
            gone.set()

        try:
            async with running(noted) as port:
                endpoint = Endpoint(port, log, service, gone)
                try:
                    await scenario(endpoint)
                finally:
                    await endpoint.close()
        finally:
            await service.close()

    asyncio.run(asyncio.wait_for(main(), 60))


async def continues(reader: asyncio.StreamReader) -> None:
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_client_that_sends_nothing_of_its_body_is_let_go(model_storage, tmp_path):
    async def scenario(endpoint: Endpoint) -> None:
        reader, _ = await endpoint.begin(b"content-length: 784")
        await continues(reader)
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"received 0 bytes of a request in 0.1 s" in answer

    run(scenario, model_storage, tmp_path, body_timeout_s=0.1)


def test_who_went_away_while_sending_is_not_answered_for_what_came(model_storage, tmp_path):
    async def scenario(endpoint: Endpoint) -> None:
        reader, writer = await endpoint.begin(b"content-length: 1568")
        await continues(reader)
        writer.write(bytes(784))  # which would be an image
        writer.close()
        await endpoint.gone.wait()
        assert endpoint.logged() == [(499, "cancelled")]

    run(scenario, model_storage, tmp_path)


def test_a_body_that_is_there_is_read_without_a_clock(model_storage, tmp_path, monkeypatch):
    """Which would be set and stopped thousands of times a second."""
    clocks, timeout = [], asyncio.timeout
    monkeypatch.setattr("serve.lane.asyncio.timeout", lambda limit: (clocks.append(limit), timeout(limit))[1])

    async def scenario(endpoint: Endpoint) -> None:
        assert (await endpoint.post(PIXELS.tobytes())).startswith(b"HTTP/1.1 200 ")
        assert clocks == []
        reader, writer = await endpoint.begin(b"content-length: 784")
        await continues(reader)
        writer.write(PIXELS.tobytes()[:500])
        writer.write(PIXELS.tobytes()[500:])
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        assert clocks == [7.0]

    run(scenario, model_storage, tmp_path, body_timeout_s=7.0)


@pytest.mark.parametrize("length", [b"content-length: 8000", b"transfer-encoding: chunked"])
def test_bodies_that_are_awaited_have_a_bound_together_and_small_ones_are_always_taken(length, model_storage, tmp_path):
    async def scenario(endpoint: Endpoint) -> None:
        waiting = [await endpoint.begin(length) for _ in range(BODIES_AT_ONCE)]
        for reader, _ in waiting:
            await continues(reader)
        reader, _ = await endpoint.begin(b"content-length: 1")
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in answer
        assert b"requests of 64000 bytes are in work, at most 64000 may be" in answer
        assert (await endpoint.post(PIXELS.tobytes())).startswith(b"HTTP/1.1 200 ")
        endpoint.gone.clear()
        waiting[0][1].close()
        await endpoint.gone.wait()
        await continues((await endpoint.begin(length))[0])

    run(scenario, model_storage, tmp_path, max_body_bytes=8000, body_timeout_s=30.0)


def test_a_body_that_is_said_to_be_too_long_is_not_read(model_storage, tmp_path):
    async def scenario(endpoint: Endpoint) -> None:
        reader, _ = await endpoint.begin(b"content-length: 8001")
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 413 ")

    run(scenario, model_storage, tmp_path, max_body_bytes=8000)
