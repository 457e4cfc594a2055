"""``mnist bench-endpoint``: put load on an endpoint, ours or another with the same protocol, and measure it."""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
from collections.abc import Callable
from typing import Any, Final

from mnist_core.config_bench import BenchEndpointConfig
from mnist_core.errors import ConfigError, ServingFailedError
from serve.load import PERCENTILES, Load, LoadPlan, Outcome, percentile
from serve.load_clients import GrpcClient, HttpClient
from serve.load_requests import GRPC_METHOD, draw_digits, make_requests

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

Client = HttpClient | GrpcClient


def run(config: BenchEndpointConfig) -> dict[str, Any]:
    """Carry the command out.

    Args:
        config: Its configuration.

    Returns:
        A JSON object: what was asked for (``url``, ``protocol``, ``connections``, ``images``, ``rate``, ``seconds``),
        ``requests`` that ended after the warm-up and ``succeeded`` among them, ``requests_per_s`` and ``images_per_s``
        that succeeded, ``latency_ms`` (``p50``, ``p90``, ``p99``, ``p99.9``, ``max``; None if no request ended),
        ``statuses`` and ``errors`` (counts, by status and by code), ``client_cpu`` (this process's share of one core),
        and ``problem`` if no request succeeded.

    Raises:
        ConfigError: The file with the API key holds none.
        ServingFailedError: No endpoint is there.
    """
    api_key = _read_key(config)
    requests = make_requests(
        config.protocol, config.model, config.address.netloc, config.images, api_key, draw_digits()
    )
    plan = LoadPlan(config.connections, config.seconds, config.warmup_s, config.rate, config.timeout_s)

    def make_client(load: Load) -> Client:
        address = config.address
        host, port, tls = address.hostname or "", address.port or DEFAULT_PORTS[address.scheme], address.scheme[4:]
        if config.protocol == "grpc":
            metadata = [("authorization", f"Bearer {api_key}")] if api_key else []
            target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            return GrpcClient(load, target, GRPC_METHOD, requests, metadata, tls=bool(tls))
        return HttpClient(load, host, port, requests, ssl.create_default_context() if tls else None)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        outcome = runner.run(_put_load(config.url, plan, make_client))
    return _sum_up(config, outcome)


def render(result: dict[str, Any]) -> str:
    """Put a result of ``run`` in words for a terminal."""
    pace = f"{result['rate']:g} requests/s" if result["rate"] else "closed loop"
    images, connections = (_count(result[name], name) for name in ("images", "connections"))
    lines = [
        f"{result['url']}, {result['protocol']}, {images} a request, {connections}, {pace}, {result['seconds']:g} s",
        f"{result['requests_per_s']:,.1f} requests/s, {result['images_per_s']:,.1f} images/s",
    ]
    if result["latency_ms"]:
        lines.append("latency  " + "  ".join(f"{name} {ms:.3g} ms" for name, ms in result["latency_ms"].items()))
    lines.append(f"requests {result['requests']:,}, succeeded {result['succeeded']:,}")
    lines += [
        f"{name:<8} " + "  ".join(f"{code}: {count:,}" for code, count in result[name].items())
        for name in ("statuses", "errors")
        if result[name]
    ]
    lines.append(f"this client took {result['client_cpu']:.0%} of a core")
    return "\n".join(lines)


def _count(number: int, things: str) -> str:
    return f"{number:,} {things if number != 1 else things[:-1]}"


async def _put_load(url: str, plan: LoadPlan, make_client: Callable[[Load], Client]) -> Outcome:
    load = Load(plan)
    clients = [make_client(load) for _ in range(plan.connections)]
    try:
        async with asyncio.timeout(plan.timeout_s):
            await asyncio.gather(*(client.open() for client in clients))
        return await load.run(clients)
    except OSError as err:  # TimeoutError and TLS's errors are among them
        raise ServingFailedError(f"{url}: {_reason(err, plan.timeout_s)}; mnist serve starts an endpoint") from err
    finally:
        for client in clients:
            await client.close()


def _reason(err: OSError, timeout_s: float) -> str:
    if isinstance(err, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(err, TimeoutError):
        return f"no connection within {timeout_s:g} s"
    return str(err.strerror or err)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


def _read_key(config: BenchEndpointConfig) -> str | None:
    path = config.api_key_file
    if path is None:
        return None
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"--api-key-file {path}: cannot be read ({err}); expected one key a line") from err
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"--api-key-file {path}: received no key, expected one a line")
    return keys[0]


def _sum_up(config: BenchEndpointConfig, outcome: Outcome) -> dict[str, Any]:
    ordered = sorted(outcome.latencies)
    points = {f"p{percent:g}": percentile(ordered, percent) for percent in PERCENTILES} if ordered else {}
    latency_ms = {name: round(1000 * seconds, 3) for name, seconds in points.items()}
    if ordered:
        latency_ms["max"] = round(1000 * ordered[-1], 3)
    asked = config.model_dump(include={"url", "protocol", "connections", "images", "rate", "seconds"})
    result = {
        **asked,
        "requests": len(ordered),
        "succeeded": outcome.succeeded,
        "requests_per_s": round(outcome.rate, 2),
        "images_per_s": round(outcome.rate * config.images, 2),
        "latency_ms": latency_ms or None,
        "statuses": dict(outcome.statuses.most_common()),
        "errors": dict(outcome.errors.most_common()),
        "client_cpu": round(outcome.cpu_fraction, 3),
    }
    if not outcome.succeeded:
        codes = ", ".join(result["errors"]) or "none ended in time"
        result["problem"] = f"no request of {len(ordered)} succeeded: {codes}"
    return result
