"""Serve on the cluster, and ask its nodes."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
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
