"""What every test relies on: a clean environment, real MNIST where it is given, and no process left behind."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from untrained import untrained_storage

_SESSION_MARK = f"PYTEST_SESSION_MARK={uuid.uuid4().hex}"
_EXIT_GRACE_S = 15.0
# multiprocessing's helpers end with the interpreter that started them, by design.
_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def pytest_configure() -> None:
    """Load Ray in the mode in which our commands load it: it reads that once, and any test may be the first to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        importlib.import_module("ray")


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Take MNIST_ variables out of the environment, so that a developer's settings decide no test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith("MNIST_") and name != "MNIST_DATA_DIR":
                patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_process_outlives_the_suite(_clean_environment: None) -> Iterator[None]:
    """Fail when a process that a test started, at any depth, is still there at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(*_SESSION_MARK.split("="))
        yield
    deadline = time.monotonic() + _EXIT_GRACE_S
    while (left := _descendants()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, f"processes outlived the tests: {left}"


def _descendants() -> dict[int, str]:
    """Processes that inherited this session's mark, even where they no longer have a parent (Linux only)."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) != os.getpid() and _SESSION_MARK.encode() in (folder / "environ").read_bytes():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(folder.name)] = command[:200]
        except OSError:  # it ended meanwhile, or belongs to somebody else
            continue
    return {pid: command for pid, command in found.items() if not any(helper in command for helper in _HELPERS)}


@pytest.fixture(scope="session")
def mnist_data_dir() -> Path:
    """The folder with the real MNIST files."""
    folder = os.environ.get("MNIST_DATA_DIR")
    if not folder:
        pytest.skip("needs the real MNIST files: set MNIST_DATA_DIR to their folder")
    return Path(folder).absolute()


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """A bucket behind a real S3 API on loopback, as ``s3://bucket``; this process and its children reach it."""
    with _s3_server(latency_s=0) as bucket:
        yield bucket


@pytest.fixture
def slow_s3_bucket() -> Iterator[str]:
    """Another one, where every answer takes longer than ten steps of a small training."""
    with _s3_server(latency_s=0.2) as bucket:
        yield bucket


@contextmanager
def _s3_server(latency_s: float) -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py")), str(latency_s)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("NO_PROXY", "127.0.0.1")
        with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/digits", method="PUT")):
            pass
        yield "s3://digits"
        server.stdin.close()


@pytest.fixture(scope="session")
def model_storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage with the model ``mnist/1``, untrained; nobody may publish to it."""
    return untrained_storage(tmp_path_factory.mktemp("models"))
