"""Ports kept for a server that another process starts later."""

import shutil
import socket
import subprocess
import sys

import pytest

from mnist_core.ports import free_ports, held_ports

FEW_PORTS = """
import socket, sys
from pathlib import Path
from mnist_core.ports import held_ports

Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40019")
taken = []
with held_ports(5) as ports, socket.create_server(("127.0.0.1", 50000), backlog=50) as server:
    for take, port in ((socket.create_server, 0), (socket.create_connection, 50000)):
        try:
            while len(taken) < 100:
                taken.append(take(("127.0.0.1", port)))
        except OSError:
            pass
    others = {one.getsockname()[1] for one in taken}
    print(len(others), len(others & set(ports)))
"""


def test_they_differ():
    assert len(set(free_ports(20))) == 20


def test_who_names_a_held_port_can_listen_on_it():
    with held_ports(1) as (port,), socket.create_server(("127.0.0.1", port)) as server:
        socket.create_connection(("127.0.0.1", port)).close()
        assert server.getsockname()[1] == port


@pytest.mark.skipif(not shutil.which("ip"), reason="needs Linux, which alone holds ports, and its command ip")
def test_nobody_is_given_a_held_port_by_chance():
    """On a network of its own that has twenty ports to give: all others are, to servers and to clients."""
    words = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$0" -c "$1"']
    done = subprocess.run([*words, sys.executable, FEW_PORTS], capture_output=True, text=True, check=False)
    if "unshare" in done.stderr:
        pytest.skip(f"no network of our own: {done.stderr.strip()}")
    assert done.stdout.split() == ["15", "0"], done.stderr
