"""An endpoint in this process that answers as a test says, and load on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import cycle

from serve.load import Load, LoadPlan, Outcome
from serve.load_clients import HttpClient

REQUEST = b"POST /predict HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"

TICK_S = 1 / 64
"""Sums of it are exact."""

Reply = Callable[["Wire", int], None]


class Wire(asyncio.Protocol):
    """The endpoint's side of one connection; what it does with a request is up to the test."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def connection_made(self, transport):
        self.transport = transport
        self._endpoint.wires.append(self)

    def data_received(self, data):
        assert data == REQUEST
        self._endpoint.received += 1
        self._endpoint.reply(self, self._endpoint.received)


class Endpoint:
    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.received = 0
        self.wires: list[Wire] = []

    async def __aenter__(self):
        self.server = await asyncio.get_running_loop().create_server(lambda: Wire(self), "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for wire in self.wires:
            wire.transport.abort()
        await self.server.wait_closed()


def put_load(reply: Reply, plan: LoadPlan) -> tuple[Outcome, Endpoint]:
    async def run():
        async with Endpoint(reply) as endpoint:
            measured = Load(plan)
            clients = [
                HttpClient(measured, "127.0.0.1", endpoint.port, cycle([REQUEST])) for _ in range(plan.connections)
            ]
            for client in clients:
                await client.open()
            outcome = await measured.run(clients)
            for client in clients:
                await client.close()
            return outcome, endpoint

    return asyncio.run(run())


class Clock:
    """The load's clock, which only requests move: as many fit into a plan on the slowest machine as on any other."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def moved_by(self, reply: Reply) -> Reply:
        """Have every request that comes move it."""

        def move_and_reply(wire: Wire, number: int) -> None:
            self.seconds += TICK_S
            reply(wire, number)

        return move_and_reply
