"""Ports of this machine for servers that start later, in this process or in another."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def held_ports(count: int, host: str = "127.0.0.1") -> Iterator[list[int]]:
    """Ports that nobody is given by chance for as long as the block lasts, neither to listen nor to call from.

    A socket is bound to each and does not listen. Linux then lets whoever names the port listen there too, if he sets
    SO_REUSEADDR as HAProxy, gRPC and asyncio do, and leaves the port out where it chooses one. Other systems share no
    port in this way: there the ports are let go before the block, and differ.

    Args:
        count: How many.
        host: The address of this machine to which they belong.
    """
    with ExitStack() as stack:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sockets = [stack.enter_context(socket.socket(family)) for _ in range(count)]
        for held in sockets:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((host, 0))
        ports = [held.getsockname()[1] for held in sockets]
        if sys.platform != "linux":
            stack.close()
        yield ports


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens now, for servers that outlive this process."""
    with held_ports(count) as ports:
        return ports
