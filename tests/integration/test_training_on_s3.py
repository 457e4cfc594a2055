"""A whole life of a run in a bucket that is slow: trained, killed, resumed, published, verified, evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training_runs import assert_same_weights, started, wait_for, words

from mnist_core.runs import Run
from mnist_core.storage import open_storage


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_run_in_a_slow_bucket_survives_its_controller_and_has_the_same_bits(
    slow_s3_bucket: str, small_digits: Path, small_storage: str, reference: dict[str, Any]
) -> None:
    training = words(small_digits, slow_s3_bucket, "in-a-bucket")
    run = Run(open_storage(slow_s3_bucket), "in-a-bucket")
    with started(*training) as command:
        wait_for(lambda: run.storage.list_keys(run.checkpoints), command)
        for controller in command.workers("ControllerWithoutPreemption"):
            controller.kill()
        code, stdout, stderr = command.finish()
    assert (code, stdout) == (1, "")
    assert stderr.splitlines()[-1].startswith("error: Ray lost the training: ActorDiedError: ")
    assert stderr.splitlines()[-1].endswith("go on with --run in-a-bucket")
    assert run.result() is None
    with started(*training) as command:
        code, stdout, stderr = command.finish()
    assert code == 0, stderr
    assert "resumed at epoch" in stderr
    result = json.loads(stdout)
    assert result["artifact"] == f"{slow_s3_bucket}/models/mnist/1"
    assert result["test"] == reference["test"]
    assert_same_weights(small_storage, "reference", slow_s3_bucket, run.name)
    with started("models", "verify", "--storage", slow_s3_bucket) as command:
        assert command.finish()[0] == 0
    place = ["--storage", slow_s3_bucket, "--dataset", str(small_digits)]
    with started("evaluate", "mnist", *place, "--json") as command:
        evaluation = command.result()
    assert {name: evaluation[name] for name in ("accuracy", "loss", "count")} == result["test"]
