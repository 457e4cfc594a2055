"""The servers that benchmarks/serve.py compares: how each is started, asked and stopped."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from _common import PEERS, Command, peers_python, started
from _load import Body

from mnist_core.ports import held_ports

SERVERS = ("ours", "fastapi", "ray", "litserve", "bentoml")
OWN_ENVIRONMENT = ("litserve", "bentoml")
REPLICA_TITLES = {"ours": "ServeReplica", "ray": "ServeReplica"}

PIXELS = np.zeros((28, 28), np.uint8)
PIXELS[4:24, 12:15] = 255  # a one
RAW = Body(PIXELS.tobytes(), "application/octet-stream")
BASE64 = Body(json.dumps({"image": base64.b64encode(RAW.content).decode()}).encode(), "application/json")


def command(name: str, port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    """How a server is started: command and variables."""
    model, script = folder / "model", str(PEERS / f"serve_{name}.py")
    match name:
        case "ours":
            serve = [sys.executable, "-m", "jobs.cli", "serve", "--port", str(port), "--grpc-port", "0"]
            return [*serve, "--storage", str(folder / "storage"), "--max-replicas", "1"], {}
        case "ray":
            return [sys.executable, script, str(model / "model.keras"), str(port)], {}
        case "bentoml":
            bentoml = [peers_python("serve"), "-m", "bentoml", "serve", "serve_bentoml:Classifier"]
            where = ["--working-dir", str(PEERS), "--host", "127.0.0.1", "--port", str(port)]
            home = {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
            return [*bentoml, *where], {**home, "MODEL_FILE": str(model / "model.tflite")}
        case _:
            python = peers_python("serve") if name in OWN_ENVIRONMENT else sys.executable
            return [python, script, str(model / "model.tflite"), str(port)], {}


@contextmanager
def serving(name: str, folder: Path, *options: str) -> Iterator[tuple[str, Command]]:
    """A server, with options of its own, for as long as the block runs; gives its address once it answers."""
    with held_ports(1) as (port,):
        words, variables = command(name, port, folder)
        with started([*words, *options], folder, **variables) as running:
            url = f"http://127.0.0.1:{port}"
            running.wait_for(lambda: ask(url, body_of(name)))
            yield url, running


def body_of(name: str) -> Body:
    """What this server reads."""
    return BASE64 if name in OWN_ENVIRONMENT else RAW


def ask(url: str, body: Body) -> dict[str, Any] | None:
    """The answer to one request; None if there is none."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=30)
    try:
        connection.request("POST", "/predict", body.content, {"Content-Type": body.content_type})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
    return dict(json.loads(content)["predictions"][0]) if answer.status == 200 else None


def memory_mb(name: str, running: Command) -> float:
    """Resident memory of the process that computes: the replica, elsewhere the largest of the server's processes."""
    title, sizes = REPLICA_TITLES.get(name, ""), [0.0]
    for pid, words in running.processes().items():
        if title in words:
            with suppress(OSError):  # it ended meanwhile
                pages = int(Path("/proc", str(pid), "statm").read_text().split()[1])
                sizes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
    return max(sizes)
