"""Where the Ray is that a command is to use. Ray is not loaded here: it reads its environment when it is."""

from __future__ import annotations

import os
import socket
from typing import Final

from mnist_core.errors import ResourcesError

LOCAL: Final = "local"
"""The address that stands for a Ray of our own, on this machine, for a while."""

KNOCK_S: Final = 5.0


def choose_address() -> str:
    """Decide where Ray is; to be called before anything imports Ray, which reads then how it is to authenticate."""
    address = os.environ.get("RAY_ADDRESS") or LOCAL
    if address == LOCAL:
        # What Ray does anyway, after a warning: whoever wants to talk to our Ray needs the token in the home folder.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return address


def refuse_dead(address: str) -> None:
    """Knock first: Ray itself would go on trying a dead address for more than ten minutes.

    Raises:
        ResourcesError: Nobody answers.
    """
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
    except OSError as err:
        raise no_cluster(address, err) from err


def no_cluster(address: str, err: Exception) -> ResourcesError:
    """The error for an address at which no Ray answers."""
    return ResourcesError(f"no Ray cluster answers at RAY_ADDRESS={address} ({err}); start one or unset it")
