"""A scoring job on real Ray Data loses no row and doubles none, whatever is killed with SIGKILL at a random moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from training_runs import Command, started, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

NUM_IMAGES = 60_000
NUM_UNITS = 12
SEVERAL = 3


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(5).integers(0, 256, (NUM_IMAGES, 28, 28), dtype=np.uint8))
    return path


def words(images: Path, output: Path, storage: str, *more: str) -> list[str]:
    return ["score", str(images), str(output), "--storage", storage, "--json", *more]


def read(output: Path) -> pa.Table:
    """All rows in the order of their index."""
    table = ds.dataset(output, format="parquet").to_table()
    order = np.argsort([int(name.rpartition("#")[2]) for name in table["id"].to_pylist()])
    return table.take(order)


@pytest.fixture(scope="session")
def reference(images: Path, model_storage: str, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The rows of an undisturbed job."""
    output = tmp_path_factory.mktemp("reference") / "out"
    with started(*words(images, output, model_storage, "--workers", "2")) as command:
        result = command.result()
    table = read(output)
    assert result["items"] == len(table) == NUM_IMAGES
    assert [name.rpartition("#")[2] for name in table["id"].to_pylist()] == [str(i) for i in range(NUM_IMAGES)]
    return table


def finished(output: Path) -> dict[str, int]:
    """The records of the units that are done, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "_records").glob("*.json")}


def wait_for_records(output: Path, command: Command, seed: int) -> None:
    """Wait until a random part of the job is done, but not all of it."""
    wanted = random.Random(seed).randint(2, NUM_UNITS // 2)
    wait_for(lambda: len(finished(output)) >= wanted, command)


def test_a_killed_actor_costs_no_row(images: Path, model_storage: str, reference: pa.Table, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with started(*words(images, output, model_storage, "--workers", "2")) as command:
        wait_for_records(output, command, seed=1)
        command.workers("MapWorker")[0].send_signal(signal.SIGKILL)
        assert len(finished(output)) <= NUM_UNITS - SEVERAL
        result = command.result()
    assert result["items"] == NUM_IMAGES
    assert read(output).equals(reference)


def test_a_killed_driver_is_finished_by_resume_without_doing_finished_work_again(
    images: Path, model_storage: str, reference: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with started(*words(images, output, model_storage, "--workers", "2")) as command:
        wait_for_records(output, command, seed=2)
        command.kill()
    done = finished(output)
    assert 2 <= len(done) <= NUM_UNITS - SEVERAL
    assert not (output / "_SUCCESS.json").exists()
    with started(*words(images, output, model_storage, "--workers", "2", "--resume")) as command:
        result = command.result()
    assert result["resumed_units"] == len(done)
    assert done.items() <= finished(output).items()
    assert read(output).equals(reference)


def test_ctrl_c_leaves_a_job_that_can_be_resumed(
    images: Path, model_storage: str, reference: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with started(*words(images, output, model_storage, "--workers", "2")) as command:
        wait_for_records(output, command, seed=3)
        command.process.send_signal(signal.SIGINT)
        code, _, stderr = command.finish()
    assert code == 1
    assert stderr.splitlines()[-1].startswith("error: interrupted; finish with: mnist score")
    done = finished(output)
    assert 2 <= len(done) < NUM_UNITS
    with started(*words(images, output, model_storage, "--resume")) as command:
        result = command.result()
    assert result["resumed_units"] >= len(done)  # an actor may have ended after the driver
    assert done.items() <= finished(output).items()
    assert read(output).equals(reference)


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # As this process's Ray was loaded. The token is the one a local Ray makes for itself.
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    ray_command = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate"]
    subprocess.run(ray_command, check=True, capture_output=True)
    from ray.cluster_utils import Cluster

    # A node is dead after five checks in a row that nobody answers; the default is one in three seconds.
    checks = {"health_check_period_ms": 500}
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": checks})
    yield nodes
    nodes.shutdown()


def test_a_killed_node_costs_no_row(
    images: Path, model_storage: str, reference: pa.Table, tmp_path: Path, two_nodes: Any
) -> None:
    output = tmp_path / "out"
    node = two_nodes.add_node(num_cpus=1)
    env = {"RAY_ADDRESS": two_nodes.address, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with started(*words(images, output, model_storage, "--workers", "2"), env=env) as command:
        wait_for_records(output, command, seed=4)
        two_nodes.remove_node(node, allow_graceful=False)
        assert len(finished(output)) <= NUM_UNITS - SEVERAL
        result = command.result()
    assert result["items"] == NUM_IMAGES
    assert read(output).equals(reference)
