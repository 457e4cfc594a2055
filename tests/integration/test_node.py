"""``mnist-node``: the environment it makes, and a node that it starts, with TLS from a CA of the test's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
import yaml
from authority import speaks_tls, tls_variables
from ray.util import get_node_ip_address
from serving import poll

from mnist_core.datasets import load_dataset
from mnist_core.ports import held_ports
from serve.front import FRONT_PORTS
from serve.node import main

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


def test_the_environment_of_a_node_serves_on_its_own_address_and_asks_for_a_token(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)  # a command that has run in this process may have set it
    found = environment()
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert found["RAY_SERVE_HAPROXY_BINARY_PATH"].endswith("mnist-haproxy")
    assert found["FRONT_HOST"] not in ("0.0.0.0", "")
    assert found["PATH"].split(os.pathsep)[0] == str(NODE.parent)


def test_a_node_finds_its_ports_and_its_folder_again_and_nobody_else_looks_into_it(tmp_path):
    once, again = environment(TMPDIR=str(tmp_path)), environment(TMPDIR=str(tmp_path))
    front = [name for name in once if name.startswith(("RAY_SERVE_HAPROXY", "RAY_SERVE_FALLBACK"))]
    assert {name: once[name] for name in front} == {name: again[name] for name in front}
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert once["RAY_SERVE_HAPROXY_METRICS_PORT"] == "8081"
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert {int(once[name]) < least for name in front if name.endswith("_PORT")} == {True}


def test_two_nodes_on_a_machine_can_have_ports_of_their_own():
    ports = ["7001", "7002", "7003", "7004"]
    found = environment(FRONT_PORTS=",".join(ports))
    assert sorted(found[name] for name in found if name.endswith("_PORT") and "PROXY_" in name) == ports


@pytest.mark.parametrize("ports", ["7001", "7001,7002,7003,x", "7001,7002,7003,7003", "1,2,3,4,5", "1,2,3,70000"])
def test_wrong_ports_are_told(ports, monkeypatch, capsys):
    monkeypatch.setenv("FRONT_PORTS", ports)
    monkeypatch.setattr(os, "execvp", no_command)
    assert main(["true"]) == 2
    assert capsys.readouterr().err == (
        f"error: mnist-node true: FRONT_PORTS: received '{ports}', expected 4 ports as 8081,8082,8083,8084\n"
    )


def no_command(*_):
    """In place of ``os.execvp``, which would put the command in the place of the tests."""
    pytest.fail("the command was run")


def test_a_folder_that_somebody_else_has_put_there_is_not_used(tmp_path):
    environment(TMPDIR=str(tmp_path))
    (folder,) = tmp_path.iterdir()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    done = run(str(NODE), "true", TMPDIR=str(tmp_path))
    assert (done.returncode, "expected a folder of this user" in done.stderr) == (2, True)


def test_what_is_set_already_stays_as_it_is():
    found = environment(RAY_SERVE_HAPROXY_RETRIES="7", MNIST_HOST="127.0.0.9", RAY_AUTH_MODE="disabled")
    assert found["RAY_SERVE_HAPROXY_RETRIES"] == "7"
    assert found["FRONT_HOST"] == "127.0.0.9"
    assert found["RAY_AUTH_MODE"] == "disabled"


def test_a_command_that_is_not_there_is_told():
    done = run(str(NODE), "no-such-command")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: mnist-node no-such-command: ")


@pytest.mark.parametrize(("words", "code", "stream"), [([], 2, "err"), (["--help"], 0, "out")])
def test_without_a_command_the_usage_is_told(words, code, stream, capsys):
    assert main(words) == code
    told = capsys.readouterr()
    assert getattr(told, stream).startswith("usage: mnist-node COMMAND...")
    assert "" in told


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> dict[str, str]:
    """Variables with which a process speaks TLS, with a certificate of a CA of our own."""
    return tls_variables(tmp_path_factory.mktemp("tls"), [HOST, "127.0.0.1"])


@contextmanager
def head(folder: Path, **env: str) -> Iterator[tuple[str, str, str]]:
    """A node of a cluster on this machine; gives its address and those of its dashboard and of its metrics."""
    names = ("port", "ray-client-server-port", "dashboard-port", "dashboard-agent-listen-port", "metrics-export-port")
    command = [str(NODE), "ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"]
    log = folder / "ray.log"
    with log.open("w") as out, held_ports(len(names) + FRONT_PORTS) as ports:
        command += [f"--{name}={port}" for name, port in zip(names, ports, strict=False)] + [f"--temp-dir={folder}"]
        # Told to stop while it has an application, Ray would wait for 30 s that its replicas move to another node.
        ours = {"FRONT_PORTS": ",".join(map(str, ports[len(names) :])), "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **ours, **env})
        try:
            poll(lambda: "will now block" in log.read_text() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield f"{HOST}:{ports[0]}", f"http://127.0.0.1:{ports[2]}", f"http://127.0.0.1:{ports[4]}/metrics"
        finally:
            process.terminate()
            process.wait(60)


def test_nodes_speak_tls_with_certificates_of_our_own(authority, model_storage, tmp_path_factory):
    command = [sys.executable, "-m", "jobs.cli", "evaluate", "mnist", "--dataset", "uci-digits", "--workers", "2"]
    command += ["--storage", model_storage, "--json"]
    with head(tmp_path_factory.mktemp("r"), **authority) as (address, *_):
        where = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token"}
        done = run(*command, **where, **authority)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["count"] == 360
        assert speaks_tls(address, authority)


@pytest.fixture(scope="module")
def plain_head(tmp_path_factory) -> Iterator[tuple[str, str, str]]:
    """What ``head`` gives, of one without TLS. The first test on it leaves no application there, the second does."""
    with head(tmp_path_factory.mktemp("r")) as addresses:
        yield addresses


def test_an_endpoint_that_waits_for_room_is_taken_down_when_told_to_stop(plain_head, model_storage):
    address, dashboard, _ = plain_head
    command = [sys.executable, "-m", "jobs.cli", "serve", "--port", "0", "--grpc-port", "0", "--storage", model_storage]
    command += ["--cpus-per-replica", "64"]
    env = {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "token"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            poll(lambda: applications(dashboard) == {"mnist": "DEPLOYING"})
            process.terminate()
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert re.fullmatch(r"stopped after \d+ s\n", said)
    poll(lambda: not applications(dashboard))


def test_serve_deploy_brings_up_what_its_config_says(plain_head, model_storage, tmp_path):
    _, dashboard, metrics = plain_head
    config = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    with held_ports(2) as (port, grpc_port):
        config["http_options"]["port"], config["grpc_options"]["port"] = port, grpc_port
        config["applications"][0]["args"]["storage"] = model_storage
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        done = run(str(NODE.with_name("serve")), "deploy", "--address", dashboard, str(file), RAY_AUTH_MODE="token")
        assert done.returncode == 0, done.stdout + done.stderr
        address = f"http://{HOST}:{port}"
        poll(lambda: answers(f"{address}/v2/health/ready"))
        digit = load_dataset("uci-digits").test.images[0].tobytes()
        request = urllib.request.Request(f"{address}/predict", digit, {"content-type": "application/octet-stream"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["model_version"] == "mnist/1"
        ask_often(port, digit, 1000)
        found = poll(lambda: settled(metrics, 1001))
        # Every request is in the histograms, however many there are between two hand-overs to Ray.
        assert series(found, "ray_mnist_seconds_bucket", phase="inference", le="+Inf") == 1001
        assert 0 < series(found, "ray_mnist_seconds_bucket", phase="inference", le="0.025") <= 1001
        assert 0 < series(found, "ray_mnist_seconds_sum", phase="inference") < 120
        assert series(found, "ray_mnist_batch_images_sum") == 1001


def settled(url: str, images: int) -> str | None:
    """What Prometheus reads, once it has all of so many images."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        found = answer.read().decode()
    counted = series(found, "ray_mnist_images_total"), series(found, "ray_mnist_seconds_count", phase="inference")
    return found if counted == (images, images) else None


def series(metrics: str, name: str, **labels: str) -> float:
    """The sum of all series of a name that have these labels."""
    lines = [line.rpartition(" ") for line in metrics.splitlines() if line.startswith(f"{name}{{")]
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(value) for line, _, value in lines if all(each in line for each in wanted))


def ask_often(port: int, digit: bytes, times: int) -> None:
    connection = HTTPConnection(HOST, port, timeout=60)
    for _ in range(times):
        connection.request("POST", "/predict", digit, {"content-type": "application/octet-stream"})
        assert connection.getresponse().read()
    connection.close()


def applications(dashboard: str) -> dict[str, str]:
    """What Ray Serve has there, with its state."""
    token = (Path.home() / ".ray" / "auth_token").read_text()
    request = urllib.request.Request(
        f"{dashboard}/api/serve/applications/", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return {name: each["status"] for name, each in json.load(answer)["applications"].items()}


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True
