"""Training in this process: what comes of it, what is told, and that it says so where its bits could differ."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_run import squares

TRAIN = """
import json, sys
import numpy as np
from mnist_core.config import TrainConfig
from mnist_core.local import train_here

assert not {"tensorflow", "keras", "ray"} & set(sys.modules)
config = TrainConfig(recipe="notebook", epochs=3, batch_size=20, learning_rate=3e-3, dataset=sys.argv[1])
lines = []
trained = train_here(config, on_epoch=lambda report: lines.append(str(report)))
again = train_here(config)
images = np.load(sys.argv[1])["x_test"]
print(json.dumps({
    "lines": lines,
    "history": trained.history,
    "epoch": trained.epoch,
    "files": sorted(trained.files),
    "same": all(map(np.array_equal, trained.model.get_weights(), again.model.get_weights())),
    "digits": trained.predictor.predict(images).digits.tolist(),
    "digits_of_keras": trained.model(images)["probabilities"].numpy().argmax(axis=1).tolist(),
    "ray": "ray" in sys.modules,
}))
"""

USED_BEFORE = """
import sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(3)
tf.zeros(1) + 1
from mnist_core.config import TrainConfig
from mnist_core.local import build_network

print(build_network(TrainConfig(recipe="notebook")).count_params())
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: TensorFlow is set up once in a process, and here other tests have done so."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "squares.npz"
    training, test = squares(400), squares(40)
    np.savez(path, x_train=training.images, y_train=training.labels, x_test=test.images, y_test=test.labels)
    return path


def test_training_here_gives_a_model_its_history_and_silence(dataset: Path):
    done = run(TRAIN, str(dataset))
    found = json.loads(done.stdout)
    assert done.stderr == "", "what TensorFlow and LiteRT have to say is kept quiet"
    assert [line.split("  loss ")[0] for line in found["lines"]] == ["epoch  1", "epoch  2", "epoch  3"]
    assert [report["epoch"] for report in found["history"]] == [1, 2, 3]
    accuracies = [report["validation_accuracy"] for report in found["history"]]
    assert found["epoch"] == 1 + accuracies.index(max(accuracies)), "the recipe selects the best epoch"
    assert set(found["files"]) >= {"model.keras", "model.tflite"}
    assert found["same"], "the same configuration gives the same bits"
    assert found["digits"] == found["digits_of_keras"]
    right = np.array(found["digits"]) == squares(40).labels
    assert right.mean() > 0.9
    assert not found["ray"]


def test_a_process_that_used_tensorflow_otherwise_is_told_that_bits_may_differ():
    done = run(USED_BEFORE)
    assert done.stdout == "34826\n"
    assert "TensorFlow has been used in this process before, with other threads" in done.stderr
    assert "restart the notebook's kernel" in done.stderr
