"""How the cost of a training step grows with the number of workers: measured for a few, modelled for many.

Measured here, for 1 to 4 workers of one thread each (the very step of `mnist train`, the notebook's network, a global
batch of 128 in micro-batches of 16), without Ray, which has no part in a step:

  alone      each worker computes its share, all at the same time, and adds nothing up: computation
  together   the same with the sum over all workers; the difference is the all-reduce
  input      cutting, shuffling and gathering the share's images
  bytes      sent by a worker in a step, on a network interface of its own where this machine permits that (root, and
             network namespaces), else counted on loopback for all workers

The model, for N workers, M micro-batches and G bytes of gradient:

  compute(N)    = rest + ceil(M / N) * micro, times N / cores where workers outnumber this machine's cores
  allreduce(N)  = fixed + 2 (N - 1) * hop + 2 (N - 1) / N * G / bandwidth, a ring (Patarasu and Yuan, 2009)

`micro` and `rest` are fitted to *alone*, `fixed` and `hop` (what TensorFlow needs for a message, whatever the network)
to *together*; the network's latency is added to `hop`. Fits are least squares over the measured points, and the error
with which the model meets those is printed. Beyond them the model assumes: machines like this one with a core a worker,
a network whose bandwidth each worker has for itself, and nobody who is slower than the others.

Reported are medians over the rounds, the error of the model at the measured points, and what it says beyond them.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import CORES, PEERS, ROOT, interleave, make_parser, make_row, print_report, started

from mnist_core.ports import held_ports

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "cluster")]
import hosts  # noqa: E402  (the tests' hosts, of which this benchmark needs the network)

WORKERS = (1, 2, 3, 4)
MICRO_BATCHES = 8
MODELLED = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MODELLED_MICRO_BATCHES = 256
FORMATS = {"fixed point, 8 bytes (ours)": 8, "float32": 4, "bfloat16": 2}
PORT = 23456


@dataclass(frozen=True)
class Point:
    """One number of workers, measured: seconds of a step and its parts, and bytes that a worker sends in one."""

    alone: float
    together: float
    input: float
    sent: float
    parameters: int

    @property
    def allreduce(self) -> float:
        """What adding up costs."""
        return max(self.together - self.alone, 0.0)


@dataclass(frozen=True)
class Model:
    """The model of the docstring: seconds."""

    micro: float
    rest: float
    fixed: float
    hop: float

    def compute(self, workers: int, micro_batches: int, cores: float = math.inf) -> float:
        """Seconds of computation in a step."""
        return (self.rest + math.ceil(micro_batches / workers) * self.micro) * max(1.0, workers / cores)

    def allreduce(self, workers: int, size: float, bandwidth: float, latency: float) -> float:
        """Seconds of adding up; bytes, bytes a second, seconds."""
        if workers == 1:
            return 0.0
        return self.fixed + 2 * (workers - 1) * (self.hop + latency) + 2 * (workers - 1) / workers * size / bandwidth


def measure(workers: int, steps: int, folder: Path, lan: Sequence[hosts.Host]) -> Point:
    """Run this many workers, alone and then together."""
    alone = run_workers(workers, steps, folder, lan, together=False)
    together = run_workers(workers, steps, folder, lan, together=True)
    middle = {
        name: statistics.median(each[name] for each in found)
        for found, names in ((alone, ("input_s", "parameters")), (together, ("sent",)))
        for name in names
    }
    step_alone, step_together = (max(each["step_s"] for each in found) for found in (alone, together))
    sent = middle["sent"] if lan else middle["sent"] / workers
    return Point(step_alone, step_together, middle["input_s"], sent, int(middle["parameters"]))


def run_workers(
    workers: int, steps: int, folder: Path, lan: Sequence[hosts.Host], *, together: bool
) -> list[dict[str, Any]]:
    """What each of the workers has measured, all at the same time."""
    with ExitStack() as stack:
        addresses = [f"{host.address}:{PORT}" for host in lan[:workers]]
        addresses = addresses or [f"127.0.0.1:{port}" for port in stack.enter_context(held_ports(workers))]
        running = []
        for rank in range(workers):
            command = [sys.executable, str(PEERS / "scaling_worker.py"), str(rank), str(workers), str(steps)]
            variables = {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}
            if lan:
                command = ["ip", "netns", "exec", lan[rank].name, *command]
                variables["OWN_HOST"] = "1"
            if together:
                place = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
                variables["TF_CONFIG"] = json.dumps(place)
            running.append(stack.enter_context(started(command, folder, **variables)))
        return [worker.result() for worker in running]


def fit(points: dict[int, Point]) -> Model:
    """Fit the model to what was measured."""
    crowd = {workers: max(1.0, workers / CORES) for workers in points}
    shares = [[math.ceil(MICRO_BATCHES / workers) * crowd[workers], crowd[workers]] for workers in points]
    micro, rest = _positive_fit(shares, [point.alone for point in points.values()])
    several = [workers for workers in points if workers > 1]
    hops = [[2 * (workers - 1), 1.0] for workers in several]
    hop, fixed = _positive_fit(hops, [points[workers].allreduce for workers in several])
    return Model(micro, rest, fixed, hop)


def _positive_fit(rows: Sequence[Sequence[float]], values: Sequence[float]) -> tuple[float, float]:
    """Least squares for two factors, neither of which can be negative."""
    (first, second), *_ = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)
    if second < 0:
        column = np.array(rows)[:, 0]
        return float(column @ np.array(values) / (column @ column)), 0.0
    if first < 0:
        column = np.array(rows)[:, 1]
        return 0.0, float(column @ np.array(values) / (column @ column))
    return float(first), float(second)


def errors(model: Model, points: dict[int, Point]) -> dict[int, float]:
    """By how much of the measured step the model is wrong."""
    found = {}
    for workers, point in points.items():
        modelled = model.compute(workers, MICRO_BATCHES, CORES) + model.allreduce(workers, 0, 1, 0)
        found[workers] = modelled / point.together - 1
    return found


def predict(model: Model, parameters: int, bandwidth: float, latency: float) -> dict[str, list[float]]:
    """Seconds of a step for each number of workers that is modelled, by format of the gradients."""
    return {
        name: [
            model.compute(workers, MODELLED_MICRO_BATCHES)
            + model.allreduce(workers, parameters * width, bandwidth, latency)
            for workers in MODELLED
        ]
        for name, width in FORMATS.items()
    }


def draw(path: Path, predicted: dict[str, list[float]], title: str) -> None:
    """Speed over one worker for each format, as a picture."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for style, (name, seconds) in zip(("-o", "--s", ":^"), predicted.items(), strict=True):
        axes.plot(MODELLED, [seconds[0] / each for each in seconds], style, label=name, markersize=4)
    axes.plot(MODELLED, MODELLED, color="0.7", linewidth=1, label="perfect")
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="speed over one worker", title=title)
    axes.set_xticks(MODELLED, [str(each) for each in MODELLED])
    axes.legend()
    figure.savefig(path, dpi=150)


@contextmanager
def network(folder: Path, count: int, *, wanted: bool) -> Iterator[list[hosts.Host]]:
    """Hosts of their own for the workers, or none where this machine does not permit that."""
    reason = hosts.missing() if wanted else "not wanted"
    if reason:
        print(f"workers share this machine's loopback: {reason}", file=sys.stderr)
        yield []
        return
    with hosts.hosts(folder, [f"scale{number}" for number in range(count)]) as lan:
        yield lan


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, fit, and print."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS[2:], help="beside 1 and 2 (default 3 4)")
    parser.add_argument("--steps", type=int, default=25, help="steps a call (default 25)")
    parser.add_argument("--bandwidth", type=float, default=10.0, help="of the modelled network, Gbit/s (default 10)")
    parser.add_argument(
        "--latency", type=float, default=50.0, help="of the modelled network, microseconds (default 50)"
    )
    parser.add_argument("--plot", type=Path, help="file for the picture, such as scaling.png")
    parser.add_argument("--loopback", action="store_true", help="make no network of its own")
    options = parser.parse_args(argv)
    if options.smoke:
        options.rounds, options.steps = 1, 2
    with (
        tempfile.TemporaryDirectory() as name,
        network(Path(name), max(2, *options.workers), wanted=not options.loopback) as lan,
    ):
        ways = {
            str(workers): lambda workers=workers: measure(workers, options.steps, Path(name), lan)
            for workers in sorted({1, 2, *options.workers})
        }
        rounds = interleave(ways, options.rounds)
    points = {int(workers): _middle(found) for workers, found in rounds.items()}
    model = fit(points)
    predicted = predict(model, points[1].parameters, options.bandwidth * 1e9 / 8, options.latency * 1e-6)
    title = f"{MODELLED_MICRO_BATCHES} micro-batches of 16, {options.bandwidth:g} Gbit/s, {options.latency:g} us"
    if options.plot:
        draw(options.plot, predicted, f"Model of a training step: {title}")
    report(rounds, points, model, predicted, title, json_only=options.json_only)


def _middle(found: Sequence[Point]) -> Point:
    return Point(
        **{
            name: statistics.median(getattr(each, name) for each in found)
            for name in ("alone", "together", "input", "sent")
        },
        parameters=found[0].parameters,
    )


def report(
    rounds: dict[str, list[Point]],
    points: dict[int, Point],
    model: Model,
    predicted: dict[str, list[float]],
    title: str,
    *,
    json_only: bool,
) -> None:
    """Print what was measured and what the model says."""
    rows = []
    for workers, found in rounds.items():
        rows += [
            make_row(f"{workers} workers: {part}", "ms", [getattr(each, part) * 1e3 for each in found])
            for part in ("alone", "together", "allreduce", "input")
        ]
        rows.append(make_row(f"{workers} workers: sent by each", "KB", [each.sent / 1e3 for each in found]))
    gradient = points[1].parameters * 8 / 1e3
    ratios: dict[str, float] = {"KB of gradient in fixed point": round(gradient, 1)}
    for workers, error in errors(model, points).items():
        ratios[f"{workers} workers: model over measured - 1"] = round(error, 3)
    for name in ("micro", "rest", "fixed", "hop"):
        ratios[f"model: {name}, ms"] = round(getattr(model, name) * 1e3, 3)
    if not json_only:
        print(f"model: {title}: ms a step\n{'workers':>8}" + "".join(f"{name:>30}" for name in predicted))
        for index, workers in enumerate(MODELLED):
            print(f"{workers:>8}" + "".join(f"{seconds[index] * 1e3:>30.2f}" for seconds in predicted.values()))
    print_report("scaling", len(rounds["1"]), rows, ratios, {}, json_only=json_only)


if __name__ == "__main__":
    main()
