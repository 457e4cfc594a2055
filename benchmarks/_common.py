"""What the benchmarks share: ways measured in turn, one table and one JSON object, processes that are gone afterwards.

Every command runs in a session of its own, without the caller's ``MNIST_``, ``RAY_`` and ``TF_`` variables, so that
neither a developer's settings nor an earlier Ray decide a figure. Linux only: sessions are looked up in ``/proc``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mnist_core.datasets import Split, load_dataset

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "peers"
MNIST_TRAIN = [sys.executable, "-m", "jobs.cli", "train"]
CORES = os.cpu_count() or 1
LIBRARIES = ("keras", "numpy", "ray", "tensorflow", "tf-keras")
HIDDEN_VARIABLES = ("MNIST_", "RAY_", "TF_", "KERAS_", "OMP_", "CUDA_VISIBLE_DEVICES")
POLL_S = 0.05
RUN_LIMIT_S = 1800.0
EXIT_GRACE_S = 60.0


def make_parser(doc: str, rounds: int) -> argparse.ArgumentParser:
    """Make the command line that all benchmarks have.

    Args:
        doc: The benchmark's docstring, shown by ``--help``.
        rounds: How often each way is measured unless told otherwise.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"times each way is measured (default {rounds})")
    parser.add_argument("--json-only", action="store_true", help="print the JSON object alone")
    parser.add_argument("--smoke", action="store_true", help="one tiny round: does it work? The figures mean nothing")
    return parser


def interleave(ways: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure the ways in turn, A B C A B C ..., so that a slow minute of the machine hits all of them alike."""
    results: dict[str, list[T]] = {way: [] for way in ways}
    for number in range(1, rounds + 1):
        for way, measure in ways.items():
            started = time.monotonic()
            results[way].append(measure())
            took = time.monotonic() - started
            print(f"round {number}/{rounds}  {way}  took {took:.0f} s", file=sys.stderr, flush=True)
    return results


def make_row(way: str, unit: str, values: Sequence[float]) -> dict[str, Any]:
    """Sum one way's rounds up."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return {"way": way, "unit": unit, "median": round(middle, 3), "min": round(least, 3), "max": round(most, 3)}


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the rounds' ratios: both sides of one ratio were measured within the same minutes."""
    return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 3)


def at_least(value: float, bound: float) -> dict[str, Any]:
    """A figure that must not fall below a bound."""
    return {"value": value, "bound": f">= {bound:g}", "met": value >= bound}


def at_most(value: float, bound: float) -> dict[str, Any]:
    """A figure that must not rise above a bound."""
    return {"value": value, "bound": f"<= {bound:g}", "met": value <= bound}


def print_report(
    benchmark: str,
    rounds: int,
    rows: Sequence[Mapping[str, Any]],
    ratios: Mapping[str, float],
    must: Mapping[str, Mapping[str, Any]],
    *,
    json_only: bool,
    versions: Mapping[str, str] | None = None,
) -> None:
    """Print the table for people, then the JSON object as the last line; ``versions`` are added to ours."""
    ours = {name: importlib.metadata.version(name) for name in LIBRARIES}
    versions = {"python": platform.python_version(), **ours, **(versions or {})}
    if not json_only:
        width = max(len(row["way"]) for row in rows)
        print(f"{benchmark}: {rounds} rounds, {CORES} cores, {', '.join(' '.join(item) for item in versions.items())}")
        print(f"{'way':<{width}}  {'unit':<6}{'median':>10}{'min':>10}{'max':>10}")
        for row in rows:
            figures = "".join(f"{row[name]:>10,.{0 if row[name] >= 100 else 2}f}" for name in ("median", "min", "max"))
            print(f"{row['way']:<{width}}  {row['unit']:<6}{figures}")
        for name, value in ratios.items():
            print(f"{name}: {value}")
        for name, check in must.items():
            print(f"must {name}: {check['value']} {check['bound']}: {'met' if check['met'] else 'NOT MET'}")
    answer = {"benchmark": benchmark, "versions": versions, "cores": CORES, "rounds": rounds}
    print(json.dumps({**answer, "rows": rows, "ratios": ratios, "must": must}), flush=True)


def write_digits(path: Path, num_train: int, num_test: int = 200) -> Path:
    """Write a dataset of MNIST's form for all ways to read: MNIST's first digits, or noise without MNIST_DATA_DIR.

    No time measured here depends on what the images show.
    """
    folder = os.environ.get("MNIST_DATA_DIR")
    if folder:
        mnist = load_dataset("mnist", Path(folder), download=False)
        train, test = mnist.train, mnist.test
    else:
        train, test = _noise(num_train, seed=0), _noise(num_test, seed=1)
    np.savez(
        path,
        x_train=train.images[:num_train],
        y_train=train.labels[:num_train],
        x_test=test.images[:num_test],
        y_test=test.labels[:num_test],
    )
    return path


def _noise(count: int, seed: int) -> Split:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return Split(images, random.integers(0, 10, count, dtype=np.uint8))


class Command:
    """A command that ``started`` runs; ``pid`` is its process's and its session's id."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._output = output

    def result(self, limit_s: float | None = RUN_LIMIT_S) -> dict[str, Any]:
        """Wait for the end and read the JSON object that the command printed last; None: however long it takes."""
        self.wait(limit_s)
        last_line = self._output.read_text().splitlines()[-1]
        return dict(json.loads(last_line))

    def wait(self, limit_s: float | None = RUN_LIMIT_S) -> None:
        """Wait for the end."""
        if self._process.wait(limit_s):
            raise self._failure()

    def wait_for(self, look: Callable[[], T | None]) -> T:
        """Look, about twenty times a second, until there is something to see."""
        deadline = time.monotonic() + RUN_LIMIT_S
        while (seen := look()) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._failure()
            time.sleep(POLL_S)
        return seen

    def processes(self) -> dict[int, str]:
        """The command's living processes, at any depth: id to command line."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended meanwhile
                if os.getsid(int(folder.name)) == self.pid and " Z " not in (folder / "stat").read_text():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def cpu_seconds(self, parts: Mapping[str, str]) -> dict[str, float]:
        """Processor time so far of its living processes, by part; what is in no part is ``rest``.

        Args:
            parts: Name of a part to a word in the command lines of its processes.
        """
        found = dict.fromkeys([*parts, "rest"], 0.0)
        for pid, words in self.processes().items():
            part = next((name for name, title in parts.items() if title in words), "rest")
            with suppress(OSError):  # it ended meanwhile
                fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
                found[part] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return found

    def _failure(self) -> RuntimeError:
        last_words = self._output.with_suffix(".err").read_text(errors="replace")[-2000:]
        code = self._process.poll()
        return RuntimeError(f"{self._process.args!r} ended with {code}, last words:\n{last_words}")


@contextmanager
def started(command: Sequence[str], folder: Path, **variables: str) -> Iterator[Command]:
    """Run a command; when the block is left, it and every process that it started are gone.

    Args:
        command: The program and its arguments.
        folder: Where its stdout and stderr go.
        variables: Added to its environment.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN_VARIABLES)}
    output = folder / f"{time.time_ns()}.out"
    with output.open("wb") as stdout, output.with_suffix(".err").open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**kept, **variables}, stdout=stdout, stderr=stderr, start_new_session=True
        )
        running = Command(process, output)
        try:
            yield running
        finally:
            _end(process, running)


def _end(process: subprocess.Popen[bytes], running: Command) -> None:
    """Interrupt the command as Ctrl-C does, wait for all of its processes, and kill by id what does not go."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    _wait_until_gone(process, running)
    for pid, name in running.processes().items():
        print(f"killed {pid}, which did not end by itself: {name[:80]}", file=sys.stderr)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait_until_gone(process, running)


def _wait_until_gone(process: subprocess.Popen[bytes], running: Command) -> None:
    deadline = time.monotonic() + EXIT_GRACE_S
    while (process.poll() is None or running.processes()) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def peers_python(name: str) -> str:
    """Python of the environment with these peers, which is made if it is not there yet or no longer right.

    Args:
        name: ``requirements-NAME.txt`` says what is in it.
    """
    requirements, folder = PEERS / f"requirements-{name}.txt", Path(sys.prefix, f"peers-{name}")
    stamp, python = folder / "requirements.txt", folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        print(f"installing the peers into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        quiet = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([str(python), "-m", "pip", "install", *quiet, "-r", str(requirements)], check=True)
        stamp.write_text(requirements.read_text())
    return str(python)
