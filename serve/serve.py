"""``mnist serve``: start or join Ray, deploy the application, say where it is, and stop it cleanly."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Final

from mnist_core.cluster_address import LOCAL, choose_address, refuse_dead, starting
from mnist_core.config_serve import ServeConfig
from mnist_core.errors import ResourcesError, ServingFailedError
from mnist_core.ports import held_ports
from mnist_core.registry import open_model
from mnist_core.storage import open_storage
from serve.api_keys import ApiKeys
from serve.application import application, wait_until_running, watch
from serve.front import EVERYWHERE, FRONT_PORTS, HOST_VARIABLE, LOOPBACK, front_environment
from serve.welcome import describe, lines_to_paste

READY_TIMEOUT_S: Final = 120.0
"""In which an application that runs has to answer."""

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger(__name__)


def run(config: ServeConfig) -> dict[str, Any]:
    """Serve until SIGINT or SIGTERM.

    Returns:
        A JSON object: ``http`` and ``grpc`` (addresses), ``model_version``, ``try`` (commands to paste),
        ``startup_seconds`` and ``seconds``. All but the last is printed when the endpoint is ready.

    Raises:
        ArtifactError: The model is broken.
        ConfigError: The file with API keys holds none.
        ModelNotFoundError: There is no such model.
        ResourcesError: A port is taken, or Ray has not enough CPUs or GPUs.
        ServingFailedError: The application does not start, or fails while it serves.
    """
    started, stdout = time.monotonic(), sys.stdout
    # Both here, so that what is wrong with them is one line at once and not a replica's failure after a minute.
    manifest = open_model(open_storage(config.storage), config.model).manifest
    ApiKeys(config.api_key_file)
    with _stop_signals() as stop, ExitStack() as stack:
        port, grpc_port, *front_ports = stack.enter_context(held_ports(2 + FRONT_PORTS))
        config = _choose_ports(_choose_host(config), port, grpc_port)
        stack.enter_context(_ray(config, front_ports))
        _heed_signals(stop)  # ray.init has put in a handler that ends the process at once, with code 15
        http_host = LOOPBACK if _nodes_choose() else config.host
        stack.enter_context(application(config, http_host, alone=choose_address() == LOCAL))
        result: dict[str, Any] = {
            "http": f"{'https' if config.tls_cert_file else 'http'}://{_reachable(config.host)}:{config.port}",
            "grpc": f"{_reachable(config.host)}:{config.grpc_port}",
            "model_version": manifest.reference,
        }
        result["try"] = lines_to_paste(config, result["http"], manifest.name)
        wait_until_running(config, stop)
        _wait_until_ready(config, result["http"], stop)
        result["startup_seconds"] = round(time.monotonic() - started, 3)
        if not stop.is_set():
            print(json.dumps(result) if config.json_output else describe(result), file=stdout, flush=True)
        watch(stop)
    return {**result, "seconds": round(time.monotonic() - started, 3)}


def render(result: dict[str, Any]) -> str:
    """Put a result of ``run`` in words for a terminal, or what an endpoint says when it is ready."""
    if "seconds" not in result:
        return describe(result)
    return f"stopped after {result['seconds']:.0f} s"


def _choose_host(config: ServeConfig) -> ServeConfig:
    return config.model_copy(update={"host": os.environ[HOST_VARIABLE]}) if _nodes_choose() else config


def _nodes_choose() -> bool:
    """Whether each node listens on its own address, whatever Ray says: on a cluster that ``mnist-node`` has started."""
    return choose_address() != LOCAL and HOST_VARIABLE in os.environ


def _choose_ports(config: ServeConfig, port: int, grpc_port: int) -> ServeConfig:
    """Where the user leaves a port to us, it is one of these."""
    config = config.model_copy(update={"port": config.port or port, "grpc_port": config.grpc_port or grpc_port})
    if choose_address() != LOCAL:  # other machines listen, or Serve is there already
        return config
    for name in ("port", "grpc_port"):
        port = getattr(config, name)
        with socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((config.host, port))
            except OSError as err:
                flag, reason = f"--{name.replace('_', '-')}", err.strerror or err
                raise ResourcesError(f"{flag} {port} on {config.host}: {reason}; choose another, or 0") from err
    return config


def _reachable(host: str) -> str:
    if host in EVERYWHERE:
        return LOOPBACK
    return f"[{host}]" if ":" in host else host


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of tearing Ray down in the middle of something."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    _heed_signals(stop)
    try:
        yield stop
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _heed_signals(stop: threading.Event) -> None:
    if threading.current_thread() is threading.main_thread():  # no other thread may
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: stop.set())


@contextmanager
def _ray(config: ServeConfig, front_ports: list[int]) -> Iterator[None]:
    """The Ray at RAY_ADDRESS, else one of our own with HAProxy set up."""
    address = choose_address()
    level = logging.INFO if config.verbose else logging.ERROR
    with ExitStack() as stack:
        if address == LOCAL:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mnist-front-"))
            os.environ.update(front_environment(config, Path(folder), front_ports))
        refuse_dead(address)
        import ray
        import ray.serve  # it gives its logger a level of its own, which is set below

        # Ray prints news on stdout from the moment it starts, and stdout is for the result.
        elsewhere = sys.stderr if config.verbose else stack.enter_context(Path(os.devnull).open("w"))
        stack.enter_context(redirect_stdout(elsewhere))
        with starting(address):
            ray.init(
                address=address,
                include_dashboard=False,
                log_to_driver=config.verbose,
                logging_level=level,
                namespace="serve",
            )
        logging.getLogger("ray.serve").setLevel(level)
        try:
            yield
        finally:
            ray.shutdown()


def _wait_until_ready(config: ServeConfig, address: str, stop: threading.Event) -> None:
    context = ssl.create_default_context(cafile=config.tls_cert_file) if config.tls_cert_file else None
    if context:
        context.check_hostname = False  # it is our own address, by whatever name
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not stop.is_set():
        try:
            urllib.request.urlopen(f"{address}/v2/health/ready", timeout=5, context=context).close()  # noqa: S310
            return
        except (urllib.error.URLError, OSError) as err:
            if time.monotonic() > deadline:
                raise ServingFailedError(f"{address} does not answer: {err}") from err
            stop.wait(0.1)
