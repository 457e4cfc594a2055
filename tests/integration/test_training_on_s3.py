"""A whole life of a run in a bucket: trained, killed, resumed, published, verified, evaluated."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest
from training_runs import final_weights, started, wait_for, write_digits

from mnist_core.runs import Run
from mnist_core.storage import open_storage


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_run_in_a_bucket_survives_its_driver_and_publishes_there(s3_bucket: str, tmp_path: Path) -> None:
    storage = f"{s3_bucket}/{uuid.uuid4().hex}"
    digits = str(write_digits(tmp_path / "digits.npz"))
    words = ["train", "--dataset", digits, "--storage", storage, "--run", "in-a-bucket", "--recipe", "notebook"]
    words += ["--epochs", "4", "--cpus-per-worker", "0.5", "--checkpoint-every-s", "0.5", "--steps-per-call", "1"]
    run = Run(open_storage(storage), "in-a-bucket")
    with started(*words) as command:
        wait_for(lambda: run.storage.list_keys(run.checkpoints), command)
        command.kill()
    assert run.result() is None
    with started(*words, "--json") as command:
        result = command.result()
    assert result["artifact"] == f"{storage}/models/mnist/1"
    with started("models", "verify", "--storage", storage) as command:
        assert command.finish()[0] == 0
    with started("evaluate", "mnist", "--storage", storage, "--dataset", digits, "--json") as command:
        evaluation = command.result()
    assert {name: evaluation[name] for name in ("accuracy", "loss", "count")} == result["test"]


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_slow_bucket_changes_nothing_but_the_time(slow_s3_bucket: str, tmp_path: Path) -> None:
    words = ["train", "--dataset", str(write_digits(tmp_path / "digits.npz", count=1500)), "--run", "slow"]
    words += ["--recipe", "notebook", "--epochs", "2", "--cpus-per-worker", "0.5", "--checkpoint-every-s", "0.001"]
    for storage in (slow_s3_bucket, str(tmp_path)):
        with started(*words, "--storage", storage, "--json") as command:
            assert command.result()["artifact"] == f"{storage}/models/mnist/1"
    slow, usual = (final_weights(storage, "slow") for storage in (slow_s3_bucket, str(tmp_path)))
    assert slow.keys() == usual.keys()
    for name, values in usual.items():
        np.testing.assert_array_equal(slow[name], values, err_msg=name)
