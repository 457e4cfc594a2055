"""What loads an endpoint in benchmarks: wrk, and our own tool; and the environments in which peers live."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from _common import started

BENCH_ENDPOINT = [sys.executable, "-m", "jobs.cli", "bench-endpoint"]

WRK_SCRIPT = """
local file = io.open(os.getenv("BODY_FILE"), "rb")
wrk.method, wrk.body = "POST", file:read("*all")
wrk.headers["Content-Type"] = os.getenv("BODY_TYPE")
file:close()

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format('{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
"""


@dataclass(frozen=True)
class Body:
    """What every request carries.

    Attributes:
        content: The bytes.
        content_type: What they are.
    """

    content: bytes
    content_type: str


@dataclass(frozen=True)
class Measured:
    """What a load came to: answered requests a second, and milliseconds that half and 99% of them took at most."""

    rate: float
    p50_ms: float
    p99_ms: float


@cache
def wrk_version() -> str | None:
    """The version of wrk on this machine; None without it."""
    if not shutil.which("wrk"):
        return None
    said = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False).stdout
    return said.split()[1] if said else "unknown"


def closed_loop(url: str, body: Body, connections: int, seconds: float, folder: Path) -> Measured:
    """Let each connection send its next request when the last is answered: by wrk, or without it by our tool.

    Args:
        url: Of the endpoint, without ``/predict``.
        body: Of the requests; our tool makes its own, which are pixels.
        connections: How many.
        seconds: Of load; all of it counts.
        folder: For files on the way.

    Raises:
        RuntimeError: A request failed.
    """
    if not wrk_version():
        return bench_endpoint(url, folder, connections=connections, seconds=seconds, warmup_s=0)
    script, content = folder / "wrk.lua", folder / "wrk.body"
    script.write_text(WRK_SCRIPT)
    content.write_bytes(body.content)
    whole_seconds = max(1, round(seconds))  # wrk knows no others
    threads, patience = ["-t1", f"-c{connections}"], ["--timeout", "60s"]  # slow is no failure
    command = ["wrk", *threads, *patience, f"-d{whole_seconds}s", "-s", str(script), f"{url}/predict"]
    with started(command, folder, BODY_FILE=str(content), BODY_TYPE=body.content_type) as running:
        result = running.result()
    if result["failed"] or not result["requests"]:
        raise RuntimeError(f"{url}: {result['failed']} of {result['requests']} requests failed")
    return Measured(result["requests"] / result["seconds"], result["p50_ms"], result["p99_ms"])


def bench_endpoint(url: str, folder: Path, **options: Any) -> Measured:
    """Load an endpoint with our own tool; its options by name.

    Raises:
        RuntimeError: A request failed.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with started([*BENCH_ENDPOINT, url, *flags, "--json"], folder) as running:
        result = running.result()
    if result["errors"]:
        raise RuntimeError(f"{url}: of {result['requests']} requests failed: {result['errors']}")
    latency = result["latency_ms"]
    return Measured(result["requests_per_s"], latency["p50"], latency["p99"])
