"""The endpoint on three hosts: every node answers, listens where docs/security.md says, and asks for the token."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from requests_to import PIXELS, ask, serving_on
from serving import poll
from untrained import publish_untrained

from mnist_core.predictor import load_predictor
from mnist_core.registry import open_model, promote
from mnist_core.storage import open_storage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"
GUARDED = ("/api/jobs/", "/api/cluster_status", "/nodes?view=summary", "/api/serve/applications/", "/api/v0/actors")


@pytest.fixture(scope="module")
def endpoint(cluster):
    with serving_on(cluster, "--min-replicas", "2", "--max-replicas", "2", "--cpus-per-replica", "1.5") as ready:
        yield ready


def test_every_node_answers(cluster, endpoint):
    assert endpoint["http"] == f"http://{cluster.head.address}:8000"
    for host in [cluster.head, *cluster.workers]:
        assert [ask(host.address)["model_version"] for _ in range(4)] == ["mnist/1"] * 4


@pytest.mark.usefixtures("endpoint")
def test_a_model_is_promoted_and_every_node_follows(cluster):
    storage = open_storage(str(cluster.storage))
    version = publish_untrained(storage, seed=2)
    promote(storage, "mnist", version)
    for host in [cluster.head, *cluster.workers]:
        poll(lambda address=host.address: {ask(address)["model_version"] for _ in range(8)} == {f"mnist/{version}"}, 30)
    promote(storage, "mnist", "1")


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize(
    ("words", "message"), [([], "this cluster has an endpoint already"), (["--port", "8001"], "use --port 8000")]
)
def test_a_second_endpoint_is_refused_and_the_first_goes_on(cluster, words, message):
    _, err = cluster.run("serve", "--storage", str(cluster.storage), *words, code=1)
    assert message in err.splitlines()[-1]
    assert ask(cluster.head.address)["model_version"]


def documented() -> list[tuple[str, set[str], str]]:
    """The rows of the table of ports: ports (a pattern), processes and where they listen."""
    rows = re.findall(r"^\| ([\d, -]+) \| `([^|]+)` \| (loopback|own|all) \|", SECURITY.read_text(), re.MULTILINE)
    assert len(rows) > 10
    return [(ports, set(processes.split("`, `")), where) for ports, processes, where in rows]


def allows(ports: str, port: int) -> bool:
    ranges = [tuple(map(int, each.split("-"))) for each in ports.split(", ")]
    return any(each[0] <= port <= each[-1] for each in ranges)


@pytest.mark.usefixtures("endpoint")
def test_nothing_listens_but_what_is_documented(cluster):
    rows = documented()
    unknown = []
    for host in [cluster.head, *cluster.workers]:
        for line in host.ssh("ss -ltnpH").splitlines():
            address, _, port = line.split()[3].rpartition(":")
            process = re.search(r'\(\("([^"]+)"', line)[1]
            address = address.strip("[]").removeprefix("::ffff:")
            where = {"127.0.0.1": "loopback", host.address: "own"}.get(address, "all")
            known = any(
                allows(ports, int(port)) and where == listens and any(process.startswith(each) for each in processes)
                for ports, processes, listens in rows
            )
            if not known:
                unknown.append(f"{host.name}: {process} listens on {address}:{port} ({where})")
    assert not unknown


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer " + "0" * 64}], ids=["none", "wrong"])
@pytest.mark.parametrize("path", GUARDED)
def test_the_dashboard_asks_for_the_token(cluster, path, headers):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(cluster.address + path, headers=headers))
    assert refused.value.code in (401, 403)
    refused.value.close()
    token = cluster.token_file.read_text()
    urllib.request.urlopen(
        urllib.request.Request(cluster.address + path, headers={"Authorization": f"Bearer {token}"})
    ).close()


@pytest.mark.parametrize(
    ("address", "refused"),
    # Ray's client keeps trying, and gives no reason; with the token it gets further, which shows what stopped it.
    [("{head}:6379", "InvalidAuthToken"), ("ray://{head}:10001", "ray client connection timeout")],
    ids=["driver", "client"],
)
def test_nobody_joins_without_the_token(cluster, address, refused):
    code = f"import ray; ray.init('{address.format(head=cluster.head.address)}', log_to_driver=False)"
    python = f"{cluster.head.home}/mnist-on-ray/.venv/bin/python"
    token_file = cluster.workers[0].home / "token"
    for token, enters in ((cluster.token_file.read_text(), True), ("0" * 64, False)):
        token_file.write_text(token)
        words = f'RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token_file} timeout 100 {python} -c "{code}" 2>&1'
        assert (refused not in cluster.workers[0].ssh(words, check=False)) == enters


def test_a_wrong_token_is_one_line(cluster, tmp_path):
    other = tmp_path / "token"
    other.touch(mode=0o600)
    other.write_text("0" * 64)
    _, err = cluster.run("jobs", "list", token_file=other, code=1)
    assert err.strip() == (
        f"error: {cluster.address} did not accept the token, or got none; "
        "name the file that holds the cluster's: --token-file FILE"
    )


@pytest.mark.usefixtures("endpoint")
def test_the_token_is_in_no_log_and_on_no_command_line(cluster):
    token = cluster.token_file.read_text()
    for host in [cluster.head, *cluster.workers]:
        assert not host.ssh(f"grep -rl {token} /tmp/ray/session_latest/logs", check=False)
        lines = [line for line in host.ssh("ps axww -o args").splitlines() if token in line and "grep" not in line]
        assert not lines


def test_the_dashboard_is_on_loopback(cluster):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((cluster.head.address, 8265), timeout=3)


@pytest.mark.usefixtures("endpoint")
def test_what_a_node_says_is_the_predictors_answer(cluster):
    model = open_model(open_storage(str(cluster.storage)), "mnist/1")
    expected = load_predictor(model.files).predict(PIXELS[:1]).probabilities[0].tolist()
    assert ask(cluster.workers[1].address)["predictions"][0]["probabilities"] == pytest.approx(expected, abs=1e-6)
