"""Whether a cluster has room is tried on a real one of two nodes; and what is said of a Ray that does not start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs import cluster
from jobs.cluster import WorkerShape, find_places
from jobs.score_actors import count_actors
from mnist_core.config import ScoreConfig, TrainConfig
from mnist_core.errors import ResourcesError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180), pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("command", [["train", "--dataset", "uci-digits"], ["serve"]], ids=["train", "serve"])
def test_a_ray_that_does_not_start_is_one_line(command: list[str], model_storage: str) -> None:
    words = [sys.executable, "-m", "jobs.cli", *command, "--storage", model_storage]
    env = {**os.environ, "RAY_TMPDIR": f"{__file__}/no-folder"}
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Ray did not start on this machine (")
    assert line.endswith("or name a cluster in RAY_ADDRESS")


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        # As this process's Ray was loaded. The token is the one a local Ray makes for itself.
        patch.setenv("RAY_AUTH_MODE", "token")
        ray_command = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate"]
        subprocess.run(ray_command, check=True, capture_output=True)
        import ray
        from ray.cluster_utils import Cluster

        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, logging_level="error", log_to_driver=False)
        yield nodes
        ray.shutdown()
        nodes.shutdown()


def config(**options: Any) -> TrainConfig:
    return TrainConfig(recipe="notebook", threads_per_worker=1, **options)


@pytest.mark.usefixtures("two_nodes")
def test_too_few_cpus_is_said_at_once() -> None:
    import ray

    start = time.monotonic()
    with pytest.raises(ResourcesError, match="asked for 2 workers of 1000 CPUs and 0 GPUs each; the nodes have 1 CPUs"):
        find_places(ray, config(workers=2, cpus_per_worker=1000))
    assert time.monotonic() - start < 2


@pytest.mark.usefixtures("two_nodes")
def test_a_training_that_is_stopped_while_it_starts_trains_nothing(tmp_path: Path) -> None:
    from ray.exceptions import RayError
    from ray.train import RunConfig, ScalingConfig

    from jobs.tensorflow_trainer import KerasTrainer

    scaling, run = ScalingConfig(num_workers=1), RunConfig(name="stopped", storage_path=str(tmp_path))
    trained = tmp_path / "trained"
    trainer = KerasTrainer(lambda _: trained.touch(), {}, scaling=scaling, run=run, environment={}, alone=False)
    trainer.stop()
    with pytest.raises(RayError):
        trainer.fit()
    assert not trained.exists()


def test_room_is_found_missed_while_it_is_taken_and_waited_for(two_nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    assert find_places(ray, config(workers=2)) == WorkerShape(1, 1, 0)
    assert find_places(ray, config(workers="1:4")) == WorkerShape(1, 1, 0)

    # Two CPUs are there, one on each node.
    with pytest.raises(ResourcesError, match="the nodes have room for 0"):
        count_actors(ray, ScoreConfig(paths=["a", "b"], cpus_per_worker=1.5), num_units=9)
    assert count_actors(ray, ScoreConfig(paths=["a", "b"]), num_units=9) == 2

    taken = ray.util.placement_group([{"CPU": 0.5}, {"CPU": 0.5}], strategy="STRICT_SPREAD")
    assert taken.wait(30)
    # One CPU is free in all, but half of it on each node, where a whole worker fits on neither.
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "RESERVE_S", 1.0)
        with pytest.raises(ResourcesError, match="of which 1 CPUs and 0 GPUs are free"):
            find_places(ray, config(workers=1))

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(find_places, ray, config(workers=1, resource_wait_s=60))
        two_nodes.add_node(num_cpus=1)
        assert waiting.result() == WorkerShape(1, 1, 0)
