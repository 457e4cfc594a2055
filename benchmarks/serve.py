"""Requests per second and latencies of our endpoint, beside what a user would take instead, on one machine.

  ours      `mnist serve` with one replica: HAProxy, Ray Serve, batches that wait for nobody, LiteRT
  fastapi   FastAPI and uvicorn (uvloop, httptools), one process, LiteRT, no batching: nothing between client and engine
  ray       Ray Serve as it comes: no flag, `@serve.batch` with 64 requests or 2 ms, Keras's `model.predict`
  litserve  LitServe, one worker, LiteRT
  bentoml   BentoML, one worker, LiteRT
  engine    no server: `Predictor.predict` and bare LiteRT in a loop in one process

Engines have one thread, the load comes from the same machine, and all answer one and the same image alike. In each
round each way is started, warmed up, loaded and stopped by its own id, one after the other (peers/serve_*.py; LitServe
and BentoML in an environment of their own). A request is one image of 784 bytes, for LitServe and BentoML the same
in base64, since they read no raw bytes by themselves.

Closed loops are wrk's, or those of `mnist bench-endpoint` where there is no wrk. Half of the peak is the open loop of
`mnist bench-endpoint`: requests are due at a fixed rate, and latencies count from there. So is the load of 256 images a
request, in the V2 protocol's binary form.

Read the ratios, ours over each: the median of ratios taken within one round. The peak is the better of 32 and 64
connections.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import numpy as np
from _common import (
    CORES,
    PEERS,
    ROOT,
    at_least,
    at_most,
    interleave,
    make_parser,
    make_row,
    median_ratio,
    peers_python,
    print_report,
    started,
)
from _load import bench_endpoint, closed_loop, wrk_version
from _servers import OWN_ENVIRONMENT, SERVERS, ask, body_of, memory_mb, serving
from score import make_model

WAYS = (*SERVERS, "engine")
PEAK_CONNECTIONS = (32, 64)
MANY_IMAGES, MANY_CONNECTIONS = 256, 4

PEAK, HALF, ALONE, MEMORY = "peak", "p99 / p50 at half of the peak", "p50 at 1 connection", "memory"
MANY = f"{MANY_IMAGES} images a request"
ENGINES = {
    f"{engine}, {threads} thread{'s' * (threads > 1)}": (engine, threads)
    for engine in ("predictor", "litert")
    for threads in sorted({1, CORES})
}


@dataclass(frozen=True)
class Round:
    """One way in one round: its figures by name, and its answer to the one image."""

    figures: dict[str, float]
    answer: dict[str, Any]


def measure_server(name: str, seconds: float, folder: Path) -> Round:
    """Start a server, load it in every way, and stop it."""
    with serving(name, folder) as (url, running):
        body = body_of(name)
        load = partial(closed_loop, url, body, folder=folder)
        load(connections=PEAK_CONNECTIONS[0], seconds=seconds / 3)  # to warm up
        alone = load(connections=1, seconds=seconds)
        figures = {ALONE: alone.p50_ms}
        for connections in PEAK_CONNECTIONS:
            figures[f"{connections} connections"] = load(connections=connections, seconds=seconds).rate
        figures[PEAK] = max(figures[f"{connections} connections"] for connections in PEAK_CONNECTIONS)
        if name in ("ours", "fastapi"):
            half = bench_endpoint(url, folder, rate=figures[PEAK] / 2, seconds=seconds, warmup_s=seconds / 3)
            figures |= {"p50 at half of the peak": half.p50_ms, "p99 at half of the peak": half.p99_ms}
            figures[HALF] = half.p99_ms / half.p50_ms
        if name == "ours":
            many = {"protocol": "v2-binary", "images": MANY_IMAGES, "connections": MANY_CONNECTIONS}
            rate = bench_endpoint(url, folder, **many, seconds=seconds, warmup_s=seconds / 3).rate
            figures[MANY] = rate * MANY_IMAGES
        answer = ask(url, body)
        assert answer
        figures[MEMORY] = memory_mb(name, running)
    return Round(figures, answer)


def measure_engine(seconds: float, folder: Path) -> Round:
    """Images per second of engines without a server."""
    figures = {}
    for name, (engine, threads) in ENGINES.items():
        numbers = [str(threads), str(MANY_IMAGES), str(seconds / 3)]
        command = [sys.executable, str(PEERS / "serve_engine.py"), engine, str(folder / "model"), *numbers]
        with started(command, folder, PYTHONPATH=str(ROOT)) as running:
            figures[name] = running.result()["images_per_s"]
    return Round(figures, {})


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which (default: all)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default 5)")
    options = parser.parse_args(argv)
    if options.smoke:
        options.rounds, options.seconds = 1, 0.5
    if not wrk_version():
        print("no wrk on this machine (Debian's package wrk): mnist bench-endpoint in its place", file=sys.stderr)
    ways = installable(options.ways)
    with tempfile.TemporaryDirectory() as name:
        make_model(Path(name))
        how = {"seconds": options.seconds, "folder": Path(name)}
        measures: dict[str, Callable[[], Round]] = {
            way: partial(measure_engine, **how) if way == "engine" else partial(measure_server, way, **how)
            for way in ways
        }
        rounds = interleave(measures, options.rounds)
    report(rounds, options.rounds, options.json_only)


def installable(ways: Sequence[str]) -> list[str]:
    """The ways without those whose environment cannot be made here, which is said."""
    if set(ways) & set(OWN_ENVIRONMENT):
        try:
            peers_python("serve")
        except CalledProcessError as err:
            print(f"warning: without {' and '.join(OWN_ENVIRONMENT)}, not installable here: {err}", file=sys.stderr)
            return [way for way in ways if way not in OWN_ENVIRONMENT]
    return list(ways)


def report(rounds: Mapping[str, Sequence[Round]], num_rounds: int, json_only: bool) -> None:
    """Print rows, ratios and what must hold."""
    found = {
        way: {name: [each.figures[name] for each in measured] for name in measured[0].figures}
        for way, measured in rounds.items()
    }
    rows = [
        make_row(f"{way}: {name}", unit_of(name), values)
        for way, figures in found.items()
        for name, values in figures.items()
    ]
    ratios: dict[str, float] = {}
    ours = found.get("ours", {})
    for peer in SERVERS[1:] if ours else ():
        for name in (PEAK, ALONE) if peer in found else ():
            ratios[f"{name}, ours / {peer}"] = median_ratio(ours[name], found[peer][name])
    for name, rates in found.get("engine", {}).items() if ours else ():
        ratios[f"{MANY}, ours / {name}"] = median_ratio(ours[MANY], rates)
    must = judge(ratios, rows)
    answers = [measured[0].answer for way, measured in rounds.items() if way in SERVERS]
    same = all(alike(answer, answers[0]) for answer in answers)
    must["same answers"] = {"value": same, "bound": True, "met": same}
    print_report("serve", num_rounds, rows, ratios, must, json_only=json_only, versions=peer_versions())


def judge(ratios: Mapping[str, float], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What must hold, of that which was measured."""
    values = {**{row["way"]: row["median"] for row in rows}, **ratios}
    bounds = {
        f"{PEAK}, ours / fastapi": (at_least, 0.6),
        f"{PEAK}, ours / ray": (at_least, 20),
        f"{ALONE}, ours / fastapi": (at_most, 5),
        f"ours: {HALF}": (at_most, 5),
        f"{MANY}, ours / predictor, 1 thread": (at_least, 0.6),
        f"{MANY}, ours / litert, 1 thread": (at_least, 0.6),
        f"ours: {MEMORY}": (at_most, 500),
    }
    return {name: check(values[name], bound) for name, (check, bound) in bounds.items() if name in values}


def unit_of(name: str) -> str:
    """The unit of a figure."""
    if name == HALF:
        return "ratio"
    if name == MEMORY:
        return "MB"
    if name == MANY or name in ENGINES:
        return "img/s"
    return "ms" if name.startswith(("p50", "p99")) else "req/s"


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two answers say the same."""
    same = all(one[name] == other[name] for name in ("digit", "rejected"))
    return same and np.allclose(one["probabilities"], other["probabilities"], atol=1e-4)


def peer_versions() -> dict[str, str]:
    """The versions of what was compared."""
    lines = (PEERS / "requirements-serve.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    here = {name: importlib.metadata.version(name) for name in ("ai-edge-litert", "fastapi", "uvicorn")}
    return {**here, **{name: pins[name] for name in OWN_ENVIRONMENT}, "wrk": wrk_version() or "none"}


if __name__ == "__main__":
    main()
