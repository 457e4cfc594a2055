"""From nothing to a served prediction: train briefly, score the test images, serve, ask in every protocol, stop.

``make demo`` runs it; every step is a command that is printed before it runs, to be copied. Everything it makes is in
one folder (``demo`` by default).
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mnist_core.datasets import load_dataset

FOLDER = Path("demo")


def main() -> None:
    """Run every step and say at the end what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="mnist", help="what is learned (default mnist)")
    parser.add_argument("--epochs", default="1", help="how long (default 1)")
    options = parser.parse_args()
    started = time.monotonic()
    storage = ["--storage", str(FOLDER / "storage")]
    trained = mnist(
        "train", "--dataset", options.dataset, "--recipe", "notebook", "--epochs", options.epochs, "--workers", "2", *storage
    )
    images, labels = write_pictures(options.dataset, 500)
    scored = mnist("score", str(FOLDER / "pictures"), str(FOLDER / f"scores-{int(time.time())}"), *storage)
    with serving(*storage) as endpoint:
        served = ask_everything(endpoint, images, labels)
    say("")
    say(f"trained  {trained['model']}/{trained['version']}: test accuracy {trained['test']['accuracy']:.2%}")
    say(f"scored   {scored['items']:,} pictures: accuracy {scored['accuracy']:.2%}, {scored['rejected']} rejected")
    for way, right in served.items():
        say(f"served   {way:<28} {right}")
    say(f"in {time.monotonic() - started:.0f} s; all of it is in {FOLDER}/, with a report.html beside the model")


def mnist(*words: str) -> dict[str, Any]:
    """Run one command to its end and read its result."""
    say(f"\n$ mnist {shlex.join(words)}")
    command = [sys.executable, "-m", "jobs.cli", *words, "--json"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)
    return dict(json.loads(finished.stdout.splitlines()[-1]))


def write_pictures(dataset: str, count: int) -> tuple[Any, Any]:
    """Write test images as PNG files in folders named by their digit."""
    test = load_dataset(dataset).test
    assert test is not None
    for index in range(count):
        folder = FOLDER / "pictures" / str(test.labels[index])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(test.images[index]).save(folder / f"{index:05}.png")
    return test.images[:count], test.labels[:count]


@contextmanager
def serving(*flags: str) -> Iterator[dict[str, str]]:
    """Serve while the block runs; yields the addresses."""
    words = ["serve", "--port", "0", "--grpc-port", "0", *flags]
    say(f"\n$ mnist {shlex.join(words)}")
    command = [sys.executable, "-m", "jobs.cli", *words, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            sys.exit(process.wait() or 1)
        try:
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
