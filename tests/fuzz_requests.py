"""Send spoilt bodies to every POST route and count the answers: ``python tests/fuzz_requests.py --requests 100000``.

Valid bodies of every protocol are flipped, cut, spliced and repeated as bytes, changed as JSON, or sent as another
content type. All in this process, through the application as it is served; the model is an untrained one, unless
``--storage`` names another. Prints counts by route and status. Exit code 1 if there was a 5xx, or an error that is not
one line of its protocol; those bodies are kept in the working directory.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from fuzz_images import mutate, valid_files
from untrained import untrained_storage

PIXELS = 255 - np.tri(28, k=3, dtype=np.uint8).T * np.uint8(200)
KINDS = ("image/png", "application/octet-stream", "application/json", "multipart/form-data; boundary=cut", "", "text/x")
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 255, 256, -0.0, 1e308, -1e308, 2**63, 2**64 - 1, 10**30, "", "0", "\n", "\0"),
    *(
        "iVBORw0KGgo=",
        "=",
        "é" * 50,
        [],
        {},
        [[]],
        [{}],
        [None],
        [[[[[[1]]]]]],
        [0] * 784,
        [[0] * 28] * 28,
        {"b64": ""},
    ),
)


@dataclass(frozen=True)
class Request:
    """One request to a route: ``path`` as its table has it, and perhaps a query."""

    path: str
    content_type: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Client:
    """Asks the application, in this process.

    Args:
        app: The application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def ask(self, method: str, path: str, body: bytes = b"", headers: Any = ()) -> tuple[int, bytes, dict]:
        """Status, body and headers of the answer."""
        path, _, query = path.partition("?")
        scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": [*headers]}
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app({**scope, "client": ("127.0.0.1", 1)}, receive, send)
        return sent[0]["status"], b"".join(part["body"] for part in sent[1:]), dict(sent[0]["headers"])

    async def post(self, request: Request) -> tuple[int, bytes, dict]:
        """The answer to one request, to the model ``mnist/1``."""
        path = request.path.replace("{model}", "mnist").replace("{version}", "1")
        headers = [(b"content-type", request.content_type.encode()), *request.headers]
        return await self.ask("POST", path, request.body, headers)


@contextmanager
def in_process(storage: str, **config: Any) -> Iterator[tuple[asyncio.Runner, Client]]:
    """The whole endpoint but for Ray, on a loop that runs when it is asked to."""
    from mnist_core.config_serve import ServeConfig
    from serve.service import Service
    from serve.web import build_app

    async def start() -> Service:
        return Service(ServeConfig(storage=storage, device="cpu", **config))

    with asyncio.Runner() as runner:
        service = runner.run(start())
        try:
            yield runner, Client(build_app(service))
        finally:
            runner.run(service.close())


def multipart(*files: bytes) -> bytes:
    """A body of these files, whose boundary is ``cut``."""
    head = b'--cut\r\ncontent-disposition: form-data; name="images"; filename="digit.png"\r\n\r\n'
    return b"".join([*(head + file + b"\r\n" for file in files), b"--cut--\r\n"])


def valid_requests() -> list[Request]:
    """A good request of every kind to every POST route."""
    png = valid_files()[0]
    encoded, pixels = base64.b64encode(png).decode(), PIXELS.tolist()
    requests = [
        Request("/predict", "image/png", png),
        Request("/predict", "application/octet-stream", PIXELS.tobytes() * 3),
        Request("/predict", KINDS[3], multipart(png, PIXELS.tobytes(), png)),
        Request("/predict", "application/json", orjson.dumps({"images": [encoded, encoded]})),
        Request("/predict?split=true", "image/png", png),
        Request("/predict?split=true", KINDS[3], multipart(png, PIXELS.tobytes(), png)),
    ]
    tfs = [
        {"signature_name": "serving_default", "instances": [pixels, {"image": {"b64": encoded}}, {"image": pixels}]},
        {"instances": [PIXELS.ravel().tolist(), (PIXELS / 255).round(2)[..., None].tolist(), {"b64": encoded}]},
        {"inputs": {"image": [pixels]}},
        {"inputs": [{"b64": encoded}]},
    ]
    tensors: list[dict[str, Any]] = [
        {"datatype": "UINT8", "shape": [1, 28, 28], "data": [pixels]},
        {"datatype": "FP32", "shape": [2, 784], "data": [0.5, 0.0] * 784},
        {"datatype": "BYTES", "shape": [2], "data": [encoded, encoded]},
    ]
    v2 = [
        {"id": "1", "inputs": [{"name": "images", **tensor}], "outputs": [{"name": "digit"}, {"name": "rejected"}]}
        for tensor in tensors
    ]
    parameters = {"binary_data_size": 784}
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 784], "parameters": parameters}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    length = ((b"inference-header-content-length", str(len(head)).encode()),)
    for version in ("", "/versions/{version}"):
        path = f"/v1/models/{{model}}{version}:predict"
        requests += [Request(path, "application/json", orjson.dumps(body)) for body in tfs]
        path = f"/v2/models/{{model}}{version}/infer"
        requests += [Request(path, "application/json", orjson.dumps(body)) for body in v2]
        requests.append(Request(path, "application/octet-stream", head + PIXELS.tobytes(), length))
    return requests


def change_json(body: bytes, dice: random.Random) -> bytes:
    """Put odd values into a JSON body, take some out, or repeat some."""
    try:
        whole = [orjson.loads(body)]
    except ValueError:
        return body
    for _ in range(dice.randint(1, 3)):
        holder: Any = whole
        while True:
            key = dice.choice([*holder] if isinstance(holder, dict) else range(len(holder)))
            if not isinstance(holder[key], dict | list) or not holder[key] or dice.random() < 0.3:
                break
            holder = holder[key]
        way = dice.choice(("odd", "odd", "take", "repeat", "wrap"))
        if way == "take" and holder is not whole:
            del holder[key]
        elif way == "repeat" and isinstance(holder, list) and holder is not whole:
            holder[key:key] = [holder[key]] * dice.choice((1, 27, 3000))
        else:
            holder[key] = [holder[key]] if way == "wrap" else deepcopy(dice.choice(ODD_VALUES))
    try:
        return orjson.dumps(whole[0])
    except TypeError:  # a number that orjson does not write
        return repr(whole[0]).encode()


def spoil(request: Request, other: Request, dice: random.Random) -> Request:
    """Change a request in some way."""
    body, kind, headers = request.body, request.content_type, request.headers
    way = dice.random()
    if way < 0.5:
        body = change_json(body, dice)
    if way > 0.4:
        body = mutate(body, other.body, dice)
    if dice.random() < 0.1:
        kind = dice.choice(KINDS)
    if headers and dice.random() < 0.5:
        headers = ((headers[0][0], str(dice.choice((0, 1, len(body), len(body) - 784, 10**15, -1))).encode()),)
    return replace(request, body=body, content_type=kind, headers=headers)


def complaint(status: int, body: bytes) -> str:
    """What is wrong with an answer; nothing, if all is well."""
    if status == 200:
        return ""
    if status not in (400, 413, 415):
        return f"status {status}"
    try:
        error = orjson.loads(body)["error"]
        message = error if isinstance(error, str) else error["message"]
    except (ValueError, KeyError, TypeError):
        return "an error of another form"
    return "" if message and len(message.splitlines()) == 1 else "an error that is not one line"


def main() -> int:
    """Fuzz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", help="with a model mnist/1")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return fuzz(options.storage or untrained_storage(Path(folder)), options.requests, options.seed)


def fuzz(storage: str, num_requests: int, seed: int) -> int:
    """Send spoilt requests; returns the exit code."""
    dice, valid = random.Random(seed), valid_requests()
    counts: Counter[tuple[str, int]] = Counter()
    slowest_s, num_bad = 0.0, 0
    with in_process(storage) as (runner, client):
        for index in range(num_requests):
            request = spoil(dice.choice(valid), dice.choice(valid), dice)
            started = time.perf_counter()
            status, body, _ = runner.run(client.post(request))
            slowest_s = max(slowest_s, time.perf_counter() - started)
            counts[request.path, status] += 1
            if wrong := complaint(status, body):
                num_bad += 1
                Path(f"fuzz-request-{seed}-{index}.bin").write_bytes(request.body)
                sys.stderr.write(f"request {index} to {request.path} as {request.content_type!r}: {wrong}\n")
    for path in sorted({path for path, _ in counts}):
        told = {status: count for (each, status), count in sorted(counts.items()) if each == path}
        sys.stdout.write(f"{path}: {told}\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(
        f"{num_requests} requests, {num_bad} answered wrongly, slowest {slowest_s * 1000:.0f} ms, peak {peak:.0f} MB\n"
    )
    return int(num_bad > 0)


if __name__ == "__main__":
    sys.exit(main())
