"""What is published computes what was trained, in both forms, and loads without any code of ours."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mnist_core.export import export_model
from mnist_core.model import build_training_network
from mnist_core.predictor import Predictor

NETWORKS = ("convnet", "deepnet")
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
IMAGES[0], IMAGES[1] = 0, 255

LOAD_BOTH = """
import sys

import keras
import numpy as np

for name in sys.argv[1:]:
    model = keras.models.load_model(f"{name}.keras")
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    np.save(f"{name}.npy", model(np.load("images.npy")))
assert not {"mnist_core", "jobs"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def networks():
    """Networks whose weights have all left their initial values, biases and scales too."""
    rng = np.random.default_rng(1)
    built = {name: build_training_network(name, dropout=0.5, precision="float32", seed=3) for name in NETWORKS}
    for network in built.values():
        network.set_weights([weight + 0.1 * rng.normal(size=weight.shape) for weight in network.get_weights()])
    return built


@pytest.fixture(scope="module")
def exported(networks):
    return {name: export_model(network) for name, network in networks.items()}


@pytest.fixture(scope="module")
def loaded_with_keras(exported, tmp_path_factory):
    """Probabilities as a program computes them that knows Keras and nothing of ours."""
    folder = tmp_path_factory.mktemp("keras")
    np.save(folder / "images.npy", IMAGES)
    for name in NETWORKS:
        (folder / f"{name}.keras").write_bytes(exported[name]["model.keras"])
    subprocess.run([sys.executable, "-c", LOAD_BOTH, *NETWORKS], check=True, timeout=120, cwd=folder)
    return {name: np.load(folder / f"{name}.npy") for name in NETWORKS}


def trained(network):
    """Softmax of what a training network says outside of training."""
    logits = network([IMAGES[..., None].astype(np.float32), np.zeros(len(IMAGES), np.uint32)], training=False)
    exponentials = np.exp(logits.numpy().astype(np.float64))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert np.ptp(probabilities, axis=0).max() > 0.1, "the images must be told apart, else a test shows nothing"
    return probabilities


@pytest.mark.parametrize("name", NETWORKS)
def test_the_published_model_loads_with_keras_alone_and_computes_what_was_trained(networks, loaded_with_keras, name):
    probabilities = loaded_with_keras[name]
    assert (probabilities.shape, probabilities.dtype) == ((20, 10), np.float32)
    np.testing.assert_allclose(probabilities, trained(networks[name]), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_lite_model_computes_what_was_trained(networks, exported, name):
    probabilities = Predictor(exported[name]["model.tflite"]).predict(IMAGES)
    np.testing.assert_allclose(probabilities, trained(networks[name]), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_forms_are_all_that_is_exported(exported, name):
    assert sorted(exported[name]) == ["model.keras", "model.tflite"]
