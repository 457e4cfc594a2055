"""How scoring and the endpoint grow: measured for a few actors and replicas, modelled for many.

Measured here, for 1 to 3 actors of `mnist score` and 1 to 3 replicas of `mnist serve`, each with one thread:

  rate       images a second in steady state (MNIST in one IDX file, and as PNG files); requests a second of one image
             (wrk, 32 connections for each replica)
  processor  seconds that an image or a request costs in the actors or replicas, in what all of them share (the job's
             driver; HAProxy), in the rest of Ray, and in the client

The model, for N of them: each can do 1 / own a second, what they share 1 / shared, and this machine's cores do no more
than cores / (own + shared + rest + client), where a cluster has a core for each:

  rate(N) = min(N / own, 1 / shared [, cores / all on this machine])

The costs are those measured with one, and the error is that with which they foretell what was measured with more. Every
node has an HAProxy of its own, of one thread, so what is said beyond is for one node's HAProxy; M nodes have M.
Storage and network are taken as fast enough, as they were here.

Reported are medians over the rounds, what the model foretells, and its error at the measured points.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from _common import CORES, interleave, make_parser, make_row, print_report, started
from _load import closed_loop
from _servers import RAW, serving
from score import load_digits, make_model, write_forms, write_idx

from jobs.score_output import PLAN, RECORDS

MODELLED = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONNECTIONS = 32
STEADY_FROM, STEADY_TO = 0.3, 0.9
"""Of a scoring job's work units: between these all actors work."""

ACTOR, REPLICA = {"own": "UnitScorer", "shared": "jobs.cli score"}, {"own": "ray::ServeReplica", "shared": "haproxy"}


@dataclass(frozen=True)
class Costs:
    """One number of actors or replicas, measured: items a second, and processor seconds of an item by part."""

    rate: float
    own: float
    shared: float
    rest: float
    client: float = 0.0

    def foretell(self, count: int, cores: float = math.inf) -> float:
        """The model of the docstring: items a second."""
        everything = self.own + self.shared + self.rest + self.client
        return min(count / self.own, 1 / self.shared if self.shared else math.inf, cores / everything)


def measure_endpoint(replicas: int, seconds: float, folder: Path) -> Costs:
    """Load an endpoint that has this many replicas."""
    size = [f"--min-replicas={replicas}", f"--max-replicas={replicas}", "--cpus-per-replica=0.25"]
    with serving("ours", folder, *size) as (url, running):
        load = partial(closed_loop, url, RAW, connections=CONNECTIONS * replicas, folder=folder)
        load(seconds=seconds / 2)  # to warm up, and for HAProxy to know all replicas
        before, client = running.cpu_seconds(REPLICA), _children_seconds()
        rate = load(seconds=seconds).rate
        items = rate * max(1, round(seconds))  # whole seconds are all that wrk knows
        after = running.cpu_seconds(REPLICA)
        spent = {part: (after[part] - before[part]) / items for part in after}
        return Costs(rate, **spent, client=(_children_seconds() - client) / items)


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def measure_scoring(actors: int, images: Path, folder: Path) -> Costs:
    """Score with this many actors, and look at the middle of the job."""
    output = folder / "scored"
    shutil.rmtree(output, ignore_errors=True)
    words = [str(images), str(output), "--storage", str(folder / "storage"), f"--workers={actors}"]
    command = [sys.executable, "-m", "jobs.cli", "score", *words, "--cpus-per-worker=0.5", "--json"]
    with started(command, folder) as running:
        units = running.wait_for(lambda: _count_units(output))

        def when(fraction: float) -> tuple[float, int, dict[str, float]]:
            done = running.wait_for(lambda: _count_done(output, fraction * units))
            return time.monotonic(), done, running.cpu_seconds(ACTOR)

        (begun, few, before), (ended, many, after) = when(STEADY_FROM), when(STEADY_TO)
        items = running.result()["items"] * (many - few) / units
    spent = {part: (after[part] - before[part]) / items for part in after}
    return Costs(items / (ended - begun), **spent)


def _count_units(output: Path) -> int | None:
    with suppress(OSError, EOFError):
        return len(json.loads(gzip.decompress((output / PLAN).read_bytes()))["units"])
    return None


def _count_done(output: Path, least: float) -> int | None:
    done = len(list((output / RECORDS).glob("*.json")))
    return done if done >= least else None


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, model, and print."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 3], help="actors, replicas (default 1 2 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default 5)")
    parser.add_argument("--images", type=int, default=1_000_000, help="to score in one IDX file (default 1000000)")
    parser.add_argument("--png", type=int, default=70_000, help="to score as PNG files (default 70000)")
    options = parser.parse_args(argv)
    if options.smoke:
        options.rounds, options.seconds, options.images, options.png, options.counts = 1, 1.0, 100_000, 6_000, [1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder)
        idx = folder / "many-idx3-ubyte"
        write_idx(idx, load_digits(options.images).images)
        png = write_forms(load_digits(options.png), folder, 0)["png"]
        ways: dict[str, Callable[[], Costs]] = {}
        for count in options.counts:
            ways[f"scoring idx, {count}"] = partial(measure_scoring, count, idx, folder)
            ways[f"scoring png, {count}"] = partial(measure_scoring, count, png, folder)
            ways[f"endpoint, {count}"] = partial(measure_endpoint, count, options.seconds, folder)
        report(interleave(ways, options.rounds), options.counts, options.rounds, json_only=options.json_only)


def report(rounds: Mapping[str, Sequence[Costs]], counts: Sequence[int], num_rounds: int, *, json_only: bool) -> None:
    """Print what was measured and what the model says."""
    middle = {way: _middle(found) for way, found in rounds.items()}
    rows, ratios = [], {}
    for way, found in rounds.items():
        unit = "req/s" if way.startswith("endpoint") else "img/s"
        rows.append(make_row(way, unit, [each.rate for each in found]))
        parts = ("own", "shared", "rest", "client")
        rows += [make_row(f"{way}: {part}", "us", [getattr(each, part) * 1e6 for each in found]) for part in parts]
    kinds = sorted({way.rpartition(", ")[0] for way in rounds})
    for kind in kinds:
        one = middle[f"{kind}, {counts[0]}"]
        for count in counts:
            error = one.foretell(count, CORES) / middle[f"{kind}, {count}"].rate - 1
            ratios[f"{kind}, {count}: model over measured - 1"] = round(error, 3)
    if not json_only:
        print(f"model: items a second, a core each\n{'count':>8}" + "".join(f"{kind:>16}" for kind in kinds))
        for count in MODELLED:
            rates = [middle[f"{kind}, {counts[0]}"].foretell(count) for kind in kinds]
            print(f"{count:>8}" + "".join(f"{rate:>16,.0f}" for rate in rates))
    print_report("scaling_inference", num_rounds, rows, ratios, {}, json_only=json_only)


def _middle(found: Sequence[Costs]) -> Costs:
    parts = ("rate", "own", "shared", "rest", "client")
    return Costs(**{name: statistics.median(getattr(each, name) for each in found) for name in parts})


if __name__ == "__main__":
    main()
