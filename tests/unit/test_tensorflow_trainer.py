"""What a worker does before TensorFlow connects it to the others."""

from __future__ import annotations

import socket
import threading

import pytest

from jobs.tensorflow_trainer import describe_cluster, first_contact, wait_for_first_worker
from mnist_core.ports import held_ports

PATIENCE_S = 20


@pytest.fixture(autouse=True)
def _variables(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "set by the test")  # so that it is put back


def waiting(index: int, addresses: list[str]) -> threading.Thread:
    describe_cluster(addresses, index)
    thread = threading.Thread(target=wait_for_first_worker, daemon=True)
    thread.start()
    return thread


def test_a_worker_waits_until_the_first_ones_server_listens():
    with held_ports(2) as (port, other):
        thread = waiting(1, [f"127.0.0.1:{port}", f"127.0.0.1:{other}"])
        thread.join(0.3)
        assert thread.is_alive()
        with socket.create_server(("127.0.0.1", port)):
            thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_the_first_worker_waits_for_nobody():
    with held_ports(2) as ports:
        thread = waiting(0, [f"127.0.0.1:{port}" for port in ports])
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_the_port_that_a_worker_names_is_its_own_until_it_ends(monkeypatch):
    monkeypatch.setattr("jobs.tensorflow_trainer.load_keras", lambda: None)
    host, _, port = first_contact({}).rpartition(":")
    with socket.socket() as thief, pytest.raises(OSError, match="in use"):
        thief.bind(("0.0.0.0", int(port)))
    with socket.create_server(("", int(port))):
        socket.create_connection((host.strip("[]"), int(port))).close()
