"""Load on an endpoint: who sends what when, and what came of every request.

Closed loop: each connection sends its next request when the last is answered, so that the endpoint sets the pace. Open
loop: requests are due at a fixed rate, whether answers come or not, and a latency counts from the moment a request was
due. An endpoint that stands still for a second then shows in all requests of that second, and not in one a connection.

Every request is counted that ends after the warm-up, by an answer or without. How bytes get to the endpoint is in
``serve.load_clients``.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)

LOST: Final = "connection_lost"
TIMED_OUT: Final = "timeout"
NOT_SENT: Final = "not_sent"

FINEST_TICK_S: Final = 0.0002
"""How often at most an open loop looks whether requests are due."""

RETRY_S: Final = 0.1
"""How long a client whose connection was refused waits before the next request."""

now: Final[Callable[[], float]] = time.perf_counter  # uvloop's own clock stands still within a turn of the loop


@dataclass(frozen=True)
class LoadPlan:
    """How much load, and for how long.

    Attributes:
        connections: Each has one request at a time.
        seconds: Of measuring.
        warmup_s: Of load before that.
        rate: Requests due a second; None: a closed loop.
        timeout_s: How long an answer is waited for; also how long, after the end, for all that are missing.
    """

    connections: int
    seconds: float
    warmup_s: float = 0.0
    rate: float | None = None
    timeout_s: float = 10.0


@dataclass
class Outcome:
    """What came of the requests that ended after the warm-up.

    Attributes:
        seconds: Of measuring.
        latencies: Seconds from the moment a request was due to its end, in no order; one that was given up has the time
            it was waited for.
        statuses: Of answers, as the protocol has them.
        errors: Requests that did not succeed, by code.
        in_time: Requests that succeeded within those seconds, not after them.
        cpu_fraction: CPU time of this process over wall time, warm-up included.
    """

    seconds: float
    latencies: array[float] = field(default_factory=lambda: array("d"))
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    in_time: int = 0
    cpu_fraction: float = 0.0

    @property
    def succeeded(self) -> int:
        """Requests that succeeded."""
        return len(self.latencies) - self.errors.total()

    @property
    def rate(self) -> float:
        """Requests a second that succeeded."""
        return self.in_time / self.seconds


class Client(Protocol):
    """One connection.

    Attributes:
        due: When its request was due; None while it has none.
        sent: When it was given that request.
    """

    due: float | None
    sent: float

    def send(self) -> None:
        """Send a request. Later, never before this returns, ``Load.answered`` or ``Load.failed`` hears of it."""

    def give_up(self) -> None:
        """Wait for the answer no longer; nobody hears of it any more."""


class Load:
    """Hands requests to clients until the time is over, and keeps count; made once a run, on its event loop.

    Args:
        plan: What is to be done.
    """

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._outcome = Outcome(plan.seconds)
        self._idle: deque[Client] = deque()
        self._sent = 0
        self._total = math.ceil((plan.warmup_s + plan.seconds) * plan.rate) if plan.rate else 0
        self._begin = self._first = self._end = math.inf
        self._busy = 0
        self._finished = asyncio.Event()

    async def run(self, clients: Sequence[Client]) -> Outcome:
        """Keep the clients busy for as long as planned, then wait for what is missing."""
        cpu = time.process_time()
        self._begin = now()
        self._first = self._begin + self._plan.warmup_s
        self._end = self._first + self._plan.seconds
        timer = _Timer(1 / self._plan.rate, self._send_what_is_due) if self._plan.rate else None
        watch = asyncio.get_running_loop().create_task(self._watch(clients))
        try:
            for client in clients:
                self._hand_out(client)
            await asyncio.sleep(self._end - now())
            self._look_whether_finished()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._finished.wait(), self._plan.timeout_s)
        finally:
            watch.cancel()
            if timer:
                timer.close()
        self._give_up(clients)
        self._outcome.cpu_fraction = (time.process_time() - cpu) / (now() - self._begin)
        return self._outcome

    def answered(self, client: Client, status: str, code: str = "") -> None:
        """A client has its answer.

        Args:
            client: Who.
            status: As the protocol has it.
            code: Of the error, if it is one.
        """
        ended = now()
        if ended >= self._first:
            self._outcome.statuses[status] += 1
        self._count(client, ended, code)
        self._hand_out(client)

    def failed(self, client: Client, code: str) -> None:
        """A client gets no answer; it is given its next request a little later."""
        self._count(client, now(), code)
        asyncio.get_running_loop().call_later(RETRY_S, self._hand_out, client)

    def _count(self, client: Client, ended: float, code: str) -> None:
        assert client.due is not None
        due, client.due = client.due, None
        self._busy -= 1
        if ended < self._first:
            return
        outcome = self._outcome
        outcome.latencies.append(ended - due)
        if code:
            outcome.errors[code] += 1
        elif ended < self._end:
            outcome.in_time += 1

    def _hand_out(self, client: Client) -> None:
        """Give a client that has nothing to do its next request, or let it wait for one."""
        moment = now()
        due = self._next_due(moment)
        if due > moment:
            self._idle.append(client)
            self._look_whether_finished()
            return
        self._sent += 1
        self._busy += 1
        client.due, client.sent = due, moment
        client.send()

    def _next_due(self, moment: float) -> float:
        """When the next request is due; infinite if there is none any more."""
        if self._plan.rate:
            return self._begin + self._sent / self._plan.rate if self._sent < self._total else math.inf
        return moment if moment < self._end else math.inf

    def _send_what_is_due(self) -> None:
        while self._idle and self._next_due(moment := now()) <= moment:
            self._hand_out(self._idle.popleft())

    def _look_whether_finished(self) -> None:
        if not self._busy and self._next_due(now()) == math.inf:
            self._finished.set()

    async def _watch(self, clients: Sequence[Client]) -> None:
        """Take requests back that are waited for in vain."""
        limit = self._plan.timeout_s
        while True:
            await asyncio.sleep(min(0.25, limit / 4))
            for client in clients:
                if client.due is not None and now() - client.sent > limit:
                    client.give_up()
                    self.failed(client, TIMED_OUT)

    def _give_up(self, clients: Sequence[Client]) -> None:
        """Count what has not ended by now."""
        ended = now()
        for client in clients:
            if client.due is not None:
                client.give_up()
                self._count(client, ended, TIMED_OUT)
        for number in range(self._sent, self._total):
            self._outcome.latencies.append(ended - self._begin - number / (self._plan.rate or 1.0))
            self._outcome.errors[NOT_SENT] += 1


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed.

    Args:
        ordered: The values, the least first; at least one.
        percent: 0 to 100.
    """
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class _Timer:
    """Calls a function at an interval, exactly where Linux can: the timers of event loops know milliseconds only."""

    def __init__(self, interval_s: float, function: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._function = function
        self._interval_s = max(interval_s, FINEST_TICK_S)
        self._descriptor: int | None = _open_timer(self._interval_s)
        self._handle: asyncio.TimerHandle | None = None
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._tick, self._descriptor)
        else:
            self._call_later()

    def close(self) -> None:
        """Call it no more."""
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        if self._handle:
            self._handle.cancel()
        self._descriptor = self._handle = None

    def _tick(self, descriptor: int) -> None:
        with suppress(BlockingIOError):
            os.read(descriptor, 8)
        self._function()

    def _call_later(self) -> None:
        self._handle = self._loop.call_later(self._interval_s, self._call_later)
        self._function()


def _open_timer(interval_s: float) -> int | None:
    """A descriptor that can be read at every interval (timerfd_create(2)); None where there is no such thing."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None
    seconds, nanoseconds = divmod(round(interval_s * 1e9), 10**9)
    times = (ctypes.c_long * 4)(seconds, nanoseconds, seconds, nanoseconds)
    libc.timerfd_settime(descriptor, 0, ctypes.byref(times), None)
    return int(descriptor)
