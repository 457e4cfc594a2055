"""Images per second of our Predictor, beside bare engines that run the same network: batches of 1, 64 and 1,024 images.

  ours          `load_predictor`, on all cores: a batch is shared out over engines of one thread, in blocks that stay in
                the cache; a lone image is computed by all threads together
  ours-int8     the same with convolutions in 8-bit integers
  litert        bare LiteRT with XNNPACK, as many threads as cores, the whole batch at once; litert-int8 likewise
  onnxruntime   ONNX Runtime with its defaults, the same network as ONNX (peers/engine_onnx.py)
  openvino      OpenVINO compiled for the batch size, its hint for latency, from the same ONNX file

All compute the probabilities and the strangeness of the published model and must give the same answers. Each runs in a
process of its own (peers/engine_run.py), ONNX Runtime and OpenVINO in an environment of their own, which is made beside
the project's at first use (peers/requirements-engines.txt). In a rate: everything from a batch of images to its
answers. Not in it: loading, and a quarter as long again to warm up.

Read the ratios, ours over each: the median of ratios taken within one round. Integers pay off on CPUs that have
instructions for them (AVX-512 VNNI, AMX); the versions of AVX2 before have none.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import (
    PEERS,
    ROOT,
    at_least,
    interleave,
    make_parser,
    make_row,
    median_ratio,
    peers_python,
    print_report,
    started,
)

SIZES = (1, 64, 1024)
FLOAT_PEERS = ("litert", "onnxruntime", "openvino")
OWN_ENVIRONMENT = ("onnxruntime", "openvino")
ENGINES = ("ours", "ours-int8", "litert", "litert-int8", "onnxruntime", "openvino")
BOUND = 0.9


def make_model(network: str, engines: Sequence[str], folder: Path) -> None:
    """Write the network in all forms that these engines read."""
    export = [sys.executable, str(PEERS / "engine_model.py"), str(folder), network]
    with started(export, folder, PYTHONPATH=str(ROOT)) as command:
        command.wait()
    if set(engines) & set(OWN_ENVIRONMENT):
        with started([peers_python("engines"), str(PEERS / "engine_onnx.py"), str(folder)], folder) as command:
            command.wait()


def measure(engine: str, sizes: Sequence[int], seconds: float, folder: Path) -> dict[str, Any]:
    """What peers/engine_run.py says of an engine."""
    python = peers_python("engines") if engine in OWN_ENVIRONMENT else sys.executable
    arguments = [engine, str(folder), str(seconds), *map(str, sizes)]
    with started([python, str(PEERS / "engine_run.py"), *arguments], folder, PYTHONPATH=str(ROOT)) as command:
        return command.result()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = make_parser(__doc__, rounds=7)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="which (default: all)")
    networks = ("convnet", "deepnet", "tinynet")
    parser.add_argument("--network", choices=networks, default="convnet", help="default convnet")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one batch size in one round (default 1)")
    options = parser.parse_args(argv)
    if options.smoke:
        options.rounds, options.seconds = 1, 0.05
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(options.network, options.engines, folder)
        ways = {engine: partial(measure, engine, SIZES, options.seconds, folder) for engine in options.engines}
        results = interleave(ways, options.rounds)
    rates = {
        (engine, size): [result["rates"][str(size)] for result in results[engine]]
        for size in SIZES
        for engine in options.engines
    }
    rows = [make_row(f"{engine}, batch {size}", "img/s", values) for (engine, size), values in rates.items()]
    ratios = {
        f"{mine} / {peer}, batch {size}": median_ratio(rates[mine, size], rates[peer, size])
        for size in SIZES
        for mine, peers in (("ours", FLOAT_PEERS), ("ours-int8", ("litert-int8", "ours")))
        for peer in peers
        if {mine, peer} <= set(options.engines)
    }
    must, versions = judge(rates, results), peer_versions()
    print_report("engines", options.rounds, rows, ratios, must, json_only=options.json_only, versions=versions)


def peer_versions() -> dict[str, str]:
    """The versions of the engines."""
    lines = (PEERS / "requirements-engines.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    own = {name: pins[name] for name in OWN_ENVIRONMENT}
    return {"ai-edge-litert": importlib.metadata.version("ai-edge-litert"), **own}


def judge(rates: dict[tuple[str, int], list[float]], results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What must hold: ours beside the best of the others in each round, and that all give the same answers."""
    must: dict[str, Any] = {}
    peers = [peer for peer in FLOAT_PEERS if peer in results]
    for size in SIZES if peers and "ours" in results else ():
        best = [max(rounds) for rounds in zip(*(rates[peer, size] for peer in peers), strict=True)]
        must[f"ours / best peer, batch {size}"] = at_least(median_ratio(rates["ours", size], best), BOUND)
    exact = [results[engine][0] for engine in results if "int8" not in engine]
    same = all(
        np.allclose(answer["probabilities"], exact[0]["probabilities"], atol=1e-5)
        and answer["rejected"] == exact[0]["rejected"]
        for answer in exact
    )
    must["same answers"] = {"value": same, "bound": True, "met": same}
    return must


if __name__ == "__main__":
    main()
