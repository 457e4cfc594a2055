"""Serve on the cluster, and ask its nodes."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from typing import Any

import numpy as np
from processes import answers
from serving import poll

PIXELS = np.random.default_rng(3).integers(0, 256, (300, 28, 28)).astype(np.uint8)
PIXELS[:, 0] = 0  # white on black


def ask(address: str, timeout: float = 30) -> dict[str, Any]:
    """One prediction, from one node."""
    headers = {"content-type": "application/octet-stream"}
    request = urllib.request.Request(f"http://{address}:8000/predict", PIXELS[0].tobytes(), headers)
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return dict(json.load(answer))


def serves(address: str) -> bool:
    """Whether this node answers a prediction."""
    try:
        return ask(address, 10)["model_version"] == "mnist/1"
    except OSError:  # HTTP errors too
        return False


@contextmanager
def serving_on(cluster: Any, *words: str) -> Iterator[dict[str, Any]]:
    """Serve by a job, until the end of the block; gives what the endpoint says when it is ready."""
    with cluster.start("serve", "--storage", str(cluster.storage), "--json", *words) as process:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        job = next(each for each in iter(process.stderr.readline, "") if each.startswith("job ")).split()[1]
        try:
            yield json.loads(line)
        finally:
            cluster.run("jobs", "stop", job)
            process.communicate(timeout=60)
            poll(lambda: "STOPPED" in cluster.run("jobs", "status", job)[0], 60)
            poll(lambda: not answers(cluster.head.address, 8000), 60)


class Load:
    """Clients of one node, each on a connection that it keeps; counts answers and failures.

    Args:
        address: The node's.
        clients: How many.
        pause_s: Of each between an answer and its next request.
    """

    def __init__(self, address: str, clients: int, pause_s: float = 0.0) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(address,)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, address):
        connection = None
        while not self._stop.is_set():
            try:
                connection = connection or HTTPConnection(address, 8000, timeout=60)
                connection.request(
                    "POST", "/predict", PIXELS[0].tobytes(), {"content-type": "application/octet-stream"}
                )
                answer = connection.getresponse()
                answer.read()
                self.answers[answer.status] += 1
                if self._pause_s:
                    self._stop.wait(self._pause_s)
            except (OSError, HTTPException) as err:
                self.failures.append(repr(err))
                connection = connection and connection.close()
                self._stop.wait(0.02)
        if connection:
            connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()
