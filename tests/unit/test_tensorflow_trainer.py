"""What starts with a training, and what a worker does before TensorFlow connects it to the others."""

from __future__ import annotations

import socket
import threading

import pytest
from ray.train import RunConfig, ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from jobs.tensorflow_trainer import (
    FixedOnFixedCluster,
    KerasTrainer,
    describe_cluster,
    first_contact,
    wait_for_first_worker,
)
from mnist_core.ports import held_ports

PATIENCE_S = 20
CLEANER, DATASETS = "PlacementGroupCleanerCallback", "DatasetsCallback"


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


@pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning")  # Ray copies its own settings
@pytest.mark.parametrize(("alone", "needless"), [(True, {CLEANER, DATASETS}), (False, {DATASETS})])
def test_no_process_is_started_for_datasets_and_none_tidies_a_ray_that_is_ours_alone(tmp_path, alone, needless):
    scaling, run = ScalingConfig(num_workers=2), RunConfig(name="run", storage_path=str(tmp_path))
    trainer = KerasTrainer(print, {}, scaling=scaling, run=run, environment={}, alone=alone)
    rays = {type(each).__name__ for each in DataParallelTrainer._create_default_callbacks(trainer)}
    assert rays - {type(each).__name__ for each in trainer._create_default_callbacks()} == needless


def test_a_cluster_that_cannot_grow_is_not_asked_to_and_workers_are_as_many_as_ray_would_start():
    scaling = ScalingConfig(num_workers=3, resources_per_worker={"CPU": 2})
    policy = FixedOnFixedCluster(scaling)
    policy.after_controller_start(None)
    assert policy.make_decision_for_non_running_worker_group() == ResizeDecision(3, {"CPU": 2})
    assert isinstance(policy.make_decision_for_running_worker_group(None, None), NoopDecision)
    assert policy._coordinator_client is None
