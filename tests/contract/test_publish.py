"""The end of a run, done again after a crash: one artifact, promoted once. What is measured is made up here."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from published import publish

from jobs import publish as publish_module
from jobs.publish import publish_run
from mnist_core.artifact import published_versions
from mnist_core.checkpoints import Checkpoint
from mnist_core.config import TrainConfig
from mnist_core.registry import current_version, promote, rollback
from mnist_core.runs import Run, StatusBoard
from mnist_core.splits import Split
from mnist_core.training import EpochReport, Progress

FACTS = {"name": "made up", "source": "here", "sha256": "ab", "train": 3, "validation": 2, "test": 1}
REPORT = EpochReport(1, 0.25, 0.875, 0.3, 0.8125, 1e-3, 12.5)
FINAL = Checkpoint(Progress(epoch=1, history=(REPORT,)), {"selected": np.zeros(3, np.float32)})
IMAGE = Split(np.zeros((1, 28, 28), np.uint8), np.zeros(1, np.uint8))
TRAINER = SimpleNamespace(load_network=lambda _weights: None, share=SimpleNamespace(world_size=2))


@pytest.fixture
def publish_it(storage, monkeypatch):
    """Do what a run does at its end, and give what it recorded; it may be cut off before it records anything."""
    evaluation = SimpleNamespace(accuracy=0.99, loss=0.03, count=1, ece=0.01)
    predictions = SimpleNamespace(probabilities=np.eye(1, 10))
    monkeypatch.setattr(publish_module, "export_calibrated", lambda *_, **__: ({"model.tflite": b"model"}, {}))
    monkeypatch.setattr(publish_module, "load_predictor", lambda *_, **__: None)
    monkeypatch.setattr(publish_module, "evaluate_model", lambda *_: (evaluation, predictions))
    monkeypatch.setattr(publish_module, "evaluation_files", lambda *_, **__: {"report.html": b"report"})

    def die(_result):
        raise KeyboardInterrupt

    def run_to_the_end(cut_off=False, **settings):
        config = TrainConfig(storage=storage.uri, run="a", **settings)
        run = Run(storage, "a")
        if cut_off:
            run.write_result = die
        board = StatusBoard(run, 2, {"command": 100.0})
        payload = {"threads": 1, "dataset": FACTS, "run_id": "a"}
        try:
            splits = dict.fromkeys(("train", "validation", "test"), IMAGE)
            publish_run(payload, config, run, TRAINER, FINAL, splits, board)
        finally:
            board.close()
        return run.result()

    return run_to_the_end


def test_a_run_that_ends_publishes_and_promotes(storage, publish_it):
    publish(storage, run_id="earlier")
    promote(storage, "mnist", "1")
    result = publish_it()
    assert (result["version"], result["promoted"]) == ("2", True)
    assert current_version(storage, "mnist") == "2"
    assert rollback(storage, "mnist") == "1"


def test_a_run_that_is_not_to_be_promoted_is_not(storage, publish_it):
    result = publish_it(promote=False)
    assert (result["version"], result["promoted"]) == ("1", False)
    assert current_version(storage, "mnist") is None


def test_a_run_cut_off_before_its_result_is_finished_as_it_was_begun(storage, publish_it):
    with pytest.raises(KeyboardInterrupt):
        publish_it(cut_off=True)
    assert Run(storage, "a").result() is None
    result = publish_it()
    assert (result["version"], result["promoted"]) == ("1", True)
    assert published_versions(storage, "mnist") == ["1"]


@pytest.mark.parametrize("replace", [rollback, lambda *model: promote(*model, "1")], ids=["rolled back", "promoted"])
def test_a_run_cut_off_before_its_result_takes_back_nothing_that_was_done_since(storage, publish_it, replace):
    publish(storage, run_id="earlier")
    promote(storage, "mnist", "1")
    with pytest.raises(KeyboardInterrupt):
        publish_it(cut_off=True)
    assert current_version(storage, "mnist") == "2"
    replace(storage, "mnist")
    result = publish_it()
    assert (result["version"], result["promoted"]) == ("2", False)
    assert current_version(storage, "mnist") == "1"
    assert "mnist/2 was current before and is not made current again, 1 stays" in " ".join(
        Run(storage, "a").status()["notes"]
    )
