"""The load on an endpoint: every request is counted, once, and its time runs from the moment it was due."""

from __future__ import annotations

import asyncio
import time
from itertools import cycle, pairwise

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_endpoint import TICK_S, Clock, Reply, put_load

from serve import load
from serve.load import Load, LoadPlan, percentile
from serve.load_clients import Answer, GrpcClient, error_code
from serve.load_requests import GRPC_METHOD

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n10;x=y\r\n0123456789abcdef\r\n0\r\n\r\n"
OVERLOADED = b'HTTP/1.1 503 Busy\r\ncontent-length: 32\r\n\r\n{"error": {"code":"overloaded"}}'


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(load, "now", lambda: clock.seconds)
    return clock


def answer(content: bytes) -> Reply:
    return lambda wire, _: wire.transport.write(content)


def test_a_closed_loop_counts_what_the_endpoint_received(clock):
    outcome, endpoint = put_load(clock.moved_by(answer(OK)), LoadPlan(4, 0.1))
    assert len(outcome.latencies) == outcome.succeeded == outcome.statuses["200"] == endpoint.received > 4
    assert 0 < outcome.in_time <= endpoint.received
    assert outcome.rate == outcome.in_time / 0.1
    assert len(endpoint.wires) == 4
    assert not outcome.errors


def test_a_connection_has_one_request_at_a_time(clock):
    in_work, twice = set(), []

    def reply(wire, number):
        twice.extend(in_work & {wire})
        in_work.add(wire)
        if number >= 3:  # the first two wait for the third, which would not come over a connection that waits
            for each in in_work if number == 3 else [wire]:
                asyncio.get_running_loop().call_later(0.005, finish, each)

    def finish(wire):
        in_work.remove(wire)
        wire.transport.write(OK)

    outcome, endpoint = put_load(clock.moved_by(reply), LoadPlan(3, 0.1))
    assert not twice
    assert len(endpoint.wires) == 3
    assert outcome.succeeded == endpoint.received > 6


def test_what_ends_in_the_warm_up_is_not_counted(clock):
    outcome, endpoint = put_load(clock.moved_by(answer(OK)), LoadPlan(1, 4 * TICK_S, warmup_s=8 * TICK_S))
    assert endpoint.received == 12
    assert len(outcome.latencies) == outcome.statuses["200"] == 5  # the first of them ends as the warm-up does


def test_an_open_loop_sends_every_request_that_is_due():
    outcome, endpoint = put_load(answer(OK), LoadPlan(2, 0.2, rate=500))
    assert len(outcome.latencies) == outcome.succeeded == endpoint.received == 100


def test_an_open_loop_needs_no_exact_timer(monkeypatch):
    monkeypatch.setattr(load, "_open_timer", lambda _: None)
    outcome, _ = put_load(answer(OK), LoadPlan(2, 0.2, rate=500))
    assert outcome.succeeded == 100


def test_a_stall_shows_in_every_request_that_was_due_in_it():
    held = []

    def reply(wire, number):
        if number == 1:
            asyncio.get_running_loop().call_later(0.3, release)
        if held is not None:
            held.append(wire)
        else:
            wire.transport.write(OK)

    def release():
        nonlocal held
        waiting, held = held, None
        for wire in waiting:
            wire.transport.write(OK)

    outcome, endpoint = put_load(reply, LoadPlan(2, 0.5, rate=200))
    assert len(outcome.latencies) == endpoint.received == 100
    # 60 are due in the first 0.3 s, 40 of them at least 0.1 s before its end; a closed loop would have seen two.
    assert sum(latency > 0.1 for latency in outcome.latencies) >= 40
    assert max(outcome.latencies) >= 0.3


def test_what_an_endpoint_cannot_bear_is_counted_although_it_was_never_sent():
    outcome, endpoint = put_load(lambda *_: None, LoadPlan(2, 0.2, rate=100, timeout_s=0.2))
    assert len(outcome.latencies) == 20
    assert outcome.succeeded == 0
    assert outcome.errors["not_sent"] + outcome.errors["timeout"] == 20
    assert endpoint.received < 20
    assert max(outcome.latencies) >= 0.2


def test_a_request_without_answer_is_given_up_and_counted(clock, monkeypatch):
    monkeypatch.setattr(load, "RETRY_S", 0)

    def reply(wire, number):
        if number > 1:
            wire.transport.write(OK)
        else:
            clock.seconds += 0.15

    outcome, endpoint = put_load(clock.moved_by(reply), LoadPlan(1, 0.3, timeout_s=0.1))
    assert outcome.errors == {"timeout": 1}
    assert len(outcome.latencies) == endpoint.received > 1


@pytest.mark.parametrize(
    ("content", "code", "status"),
    [
        (OVERLOADED, "overloaded", "503"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n<html>", "http_502", "502"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "http_302", "302"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad_answer", None),
        (OK + OK, "bad_answer", None),
        (b"", "connection_lost", None),
    ],
)
def test_an_error_is_counted_by_its_code(content, code, status, clock):
    def reply(wire, number):
        if number > 1:
            wire.transport.write(OK)
            return
        wire.transport.write(content)
        if b"HTTP/1.1" not in content:
            wire.transport.close()

    outcome, endpoint = put_load(clock.moved_by(reply), LoadPlan(1, 0.1))
    assert outcome.errors == {code: 1}
    assert outcome.statuses.keys() == {"200", status} - {None}
    assert len(outcome.latencies) == endpoint.received == outcome.succeeded + 1


def test_an_endpoint_that_closes_after_each_answer_is_asked_again(clock):
    def reply(wire, _):
        wire.transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall until the end")
        wire.transport.close()

    outcome, endpoint = put_load(clock.moved_by(reply), LoadPlan(2, 0.1))
    assert not outcome.errors
    assert outcome.succeeded == endpoint.received == len(endpoint.wires) > 2


def test_an_endpoint_that_goes_away_is_refusals_and_no_end_of_the_run(clock, monkeypatch):
    failed, moments = Load.failed, []

    def reply(wire, number):
        if number == 3:
            wire._endpoint.server.close()
            wire.transport.abort()
        else:
            wire.transport.write(OK)

    def move_and_fail(*words):
        clock.seconds += TICK_S  # as no request does any more
        moments.append(time.monotonic())
        failed(*words)

    monkeypatch.setattr(Load, "failed", move_and_fail)
    monkeypatch.setattr(load, "RETRY_S", 0.02)
    outcome, _ = put_load(reply, LoadPlan(1, 0.1))
    assert outcome.errors == {"connection_lost": 1, "connection_refused": 6}
    assert len(outcome.latencies) == 7 + 2
    assert min(later - earlier for earlier, later in pairwise(moments)) > 0.015  # and not a busy loop


@given(st.sampled_from([OK, CHUNKED, OVERLOADED, b"HTTP/1.1 204 No\r\n\r\n"]), st.lists(st.integers(1, 30)))
def test_an_answer_is_the_same_in_any_pieces(content, sizes):
    reader, status = Answer(), int(content[9:12])
    for _ in range(2):
        rest = content
        for size in sizes:
            if len(rest) <= size:
                break
            assert not reader.feed(rest[:size])
            rest = rest[size:]
        assert reader.feed(rest)
        assert (reader.status, reader.keep_alive) == (status, True)
        assert error_code(status, reader.body) == ("" if status < 300 else "overloaded")


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0, 100))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values, percent):
    ordered = sorted(values)
    found = percentile(ordered, percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100 * (1 - 1e-12)
    below = [value for value in values if value < found]
    assert len(below) < max(1e-9, len(values) * percent / 100)


def test_grpc_calls_are_counted_by_their_status():
    calls = []

    async def infer(message, context):
        calls.append((message, dict(context.invocation_metadata()).get("authorization")))
        if len(calls) == 2:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return b"answer"

    async def run():
        server = grpc.aio.server()
        service, name = GRPC_METHOD.strip("/").split("/")
        handlers = {name: grpc.unary_unary_rpc_method_handler(infer)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        measured = Load(LoadPlan(2, 0.2))
        clients = [
            GrpcClient(measured, f"127.0.0.1:{port}", GRPC_METHOD, cycle([b"ask"]), [("authorization", "Bearer key")])
            for _ in range(2)
        ]
        for client in clients:
            await client.open()
        outcome = await measured.run(clients)
        for client in clients:
            await client.close()
        await server.stop(None)
        return outcome

    outcome = asyncio.run(run())
    assert outcome.errors == {"resource_exhausted": 1}
    assert outcome.statuses == {"RESOURCE_EXHAUSTED": 1, "OK": len(calls) - 1}
    assert set(calls) == {(b"ask", "Bearer key")}
