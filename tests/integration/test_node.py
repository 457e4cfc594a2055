"""``mnist-node``: the environment it makes, and a node that it starts, with TLS from a CA of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from authority import speaks_tls, tls_variables
from ray.util import get_node_ip_address
from serving import poll

from mnist_core.datasets import load_dataset
from mnist_core.ports import held_ports

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
NODE = Path(sys.executable).with_name("mnist-node")
HOST = get_node_ip_address()
"""Ray takes this address of a machine, whatever it is told."""


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **env}, check=False)


def environment(**env: str) -> dict[str, str]:
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    return dict(json.loads(run(str(NODE), sys.executable, "-c", code, **env).stdout))


def test_the_environment_of_a_node_serves_on_its_own_address_and_asks_for_a_token():
    found = environment()
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert found["RAY_SERVE_HAPROXY_BINARY_PATH"].endswith("mnist-haproxy")
    assert found["FRONT_HOST"] not in ("0.0.0.0", "")
    assert found["PATH"].split(os.pathsep)[0] == str(NODE.parent)


def test_what_is_set_already_stays_as_it_is():
    found = environment(RAY_SERVE_HAPROXY_RETRIES="7", MNIST_HOST="127.0.0.9", RAY_AUTH_MODE="disabled")
    assert found["RAY_SERVE_HAPROXY_RETRIES"] == "7"
    assert found["FRONT_HOST"] == "127.0.0.9"
    assert found["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ((), 2, "usage: mnist-node COMMAND..."),
        (("--help",), 0, "usage: mnist-node COMMAND..."),
        (("no-such-command",), 2, "error: mnist-node no-such-command: "),
    ],
)
def test_wrong_words_are_told(words, code, text):
    done = run(str(NODE), *words)
    assert done.returncode == code
    assert (done.stdout + done.stderr).startswith(text)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> dict[str, str]:
    """Variables with which a process speaks TLS, with a certificate of a CA of our own."""
    return tls_variables(tmp_path_factory.mktemp("tls"), [HOST, "127.0.0.1"])


@contextmanager
def head(folder: Path, **env: str) -> Iterator[tuple[str, str]]:
    """A node of a cluster on this machine; gives its address and that of its dashboard."""
    names = ("port", "ray-client-server-port", "dashboard-port", "dashboard-agent-listen-port")
    command = [str(NODE), "ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"]
    log = folder / "ray.log"
    with log.open("w") as out, held_ports(len(names)) as ports:
        command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)] + [f"--temp-dir={folder}"]
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **env})
        try:
            poll(lambda: "will now block" in log.read_text() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield f"{HOST}:{ports[0]}", f"http://127.0.0.1:{ports[2]}"
        finally:
            process.terminate()
            process.wait(60)


def test_nodes_speak_tls_with_certificates_of_our_own(authority, model_storage, tmp_path_factory):
    command = [sys.executable, "-m", "jobs.cli", "evaluate", "mnist", "--dataset", "uci-digits", "--workers", "2"]
    command += ["--storage", model_storage, "--json"]
    with head(tmp_path_factory.mktemp("r"), **authority) as (address, _):
        where = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token"}
        done = run(*command, **where, **authority)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["count"] == 360
        assert speaks_tls(address, authority)


def test_serve_deploy_brings_up_what_its_config_says(model_storage, tmp_path_factory):
    config = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    with head(tmp_path_factory.mktemp("r")) as (_, dashboard), held_ports(2) as (port, grpc_port):
        config["http_options"]["port"], config["grpc_options"]["port"] = port, grpc_port
        config["applications"][0]["args"]["storage"] = model_storage
        file = tmp_path_factory.mktemp("config") / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        done = run(str(NODE.with_name("serve")), "deploy", "--address", dashboard, str(file), RAY_AUTH_MODE="token")
        assert done.returncode == 0, done.stdout + done.stderr
        address = f"http://{HOST}:{port}"
        poll(lambda: answers(f"{address}/v2/health/ready"))
        digit = load_dataset("uci-digits").test.images[0].tobytes()
        request = urllib.request.Request(f"{address}/predict", digit, {"content-type": "application/octet-stream"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["model_version"] == "mnist/1"


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True
