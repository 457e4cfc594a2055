"""Hosts that lose their power or their network: what a run, a scoring job and the endpoint make of it.

Each test prints what it has counted; docs/operations.md has the table (`make test-faults`).
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter

import numpy as np
import pyarrow.dataset as ds
import pytest
from requests_to import Load, ask, serving_on
from serving import poll
from training_runs import final_weights, write_digits

from mnist_core.runs import Run
from mnist_core.storage import open_storage

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(900)]

ONE_A_NODE = ["--cpus-per-worker", "1.5"]  # of two CPUs
NUM_IMAGES = 120_000
CUT_S = 60.0


@pytest.fixture(scope="module")
def digits(cluster):
    return str(write_digits(cluster.storage / "digits.npz"))


def train(cluster, digits, run, *more):
    """A training that can be disturbed: small, and with a checkpoint after every call."""
    options = ["--recipe", "notebook", "--epochs", "6", "--steps-per-call", "2", "--checkpoint-every-s", "0.001"]
    place = ["--dataset", digits, "--storage", str(cluster.storage), "--run", run, "--model", run, "--json"]
    return cluster.start("train", *place, *options, *ONE_A_NODE, *more)


@pytest.fixture(scope="module")
def reference(cluster, digits):
    """The weights of an undisturbed run of two workers."""
    finish(train(cluster, digits, "reference", "--workers", "2"))
    return final_weights(str(cluster.storage), "reference")


def finish(process):
    """Wait for a command's success; its result and what it said."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1]), err


def wait_for_epoch(cluster, run, epoch):
    there = Run(open_storage(str(cluster.storage)), run)
    poll(lambda: (there.status() or {}).get("progress", {"epoch": -1})["epoch"] >= epoch, 240)


def assert_same(cluster, run, reference):
    found = final_weights(str(cluster.storage), run)
    assert found.keys() == reference.keys()
    for name, values in reference.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.fixture
def victim(cluster):
    """A worker that a test may disturb; the cluster is whole again for the next one."""
    host = cluster.workers[1]
    yield host
    if host.process is None:
        host.power_on()
    host.plug_in()
    cluster.wait_until_whole()


def test_a_node_dies_and_training_ends_with_the_same_result(cluster, digits, reference, victim, tell):
    process = train(cluster, digits, "node-died", "--workers", "1:2")
    wait_for_epoch(cluster, "node-died", 1)
    victim.power_off()
    started = time.monotonic()
    result, err = finish(process)
    assert "resumed at epoch" in err
    assert result["workers"] == 1
    assert_same(cluster, "node-died", reference)
    tell(f"node dies while two train: the same weights, bit for bit, {time.monotonic() - started:.0f} s later")


def test_a_node_is_cut_off_while_two_train(cluster, digits, reference, victim, tell):
    process = train(cluster, digits, "cut-off", "--workers", "1:2")
    wait_for_epoch(cluster, "cut-off", 1)
    victim.unplug()
    started = time.monotonic()
    plug = threading.Timer(CUT_S, victim.plug_in)
    plug.start()
    finish(process)
    plug.join()
    assert_same(cluster, "cut-off", reference)
    tell(f"node cut off for {CUT_S:.0f} s while two train: same weights, {time.monotonic() - started:.0f} s later")


@pytest.fixture(scope="module")
def images(cluster):
    path = cluster.storage / "many.npy"
    np.save(path, np.random.default_rng(5).integers(0, 256, (NUM_IMAGES, 28, 28), dtype=np.uint8))
    return str(path)


@pytest.mark.parametrize("fault", ["power", "network"])
def test_a_node_is_lost_and_scoring_loses_and_doubles_nothing(cluster, images, victim, fault, tell):
    output = cluster.storage / f"scored-{fault}"
    words = ["--storage", str(cluster.storage), *ONE_A_NODE, "--workers", "2", "--json"]
    process = cluster.start("score", *words, images, str(output))
    wanted = random.Random(4).randint(2, 8)
    poll(lambda: len(list((output / "_records").glob("*.json"))) >= wanted, 240)
    started = time.monotonic()
    if fault == "power":
        victim.power_off()
    else:
        victim.unplug()
        threading.Timer(CUT_S, victim.plug_in).start()
    result, _ = finish(process)
    ids = Counter(ds.dataset(output, format="parquet").to_table(["id"])["id"].to_pylist())
    assert result["items"] == len(ids) == NUM_IMAGES
    assert set(ids.values()) == {1}
    tell(f"node lost ({fault}) while two score: {len(ids):,} rows, each once, {time.monotonic() - started:.0f} s later")


@pytest.mark.parametrize("fault", ["power", "network"])
def test_a_node_is_lost_and_the_endpoint_answers_from_the_others(cluster, victim, fault, tell):
    with serving_on(cluster, "--min-replicas", "2", "--max-replicas", "2", "--cpus-per-replica", "1.5"):
        with Load(cluster.head.address, 8) as load:
            poll(lambda: load.answers[200] > 500, 60)
            before = load.answers[200]
            victim.power_off() if fault == "power" else victim.unplug()
            poll(lambda: load.answers[200] > before + 2000, 120)
            if fault == "network":
                time.sleep(CUT_S)  # the fault itself
                victim.plug_in()
                poll(lambda: ask(cluster.head.address)["model_version"] == "mnist/1", 60)
        wrong = sum(load.answers.values()) - load.answers[200] + len(load.failures)
        tell(f"node lost ({fault}) under 8 clients: {wrong} of {sum(load.answers.values()):,} requests failed")
        # Requests that were on the dead node; HAProxy repeats those that had no answer yet.
        assert wrong <= 16, (load.answers, load.failures[:5])


def test_a_node_that_joins_an_elastic_run_is_used(cluster, digits, victim, tell):
    victim.power_off()
    poll(lambda: victim.address not in cluster.alive(), 120)
    process = train(cluster, digits, "joined", "--workers", "1:2", "--epochs", "2000", "--detach")
    job = json.loads(process.communicate(timeout=120)[0])["job"]
    try:
        wait_for_epoch(cluster, "joined", 1)
        victim.power_on()
        started = time.monotonic()
        run = Run(open_storage(str(cluster.storage)), "joined")
        poll(lambda: run.status()["world_size"] == 2, 400)
        tell(f"node joins an elastic run: used {time.monotonic() - started:.0f} s after it was switched on")
    finally:
        cluster.run("jobs", "stop", job)


def test_the_head_dies_and_the_same_command_goes_on(cluster, digits, reference, tell):
    process = train(cluster, digits, "head-died", "--workers", "2")
    wait_for_epoch(cluster, "head-died", 1)
    cluster.head.power_off()
    process.kill()
    process.communicate()
    started = time.monotonic()
    cluster.head.power_on()
    cluster.up()
    cluster.wait_until_whole()
    back = time.monotonic() - started
    _, err = finish(train(cluster, digits, "head-died", "--workers", "2"))
    assert "resumed at epoch" in err
    assert_same(cluster, "head-died", reference)
    tell(f"head dies: ray up brings the cluster back in {back:.0f} s, and the same command ends with the same weights")
