"""What ``mnist train`` promises, kept by real Ray, real worker processes and real SIGKILLs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import Command, assert_same_weights, final_weights, started, wait_for, words

from mnist_core.engines import usable_cpus
from mnist_core.runs import Run
from mnist_core.storage import open_storage

pytestmark = [pytest.mark.ray, pytest.mark.timeout(420)]


def wait_until_epoch(run: Run, epoch: int, command: Command) -> None:
    """Wait until a run is in the middle of an epoch, counted from 0."""

    def there() -> bool:
        progress = (run.status() or {}).get("progress", {"epoch": -1, "step": 0})
        return progress["epoch"] >= epoch and progress["step"] > 0

    wait_for(there, command)


def assert_equals_reference(storage: str, run: str) -> None:
    assert_same_weights(storage, "reference", storage, run)


def test_a_run_trains_evaluates_and_publishes(reference: dict[str, Any], small_storage: str) -> None:
    assert reference["test"]["count"] == 600
    assert reference["test"]["accuracy"] > 0.9
    assert reference["workers"] == 2
    assert reference["epochs"] == 6
    assert reference["startup_seconds"] > 0
    assert reference["peak_memory_bytes"] > 100e6
    artifact = Path(reference["artifact"])
    record = json.loads((artifact / "evaluation.json").read_text())
    assert record["accuracy"] == reference["test"]["accuracy"]
    assert len(record["history"]) == 6
    assert (artifact / "report.html").stat().st_size > 10_000
    assert json.loads((Path(small_storage) / "models/mnist/current.json").read_text())


def test_a_killed_worker_costs_nothing_but_time(
    small_digits: Path, small_storage: str, reference: dict[str, Any]
) -> None:
    run = Run(open_storage(small_storage), "worker-killed")
    with started(*words(small_digits, small_storage, run.name)) as command:
        wait_until_epoch(run, 2, command)
        workers = command.workers()
        assert len(workers) == 2
        workers[0].send_signal(signal.SIGKILL)
        code, stdout, stderr = command.finish()
    assert code == 0, stderr
    assert "resumed at epoch" in stderr
    assert json.loads(stdout)["test"] == reference["test"]
    assert_equals_reference(small_storage, run.name)


def test_a_killed_driver_resumes_bit_for_bit_from_the_newest_whole_checkpoint(
    small_digits: Path, small_storage: str, reference: dict[str, Any]
) -> None:
    run = Run(open_storage(small_storage), "driver-killed")
    with started(*words(small_digits, small_storage, run.name)) as command:
        wait_until_epoch(run, 1, command)
        command.kill()
    newest = run.storage.list_keys(run.checkpoints)[-1]
    torn = Path(small_storage, newest)
    torn.write_bytes(torn.read_bytes()[:-1000])
    with started(*words(small_digits, small_storage, run.name)) as command:
        code, stdout, stderr = command.finish()
    assert code == 0, stderr
    assert f"{newest} is skipped" in " ".join(stderr.split())
    assert "resumed at epoch" in stderr
    assert json.loads(stdout)["test"] == reference["test"]
    assert_equals_reference(small_storage, run.name)


def test_ctrl_c_leaves_a_run_that_the_named_command_resumes_and_1_2_and_3_workers_give_the_same_bits(
    small_digits: Path, small_storage: str, reference: dict[str, Any]
) -> None:
    """The first epochs of one worker, the others of three; the reference is two workers'."""
    run = Run(open_storage(small_storage), "interrupted")
    with started(*words(small_digits, small_storage, run.name, "1")) as command:
        wait_until_epoch(run, 2, command)
        command.process.send_signal(signal.SIGINT)
        code, stdout, stderr = command.finish()
    assert code == 1
    assert stdout == ""
    assert f"go on with: mnist train --run {run.name}" in stderr
    with started(*words(small_digits, small_storage, run.name, "3")) as command:
        code, stdout, stderr = command.finish()
    assert code == 0, stderr
    assert "resumed at epoch" in stderr
    result = json.loads(stdout)
    assert result["workers"] == 3
    assert result["test"] == reference["test"]
    assert_equals_reference(small_storage, run.name)


IN_A_NOTEBOOK = """
import sys
from jobs.train import train_on_ray
from mnist_core.cluster_address import choose_address
from mnist_core.config import TrainConfig
from mnist_core.config_sources import load_config
from mnist_core.errors import RunInterruptedError

choose_address()
import ray
ray.init(address="local", include_dashboard=False, logging_level="error", log_to_driver=False)
try:
    train_on_ray(load_config(TrainConfig, sys.argv[2:]))
except RunInterruptedError as err:
    print(err, flush=True)
sys.stdin.readline()
"""


def test_ctrl_c_stops_the_workers_on_a_ray_that_goes_on(small_digits: Path, small_storage: str) -> None:
    run = Run(open_storage(small_storage), "in-a-notebook")
    with started(*words(small_digits, small_storage, run.name), program=("-c", IN_A_NOTEBOOK)) as command:
        wait_until_epoch(run, 1, command)
        assert len(command.workers()) == 2
        command.process.send_signal(signal.SIGINT)
        assert command.process.stdout.readline().startswith("interrupted; go on with: mnist train --run in-a-notebook")
        assert not command.workers()
        assert command.workers("raylet"), "Ray itself goes on"
        code, _, stderr = command.finish()
    assert code == 0, stderr
    assert run.result() is None


def test_a_finished_run_says_so_and_does_nothing(
    small_digits: Path, small_storage: str, reference: dict[str, Any]
) -> None:
    with started(*words(small_digits, small_storage, "reference")) as command:
        assert command.result() == {**reference, "already_finished": True}


@pytest.mark.usefixtures("reference")
def test_a_changed_configuration_is_refused_field_by_field(small_digits: Path, small_storage: str) -> None:
    with started(*words(small_digits, small_storage, "reference"), "--epochs", "7", "--dropout", "0.1") as command:
        code, stdout, stderr = command.finish()
    assert (code, stdout) == (1, "")
    assert "dropout is 0.5, asked for 0.1; epochs is 6, asked for 7" in stderr


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    small_digits: Path, small_storage: str
) -> None:
    options = words(small_digits, small_storage, "diverged", "1")
    options[options.index("--steps-per-call") + 1] = "1"  # so that there is a state before the one that is no good
    with started(*options, "--learning-rate", "1e30") as command:
        code, stdout, stderr = command.finish()
    assert (code, stdout) == (1, "")
    assert stderr.count("error: ") == 1
    assert "error: the loss is nan at epoch 1, step " in stderr
    for name, values in final_weights(small_storage, "diverged").items():
        assert np.isfinite(values).all(), name


@pytest.mark.usefixtures("reference")
def test_an_elastic_run_uses_what_there_is_and_ends_with_the_same_result(
    small_digits: Path, small_storage: str
) -> None:
    options = ["--cpus-per-worker", "1"]
    with started(*words(small_digits, small_storage, "elastic", "1:4"), *options) as command:
        result = command.result()
    assert result["workers"] == min(4, usable_cpus())
    assert_equals_reference(small_storage, "elastic")
