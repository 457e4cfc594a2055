"""The three commands on three hosts by ``--address``, as a user who has read the README types them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pyarrow.dataset as ds
import pytest
from serving import poll
from training_runs import write_digits

from mnist_core.predictor import load_predictor
from mnist_core.registry import open_model
from mnist_core.storage import open_storage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PIXELS = np.random.default_rng(3).integers(0, 256, (300, 28, 28)).astype(np.uint8)
TWO_NODES = ["--workers", "2", "--cpus-per-worker", "1.5"]  # of two CPUs each, so that no node takes both


@pytest.fixture(scope="module")
def digits(cluster):
    return str(write_digits(cluster.storage / "digits.npz", count=2000))


def test_training_on_two_nodes_ends_like_training_on_one(cluster, digits):
    storage = ["--storage", str(cluster.storage), "--dataset", digits, "--recipe", "notebook", "--epochs", "2"]
    runs = [
        cluster.result("train", *storage, "--model", f"by{number}", *TWO_NODES, "--workers", number)
        for number in ("1", "2")
    ]
    assert [run["workers"] for run in runs] == [1, 2]
    first, second = (open_model(open_storage(str(cluster.storage)), f"by{number}") for number in "12")
    expected, found = (load_predictor(model.files).predict(PIXELS).probabilities for model in (first, second))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_scoring_gives_every_image_one_row(cluster):
    images, output = cluster.storage / "images.npy", cluster.storage / "scored"
    np.save(images, PIXELS)
    result = cluster.result("score", "--storage", str(cluster.storage), *TWO_NODES, str(images), str(output))
    assert result["items"] == len(PIXELS)
    table = ds.dataset(output, format="parquet").to_table()
    assert len(set(table["id"].to_pylist())) == len(PIXELS)


def test_rays_own_job_submit_trains(cluster, digits):
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", cluster.address, "--"]
    command += ["python", "-m", "jobs.train", "--storage", str(cluster.storage), "--dataset", digits]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(cluster.token_file)}
    done = subprocess.run(
        [*command, "--recipe", "notebook", "--epochs", "1", "--model", "plain"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **token},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert open_model(open_storage(str(cluster.storage)), "plain").manifest.version == "1"


def test_evaluation_and_what_people_read(cluster, digits):
    out, err = cluster.run("evaluate", "mnist", "--storage", str(cluster.storage), "--dataset", digits)
    assert "accuracy" in out
    assert err.splitlines()[-1].startswith("job raysubmit_")


def test_the_jobs_own_error_and_exit_code_come_back(cluster):
    _, err = cluster.run("evaluate", "nobody", "--storage", str(cluster.storage), code=1)
    assert err.splitlines()[-1].startswith("error: no model 'nobody'")
    _, err = cluster.run("evaluate", "mnist", "--storage", str(cluster.storage), "--threads", "0", code=2)
    assert "--threads: received '0'" in err


def test_a_job_that_is_left_alone_is_found_again_and_stopped(cluster, digits):
    words = ["--storage", str(cluster.storage), "--dataset", digits, "--recipe", "notebook", "--epochs", "500"]
    job = json.loads(cluster.run("train", *words, "--run", "long", "--detach", "--json")[0])["job"]
    poll(lambda: re.search(r"epoch +1/500", cluster.run("jobs", "logs", job)[0]), 120)
    assert "RUNNING" in cluster.run("jobs", "status", job)[0]
    assert job in cluster.run("jobs", "list")[0]
    cluster.run("jobs", "stop", job)
    poll(lambda: "STOPPED" in cluster.run("jobs", "status", job)[0], 60)
    assert "ended before" in cluster.run("jobs", "stop", job)[0]
    with cluster.start("train", *words, "--run", "long") as again:  # Ctrl-C lets it go
        assert any(re.search(r"epoch +\d+/500", line) for line in iter(again.stderr.readline, ""))
        again.send_signal(signal.SIGINT)
        left = again.communicate(timeout=60)[1]
    assert again.returncode == 1
    assert left.splitlines()[-1].startswith("error: interrupted; job raysubmit_"), left
    cluster.run("jobs", "stop", left.splitlines()[-1].split()[3])
