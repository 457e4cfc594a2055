"""``mnist-node COMMAND...``: run a command, such as ``ray start``, in the environment of a node of a cluster.

Ray reads how it is to serve, and that it is to ask for a token, from the environment in which a node is started. So
whatever starts nodes puts this one word before its ``ray start``.
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mnist_core.cluster_address import keep_token
from mnist_core.config_serve import ServeConfig
from mnist_core.config_sources import load_config
from mnist_core.errors import ConfigError, MnistError
from serve.front import FRONT_PORTS, front_environment

PORTS_VARIABLE: Final = "FRONT_PORTS"
PORTS: Final = "8081,8082,8083,8084"
"""Beside those of Ray in the cluster files, and none that a system gives away: a node serves days after its start."""

USAGE = """usage: mnist-node COMMAND...

Run COMMAND, such as ray start, in the environment that a node of a cluster needs to serve: HAProxy before the replicas,
listening on this node's own address, and a token asked of everybody. MNIST_HOST names another address, and
MNIST_TLS_CERT_FILE a PEM file with which HAProxy speaks TLS. A second node on one machine needs FRONT_PORTS, four ports
for HAProxy's metrics and statistics and for what Ray answers by HTTP and gRPC without a replica, instead of
8081,8082,8083,8084. What is set already stays as it is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Become the command, in its environment; or say what is wrong and return 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    try:
        os.environ.update(node_environment())
        keep_token()
        os.execvp(words[0], words)  # noqa: S606
    except (MnistError, OSError) as err:
        print(f"error: mnist-node {words[0]}: {err}", file=sys.stderr)  # noqa: T201
        return 2


def node_environment() -> dict[str, str]:
    """The variables, but for those that are set.

    Raises:
        ConfigError: A variable of ours has a wrong value, or the folder for HAProxy's files belongs to somebody else.
        ServingFailedError: The package is not installed.
    """
    from ray.util import get_node_ip_address

    config = load_config(ServeConfig, [])
    if "MNIST_HOST" not in os.environ:
        config = config.model_copy(update={"host": get_node_ip_address()})
    wanted = {**front_environment(config, _make_folder(), _choose_ports()), "RAY_AUTH_MODE": "token"}
    # First in the path, so that a job's python is the one that has this package.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    return {name: value for name, value in wanted.items() if name not in os.environ} | {"PATH": path}


def _choose_ports() -> list[int]:
    given = os.environ.get(PORTS_VARIABLE, PORTS)
    ports = [int(word) for word in given.split(",") if word.strip().isdecimal() and 0 < int(word) < 2**16]
    if len(set(ports)) != FRONT_PORTS or given.count(",") != FRONT_PORTS - 1:
        raise ConfigError(f"{PORTS_VARIABLE}: received {given!r}, expected {FRONT_PORTS} ports as {PORTS}")
    return ports


def _make_folder() -> Path:
    """One for all nodes of a user: Ray makes one for each in it, with a long name, and a socket's path is short."""
    folder = Path(tempfile.gettempdir(), f"mnist-front-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():  # anybody may make one of this name in /tmp
        raise ConfigError(f"{folder}: expected a folder of this user; remove it, or name another TMPDIR")
    folder.chmod(0o700)
    return folder


if __name__ == "__main__":
    sys.exit(main())
