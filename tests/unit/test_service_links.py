"""Kubernetes sets variables for each Service in every pod: those of one named mnist-... are not the user's mistake."""

from __future__ import annotations

import pytest

from mnist_core.config import TrainConfig
from mnist_core.config_serve import ServeConfig
from mnist_core.config_sources import load_config
from mnist_core.errors import ConfigError

ADDRESS = "tcp://10.0.0.1:8000"
LINKS = {
    "MNIST_SERVE_SVC_PORT": ADDRESS,
    "MNIST_SERVE_SVC_PORT_8000_TCP": ADDRESS,
    "MNIST_SERVE_SVC_PORT_8000_TCP_ADDR": "10.0.0.1",
    "MNIST_SERVE_SVC_PORT_8000_TCP_PORT": "8000",
    "MNIST_SERVE_SVC_SERVICE_HOST": "10.0.0.1",
    "MNIST_SERVE_SVC_SERVICE_PORT": "8000",
    "MNIST_SERVE_SVC_SERVICE_PORT_HTTP": "8000",
    "MNIST_DNS_PORT": "udp://10.0.0.1:53",
    "MNIST_DNS_PORT_53_UDP_PROTO": "udp",
    "MNIST_PORT": ADDRESS,
    "MNIST_PORT_8000_TCP": ADDRESS,
    "MNIST_SERVICE_HOST": "10.0.0.1",
}


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MNIST_DATA_DIR", raising=False)


@pytest.mark.parametrize("name", LINKS)
def test_what_kubernetes_says_of_a_service_is_passed_over(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, LINKS[name])
    assert load_config(TrainConfig, []) == TrainConfig()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MNIST_EPOCH", "3"),
        ("MNIST_SERVE_PORT", "8000"),
        ("MNIST_SERVE_HOST", ADDRESS),
        ("MNIST_PORT_TCP", ADDRESS),
        ("MNIST_SERVICE_HOSTS", "10.0.0.1"),
    ],
)
def test_what_only_resembles_it_is_still_a_mistake(name: str, value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^unknown environment variable {name}"):
        load_config(TrainConfig, [])


def test_a_service_cannot_stand_in_for_a_field_of_ours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MNIST_PORT", ADDRESS)
    with pytest.raises(ConfigError, match=f"^--port: received '{ADDRESS}', expected a valid integer"):
        load_config(ServeConfig, [])
