"""What is published computes what was trained, in every form, calibrated, and loads without any code of ours."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from digits import NOISE, exported, make_network, splits
from scipy import special

from mnist_core import export
from mnist_core.export import export_calibrated, export_model
from mnist_core.predictor import load_predictor
from mnist_core.splits import Split

NETWORKS = ("convnet", "deepnet", "convnet x 3")
IMAGES = np.concatenate([NOISE[:10], splits()[1].images[:10]])
IMAGES[0], IMAGES[1] = 0, 255

LOAD = """
import sys

import keras
import numpy as np

for name in sys.argv[1:]:
    model = keras.models.load_model(f"{name}.keras")
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    np.savez(f"{name}.npz", **model(np.load("images.npy")))
assert not {"mnist_core", "jobs"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def loaded_with_keras(tmp_path_factory):
    """What a program computes that knows Keras and nothing of ours: plain and calibrated models."""
    folder = tmp_path_factory.mktemp("keras")
    np.save(folder / "images.npy", IMAGES)
    for name in NETWORKS:
        (folder / f"{name}.keras").write_bytes(exported(name)[0]["model.keras"])
    (folder / "plain.keras").write_bytes(export_model(make_network("convnet"))["model.keras"])
    names = [*NETWORKS, "plain"]
    subprocess.run([sys.executable, "-c", LOAD, *names], check=True, timeout=120, cwd=folder)
    return {name: dict(np.load(folder / f"{name}.npz")) for name in names}


def trained(network, temperature=1.0):
    """What a training network says outside of training: the members' mean softmax, sharpened or softened."""
    seen = np.repeat(IMAGES[..., None], len(network.outputs), axis=-1).astype(np.float32)
    outputs = network([seen, np.zeros((len(IMAGES), len(network.outputs)), np.uint32)], training=False)
    members = outputs if isinstance(outputs, list) else [outputs]
    mean = np.mean([special.softmax(logits.numpy().astype(np.float64), axis=1) for logits in members], axis=0)
    probabilities = special.softmax(np.log(mean) / temperature, axis=1)
    assert np.ptp(probabilities, axis=0).max() > 0.02, "the images must be told apart, else a test shows nothing"
    return probabilities


def test_without_calibration_the_model_computes_what_was_trained_and_rejects_nothing(loaded_with_keras):
    outputs = loaded_with_keras["plain"]
    np.testing.assert_allclose(outputs["probabilities"], trained(make_network("convnet")), atol=1e-5)
    assert not outputs["strangeness"].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_with_calibration_the_logits_are_divided_by_the_temperature(loaded_with_keras, name):
    temperature = exported(name)[1]["calibration"]["temperature"]
    assert abs(temperature - 1) > 0.01
    probabilities = loaded_with_keras[name]["probabilities"]
    assert (probabilities.shape, probabilities.dtype) == ((20, 10), np.float32)
    np.testing.assert_allclose(probabilities, trained(make_network(name), temperature), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_lite_model_computes_what_the_keras_model_does(loaded_with_keras, name):
    predictions = load_predictor(exported(name)[0], device="cpu").predict(IMAGES)
    np.testing.assert_allclose(predictions.probabilities, loaded_with_keras[name]["probabilities"], atol=1e-5)
    assert np.array_equal(predictions.rejected, loaded_with_keras[name]["strangeness"] > 1)
    assert predictions.rejected[:10].all()


@pytest.mark.parametrize("name", NETWORKS)
def test_what_was_measured_is_what_the_published_model_does_on_the_validation_split(name):
    files, measured = exported(name)
    predictions = load_predictor(files, device="cpu").predict(splits()[1].images)
    calibration = measured["calibration"]
    assert calibration["rejected_validation_fraction"] == predictions.rejected.mean() <= 0.005
    assert calibration["loss_after"] < calibration["loss_before"]
    assert calibration["ece_after"] < calibration["ece_before"]


def test_what_the_calibration_sees_does_not_depend_on_the_number_of_threads():
    alone, shared = (
        export._observe(make_network("convnet"), splits()[1], export._convert, threads) for threads in (1, 3)
    )
    assert alone.textures.tobytes() == shared.textures.tobytes()
    assert alone.logits.tobytes() == shared.logits.tobytes()


def answers(files, precision):
    """Which digit the published form takes each validation image for."""
    predictor = load_predictor(files, device="cpu", precision=precision)
    return predictor.predict(splits()[1].images).probabilities.argmax(axis=1).astype(np.uint8)


def lost_points(files, labels):
    """Percentage points of accuracy that integers lose."""
    exact, rounded = (100 * (answers(files, precision) == labels).mean() for precision in ("float32", "int8"))
    return exact - rounded


@pytest.mark.parametrize("name", NETWORKS)
def test_integers_are_published_where_they_lose_next_to_nothing(name):
    files, measured = exported(name)
    lost = lost_points(files, splits()[1].labels)
    assert measured["int8"]["lost_accuracy_points"] == pytest.approx(lost, abs=1e-6)
    assert lost < 0.02
    assert measured["int8"]["published"] is True


def test_integers_are_not_published_where_they_err_and_float32_does_not():
    """The labels are float32's own answers, so integers are wrong wherever they answer something else."""
    both = exported("convnet x 3")[0]
    training, validation = splits()
    labels = answers(both, "float32")
    lost = lost_points(both, labels)
    assert lost > 0.02, "the two must differ on some image, else this shows nothing"
    network = make_network("convnet x 3")
    files, measured = export_calibrated(network, training, Split(validation.images, labels), seed=0)
    assert measured["int8"]["lost_accuracy_points"] == pytest.approx(lost, abs=1e-6)
    assert measured["int8"]["published"] is False
    assert sorted(files) == ["model.keras", "model.tflite"]
