"""Connections that put load on an endpoint: HTTP/1.1 and gRPC, with requests that are bytes before the first is sent.

They read no more of an answer than tells whether it is one, since who measures shares the machine with who is measured.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

import orjson

from serve.load import LOST, Load

REFUSED: Final = "connection_refused"
BAD_ANSWER: Final = "bad_answer"
GRPC_OK: Final = "OK"
MOST_HEAD_BYTES: Final = 2**16


class HttpClient:
    """One HTTP/1.1 connection, opened again when the endpoint has closed it.

    Args:
        load: Hands out requests.
        host: Of the endpoint.
        port: Likewise.
        requests: Whole requests, head and body, without end.
        tls: For HTTPS.
    """

    def __init__(
        self, load: Load, host: str, port: int, requests: Iterator[bytes], tls: ssl.SSLContext | None = None
    ) -> None:
        self.due: float | None = None
        self.sent = 0.0
        self._load = load
        self._address = (host, port)
        self._requests = requests
        self._tls = tls
        self._wire: _Wire | None = None
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect.

        Raises:
            OSError: It cannot.
        """
        loop = asyncio.get_running_loop()
        _, self._wire = await loop.create_connection(lambda: _Wire(self), *self._address, ssl=self._tls)

    async def close(self) -> None:
        """Hang up."""
        self.give_up()

    def send(self) -> None:
        """Send the next request; see ``serve.load.Client``."""
        if self._wire is None:
            self._opening = asyncio.get_running_loop().create_task(self._open_and_send())
        else:
            self._wire.transport.write(next(self._requests))

    def give_up(self) -> None:
        """Hang up, since an answer might still come; see ``serve.load.Client``."""
        if self._opening:
            self._opening.cancel()
        if self._wire:
            self._wire.transport.abort()
        self._wire = self._opening = None

    def answered(self, wire: _Wire, answer: Answer) -> None:
        """An answer has come over a connection."""
        if wire is not self._wire or self.due is None:
            return
        if not answer.keep_alive:
            self.give_up()
        self._load.answered(self, str(answer.status), error_code(answer.status, answer.body))

    def lost(self, wire: _Wire, code: str) -> None:
        """A connection is of no use any more; nothing is lost if we have hung up."""
        if wire is not self._wire:
            return
        self.give_up()
        if self.due is not None:
            self._load.failed(self, code)

    async def _open_and_send(self) -> None:
        try:
            await self.open()
        except OSError as err:
            self._load.failed(self, REFUSED if isinstance(err, ConnectionRefusedError) else LOST)
        else:
            self.send()


class _Wire(asyncio.Protocol):
    """The bytes of one connection, for as long as it is there."""

    transport: asyncio.Transport

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._answer = Answer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        try:
            whole = self._answer.feed(data)
        except ValueError:
            self._client.lost(self, BAD_ANSWER)
            return
        if whole:
            self._client.answered(self, self._answer)

    def eof_received(self) -> None:
        """The endpoint has closed: where an answer has no length, that is its end."""
        if self._answer.ends_with_connection:
            self._client.answered(self, self._answer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._client.lost(self, LOST)


class Answer:
    """Reads HTTP/1.1 answers, one after the other, from whatever pieces they come in.

    Attributes:
        status: Of the last answer.
        keep_alive: Whether the connection may be used again after it.
        body: Of an error; of others it is not kept.
        ends_with_connection: The answer has no length.
    """

    def __init__(self) -> None:
        self.status = 0
        self.keep_alive = True
        self.body = b""
        self.ends_with_connection = False
        self._in_head = True
        self._rest = b""
        self._missing: int | None = None
        self._chunked = False

    def feed(self, data: bytes) -> bool:
        """Take the next piece; returns whether the answer is whole.

        Raises:
            ValueError: This is no HTTP answer, or more than one.
        """
        if self._in_head:
            data = self._rest + data
            end = data.find(b"\r\n\r\n")
            if not data.startswith(b"HTTP/1."[: len(data)]) or (end < 0 and len(data) > MOST_HEAD_BYTES):
                raise ValueError("expected the head of an HTTP/1 answer")
            if end < 0:
                self._rest = data
                return False
            self._read_head(data[: end + 2])
            data, self._rest = data[end + 4 :], b""
        if self._chunked:
            self._in_head = self._feed_chunks(data)
            return self._in_head
        if self.status >= 400:
            self.body += data
        if self._missing is None:
            return False
        self._missing -= len(data)
        if self._missing < 0:
            raise ValueError("expected one answer to one request")
        self._in_head = not self._missing
        return self._in_head

    def _read_head(self, head: bytes) -> None:
        self._in_head = False
        self.body = b""
        self.status = int(head[9:12])
        head = head.lower()
        self.keep_alive = head[7:8] == b"1" and b"\r\nconnection: close\r\n" not in head
        self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in head
        place = head.find(b"\r\ncontent-length:")
        self._missing = 0 if self.status in (204, 304) else None
        if place >= 0:
            self._missing = int(head[place + 17 : head.index(b"\r\n", place + 17)])
        self.ends_with_connection = self._missing is None and not self._chunked

    def _feed_chunks(self, data: bytes) -> bool:
        rest = self._rest + data
        while (end := rest.find(b"\r\n")) >= 0:
            size = int(rest[:end].partition(b";")[0], 16)
            if not size:  # after it there may be further headers
                whole = b"\r\n\r\n" in rest[end:]
                self._rest = b"" if whole else rest
                return whole
            if len(rest) < end + size + 4:
                break
            if self.status >= 400:
                self.body += rest[end + 2 : end + 2 + size]
            rest = rest[end + size + 4 :]
        self._rest = rest
        return False


def error_code(status: int, body: bytes) -> str:
    """The code of an error: the one in its body, else its status; empty for a success."""
    if 200 <= status < 300:
        return ""
    with suppress(ValueError, TypeError, KeyError):
        return str(orjson.loads(body)["error"]["code"])
    return f"http_{status}"


class GrpcClient:
    """One gRPC connection.

    Args:
        load: Hands out requests.
        target: ``HOST:PORT``.
        method: Full name of the method, ``/package.Service/Method``.
        requests: Serialized messages, without end.
        metadata: Goes with each request.
        tls: Whether the connection is encrypted.
    """

    def __init__(
        self,
        load: Load,
        target: str,
        method: str,
        requests: Iterator[bytes],
        metadata: Sequence[tuple[str, str]] = (),
        *,
        tls: bool = False,
    ) -> None:
        import grpc  # half a second, which HTTP does not need

        self.due: float | None = None
        self.sent = 0.0
        self._load = load
        self._requests = requests
        self._metadata = tuple(metadata)
        self._failure, self._ready = grpc.aio.AioRpcError, grpc.ChannelConnectivity.READY
        options = [("grpc.use_local_subchannel_pool", 1)]  # else all clients share one connection
        if tls:
            trusted = os.environ.get("SSL_CERT_FILE")
            credentials = grpc.ssl_channel_credentials(Path(trusted).read_bytes() if trusted else None)
            self._channel = grpc.aio.secure_channel(target, credentials, options)
        else:
            self._channel = grpc.aio.insecure_channel(target, options)
        self._call = self._channel.unary_unary(method)
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect; tries until it is cancelled."""
        await self._channel.channel_ready()

    async def close(self) -> None:
        """Hang up."""
        self.give_up()
        await self._channel.close()

    def send(self) -> None:
        """Send the next request; see ``serve.load.Client``."""
        self._task = asyncio.get_running_loop().create_task(self._send())

    def give_up(self) -> None:
        """Cancel the call; see ``serve.load.Client``."""
        if self._task:
            self._task.cancel()
        self._task = None

    async def _send(self) -> None:
        try:
            await self._call(next(self._requests), metadata=self._metadata)
        except self._failure as err:
            status = err.code().name
            if self._channel.get_state() == self._ready:
                self._load.answered(self, status, status.lower())
            else:  # this is no answer, and the next would fail at once as well
                self._load.failed(self, LOST)
        else:
            self._load.answered(self, GRPC_OK)
