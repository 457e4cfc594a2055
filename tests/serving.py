"""Start ``mnist serve`` as a user does, and look at its processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from processes import descendants

DEADLINE_S = 120.0


@dataclass
class Endpoint:
    """A running ``mnist serve``."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    errors: Path

    @property
    def http(self) -> str:
        return str(self.ready["http"])

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.http)
        return str(parts.hostname), int(parts.port or 0)

    def ask(
        self, method: str, path: str, body: bytes = b"", content_type: str = "application/octet-stream", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers by lower-case name, body."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            sent = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
            connection.request(method, path, body or None, sent)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def predict(self, body: bytes, content_type: str = "application/octet-stream", **headers: str) -> dict[str, Any]:
        """A prediction that must succeed."""
        status, _, content = self.ask("POST", "/predict", body, content_type, **headers)
        assert status == 200, content
        return dict(json.loads(content))

    def actors(self, title: str) -> list[psutil.Process]:
        """Processes of the endpoint whose title holds a word: ``ServeReplica``, ``haproxy``, ``ServeController``."""
        return descendants(self.process.pid, title)


@contextmanager
def serving(
    storage: str, folder: Path, *flags: str, stop: signal.Signals = signal.SIGINT, **env: str
) -> Iterator[Endpoint]:
    """Serve until the end of the block, then stop by a signal, that of Ctrl-C, and see that nothing is left."""
    output, errors = folder / "serve.out", folder / "serve.err"
    command = [sys.executable, "-m", "jobs.cli", "serve", "--port", "0", "--grpc-port", "0", "--json"]
    with output.open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(
            [*command, "--storage", storage, *flags],
            stdout=out,
            stderr=err,
            text=True,
            start_new_session=True,
            env={**os.environ, **env},
        )
    left: list[psutil.Process] = []
    try:
        poll(lambda: output.read_text().count("\n") or process.poll() is not None)
        assert process.poll() is None, errors.read_text()
        yield Endpoint(process, json.loads(output.read_text().splitlines()[0]), errors)
        left = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(stop)
        assert process.wait(DEADLINE_S) == 0, errors.read_text()
        assert not psutil.wait_procs(left, 20)[1]
    finally:
        if process.poll() is None:
            left = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
        for each in left:
            if each.is_running():
                each.kill()


def poll(condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Wait until a condition holds."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
    return value
