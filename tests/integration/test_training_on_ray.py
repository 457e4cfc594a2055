"""What ``mnist train`` promises, kept by real Ray, real worker processes and real SIGKILLs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import Command, final_weights, started, wait_for, write_digits

from mnist_core.runs import Run
from mnist_core.storage import open_storage

pytestmark = [pytest.mark.ray, pytest.mark.timeout(420)]

OPTIONS = ["--recipe", "notebook", "--epochs", "6", "--cpus-per-worker", "0.5", "--steps-per-call", "2"]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,860 training samples: 37 full batches of 128 and a short one of 124, in micro-batches of 32 and one of 28."""
    return write_digits(tmp_path_factory.mktemp("data") / "digits.npz")


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("storage"))


def words(digits: Path, storage: str, run: str, workers: str = "2") -> list[str]:
    """A training that a test can disturb: small, and with a checkpoint after every call."""
    place = ["--dataset", str(digits), "--storage", storage, "--run", run, "--workers", workers]
    return ["train", *OPTIONS, *place, "--checkpoint-every-s", "0.001", "--json"]


@pytest.fixture(scope="session")
def reference(digits: Path, storage: str) -> dict[str, Any]:
    """An undisturbed run of two workers."""
    with started(*words(digits, storage, "reference")) as command:
        return command.result()


def wait_until_epoch(run: Run, epoch: int, command: Command) -> None:
    """Wait until a run is in the middle of an epoch, counted from 0."""

    def there() -> bool:
        progress = (run.status() or {}).get("progress", {"epoch": -1, "step": 0})
        return progress["epoch"] >= epoch and progress["step"] > 0

    wait_for(there, command)


def assert_same_weights(storage: str, run: str) -> None:
    """Bit for bit: weights, moments, average and the selected weights."""
    expected, found = final_weights(storage, "reference"), final_weights(storage, run)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_a_run_trains_evaluates_and_publishes(reference: dict[str, Any], storage: str) -> None:
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
    assert json.loads((Path(storage) / "models/mnist/current.json").read_text())


@pytest.mark.parametrize("workers", ["1", "3"])
def test_the_number_of_workers_does_not_change_the_result(
    workers: str, digits: Path, storage: str, reference: dict[str, Any]
) -> None:
    with started(*words(digits, storage, f"workers-{workers}", workers)) as command:
        result = command.result()
    assert result["workers"] == int(workers)
    assert result["test"] == reference["test"]
    assert_same_weights(storage, f"workers-{workers}")


def test_a_killed_worker_costs_nothing_but_time(digits: Path, storage: str, reference: dict[str, Any]) -> None:
    run = Run(open_storage(storage), "worker-killed")
    with started(*words(digits, storage, run.name)) as command:
        wait_until_epoch(run, 2, command)
        workers = command.workers()
        assert len(workers) == 2
        workers[0].send_signal(signal.SIGKILL)
        code, stdout, stderr = command.finish()
    assert code == 0, stderr
    assert "resumed at epoch" in stderr
    assert json.loads(stdout)["test"] == reference["test"]
    assert_same_weights(storage, run.name)


def test_a_killed_driver_resumes_bit_for_bit_from_the_newest_whole_checkpoint(
    digits: Path, storage: str, reference: dict[str, Any]
) -> None:
    run = Run(open_storage(storage), "driver-killed")
    with started(*words(digits, storage, run.name)) as command:
        wait_until_epoch(run, 1, command)
        command.kill()
    newest = run.storage.list_keys(run.checkpoints)[-1]
    torn = Path(storage, newest)
    torn.write_bytes(torn.read_bytes()[:-1000])
    with started(*words(digits, storage, run.name)) as command:
        code, stdout, stderr = command.finish()
    assert code == 0, stderr
    assert f"{newest} is skipped" in " ".join(stderr.split())
    assert "resumed at epoch" in stderr
    assert json.loads(stdout)["test"] == reference["test"]
    assert_same_weights(storage, run.name)


@pytest.mark.usefixtures("reference")
def test_ctrl_c_leaves_a_run_that_the_named_command_resumes(digits: Path, storage: str) -> None:
    run = Run(open_storage(storage), "interrupted")
    with started(*words(digits, storage, run.name)) as command:
        wait_until_epoch(run, 1, command)
        command.process.send_signal(signal.SIGINT)
        code, stdout, stderr = command.finish()
    assert code == 1
    assert stdout == ""
    assert f"go on with: mnist train --run {run.name}" in stderr
    # Another number of workers may go on with it.
    with started(*words(digits, storage, run.name, "1")) as command:
        code, stdout, stderr = command.finish()
    assert code == 0, stderr
    assert "resumed at epoch" in stderr
    assert_same_weights(storage, run.name)


def test_a_finished_run_says_so_and_does_nothing(digits: Path, storage: str, reference: dict[str, Any]) -> None:
    with started(*words(digits, storage, "reference")) as command:
        assert command.result() == {**reference, "already_finished": True}


@pytest.mark.usefixtures("reference")
def test_a_changed_configuration_is_refused_field_by_field(digits: Path, storage: str) -> None:
    with started(*words(digits, storage, "reference"), "--epochs", "7", "--dropout", "0.1") as command:
        code, stdout, stderr = command.finish()
    assert (code, stdout) == (1, "")
    assert "dropout is 0.5, asked for 0.1; epochs is 6, asked for 7" in stderr


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(digits: Path, storage: str) -> None:
    options = words(digits, storage, "diverged", "1")
    options[options.index("--steps-per-call") + 1] = "1"  # so that there is a state before the one that is no good
    with started(*options, "--learning-rate", "1e30") as command:
        code, stdout, stderr = command.finish()
    assert (code, stdout) == (1, "")
    assert stderr.count("error: ") == 1
    assert "error: the loss is nan at epoch 1, step " in stderr
    for name, values in final_weights(storage, "diverged").items():
        assert np.isfinite(values).all(), name


def test_too_few_cpus_is_said_at_once(digits: Path, storage: str) -> None:
    options = ["--cpus-per-worker", "1000"]
    with started(*words(digits, storage, "too-large"), *options) as command:
        code, stdout, stderr = command.finish()
    assert (code, stdout) == (1, "")
    assert "error: asked for 2 workers of 1000 CPUs" in stderr


@pytest.mark.usefixtures("reference")
def test_an_elastic_run_uses_what_there_is_and_ends_with_the_same_result(digits: Path, storage: str) -> None:
    options = ["--cpus-per-worker", "1"]
    with started(*words(digits, storage, "elastic", "1:4"), *options) as command:
        result = command.result()
    assert 1 <= result["workers"] <= 4
    assert_same_weights(storage, "elastic")
