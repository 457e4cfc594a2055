"""Where the Ray is that a command is to use. Ray is not loaded here: it reads its environment when it is."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mnist_core.errors import ResourcesError

LOCAL: Final = "local"
"""The address that stands for a Ray of our own, on this machine, for a while."""

TOKEN_BYTES: Final = 32
"""As many random bits as Ray's own has."""

KNOCK_S: Final = 5.0


def choose_address() -> str:
    """Decide where Ray is; to be called before anything imports Ray, which reads then how it is to authenticate."""
    address = os.environ.get("RAY_ADDRESS") or LOCAL
    if address == LOCAL:
        # What Ray does anyway, after a warning: whoever wants to talk to our Ray needs the token in the home folder.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        keep_token()
    return address


def keep_token() -> Path | None:
    """Make the token in the home folder where there is none, and see that nobody else can read it.

    Ray makes it too, but writes it as any file, mode 644 on most machines.

    Returns:
        Its file, or None where the environment names another token, or the home folder is not ours to write.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return None
    path = Path.home() / ".ray" / "auth_token"
    try:
        path.parent.mkdir(exist_ok=True)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
                file.write(secrets.token_hex(TOKEN_BYTES))
        except FileExistsError:
            path.chmod(0o600)
    except OSError:
        return None
    return path


def refuse_dead(address: str) -> None:
    """Knock first: Ray itself would go on trying a dead address for more than ten minutes.

    Raises:
        ResourcesError: Nobody answers, or it is a dashboard's address.
    """
    if address.startswith(("http://", "https://")):
        raise ResourcesError(
            f"RAY_ADDRESS={address} is the address of a dashboard, expected that of the head as HOST:6379; "
            f"or unset it and have the command carried out there with --address {address}"
        )
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
    except OSError as err:
        raise no_cluster(address, err) from err


def no_cluster(address: str, err: Exception) -> ResourcesError:
    """The error for an address at which no Ray answers, or for a Ray of our own that does not start."""
    if address == LOCAL:
        return ResourcesError(
            f"Ray did not start on this machine ({err}): see that it has CPU and memory to spare and try again, or "
            "name a cluster in RAY_ADDRESS"
        )
    return ResourcesError(f"no Ray cluster answers at RAY_ADDRESS={address} ({err}); start one or unset it")


@contextmanager
def starting(address: str) -> Iterator[None]:
    """Connect to Ray in this block: what goes wrong is told as ``no_cluster`` tells it.

    Raises:
        ResourcesError: No Ray answers there, or none of our own starts: Ray then raises a bare exception.
    """
    try:
        yield
    except Exception as err:
        if address != LOCAL and not isinstance(err, ConnectionError):
            raise
        raise no_cluster(address, err) from err
