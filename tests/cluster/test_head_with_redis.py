"""A head that dies while a Redis keeps its state: replicas on other nodes keep answering, and a new head takes over."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
from conftest import restarted
from hosts import NETWORK
from processes import answers
from requests_to import Load, serves
from serving import poll

from mnist_core.ports import free_ports

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(900)]

HERE = f"{NETWORK}.1"


@pytest.fixture
def redis(tmp_path):
    """The address of a Redis on a machine of its own, this one."""
    if not shutil.which("redis-server"):
        pytest.skip("needs redis-server (Debian: redis-server)")
    (port,) = free_ports(1)
    options = ["--bind", HERE, "--protected-mode", "no", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(["redis-server", "--port", str(port), *options], stdout=subprocess.DEVNULL) as process:
        poll(lambda: answers(HERE, port))
        yield f"{HERE}:{port}"
        process.kill()


@pytest.fixture
def with_redis(cluster, redis, tmp_path):
    """The cluster, up with the switch that docs/operations.md gives; as it was before for the next test."""
    variables = {"RAY_REDIS_ADDRESS": redis, "RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
    with restarted(cluster, tmp_path, variables):
        yield cluster


@pytest.fixture
def endpoint(with_redis):
    """The address of a node with a replica, on a cluster that serves with two; the head, which dies, has none."""
    worker = with_redis.workers[0].address
    replicas = ["--min-replicas", "2", "--max-replicas", "2", "--cpus-per-replica", "1.5"]
    with_redis.run("serve", "--storage", str(with_redis.storage), *replicas, "--detach")
    poll(lambda: serves(worker), 120)
    yield worker
    with_redis.head.ssh("RAY_AUTH_MODE=token RAY_ADDRESS=http://127.0.0.1:8265 serve shutdown --yes")
    poll(lambda: not answers(worker, 8000), 60)


def test_replicas_answer_without_a_head_and_a_new_head_takes_over(with_redis, endpoint, tell):
    cluster = with_redis
    raylets = [host.ssh("pgrep -x raylet") for host in cluster.workers]
    with Load(endpoint, 2, pause_s=0.01) as load:  # room on two cores for a head that starts
        poll(lambda: load.answers[200] > 100, 60)
        cluster.head.power_off()
        started, before = time.monotonic(), load.answers[200]
        poll(lambda: time.monotonic() > started + 20, 30)  # the fault itself
        headless = load.answers[200] - before
        cluster.head.power_on()
        cluster.up()
        cluster.wait_until_whole()
        poll(lambda: serves(cluster.head.address), 120)
        back = time.monotonic() - started
    wrong = sum(load.answers.values()) - load.answers[200] + len(load.failures)
    tell(
        f"head dies, its state in a Redis: {headless:,} answers in 20 s without it, whole again after {back:.0f} s; "
        f"{wrong} of {sum(load.answers.values()):,} requests failed"
    )
    assert headless > 500
    assert wrong == 0, (load.answers, load.failures[:5])
    assert [host.ssh("pgrep -x raylet") for host in cluster.workers] == raylets
