"""What ``load_predictor`` takes and what it refuses, with one line that says why."""

from __future__ import annotations

import numpy as np
import pytest
from digits import NOISE, make_network

from mnist_core import engines
from mnist_core.engines import XlaEngine
from mnist_core.errors import ArtifactError, ConfigError, ResourcesError
from mnist_core.predictor import Predictor, load_predictor


@pytest.fixture(scope="module")
def published():
    from mnist_core.export import export_model

    return export_model(make_network("convnet"))


def convert(function, *signature):
    import tensorflow as tf

    module = tf.Module()
    module.function = tf.function(function, input_signature=signature)
    return tf.lite.TFLiteConverter.from_concrete_functions([module.function.get_concrete_function()], module).convert()


def load(model):
    return load_predictor({"model.tflite": model}, device="cpu")


@pytest.mark.parametrize("cut", [0, 1, 100, 10_000, -1000])
def test_a_cut_off_model_is_refused(published, cut):
    with pytest.raises(ArtifactError, match=r"model\.tflite: received \d+ bytes, expected a LiteRT model"):
        load(published["model.tflite"][:cut])


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(ArtifactError, match="received 9000 bytes"):
        load(b"not model" * 1000)


def test_a_model_without_strangeness_is_refused_and_the_message_says_what_one_must_look_like():
    import tensorflow as tf

    old = convert(lambda images: tf.cast(images, tf.float32)[:, 0, :10], tf.TensorSpec((None, 28, 28), tf.uint8))
    with pytest.raises(ArtifactError, match=r"expected uint8 \(-1, 28, 28\) to float32 \(-1, 10\), float32 \(-1,\); "):
        load(old)


def test_a_model_with_other_inputs_is_refused():
    import tensorflow as tf

    model = convert(lambda images: tf.reduce_sum(images, axis=1)[:, :10], tf.TensorSpec((None, 28, 28), tf.float32))
    with pytest.raises(ArtifactError, match=r"received float32 .* expected uint8"):
        load(model)


def test_a_model_with_two_inputs_is_refused():
    import tensorflow as tf

    spec = tf.TensorSpec((None, 28, 28), tf.uint8)
    model = convert(
        lambda images, more: tf.cast(images, tf.float32)[:, 0, :10] + tf.cast(more, tf.float32)[:, 0, :10], spec, spec
    )
    with pytest.raises(ArtifactError, match=r"received uint8 .*, uint8 .* expected uint8"):
        load(model)


def test_a_missing_file_is_named():
    with pytest.raises(ArtifactError, match=r"model\.tflite: not among the files of the model; publish"):
        load_predictor({"model.keras": b""}, device="cpu")


def test_integers_are_refused_where_they_were_not_published(published):
    with pytest.raises(ArtifactError, match=r"^model\.int8\.tflite: not published with this model.*; use float32$"):
        load_predictor(published, precision="int8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device: received 'tpu', expected auto, cpu or gpu"),
        ({"precision": "int4"}, "precision: received 'int4', expected float32 or int8"),
        ({"device": "gpu", "precision": "int8"}, "precision int8: runs on CPU only"),
    ],
)
def test_what_there_is_not_is_refused(published, options, message):
    with pytest.raises(ConfigError, match=message):
        load_predictor(published, **options)


def test_no_gpu_is_found_where_they_are_hidden(published, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not engines.gpu_is_usable()
    with pytest.raises(ResourcesError, match="device gpu: found none that TensorFlow can use"):
        load_predictor(published, device="gpu")


def test_what_runs_on_a_gpu_computes_the_same(published):
    # XLA compiles for the CPU too, so all but the device is tested here.
    engine = XlaEngine("model.keras", published["model.keras"], (64,))
    answers = Predictor([engine], 64).predict(NOISE)
    expected = load(published["model.tflite"]).predict(NOISE)
    np.testing.assert_allclose(answers.probabilities, expected.probabilities, atol=1e-5)
    assert np.array_equal(answers.rejected, expected.rejected)


def test_what_runs_on_a_gpu_refuses_bytes_that_are_no_model():
    with pytest.raises(ArtifactError, match=r"model\.keras: received 9 bytes, expected a Keras model"):
        XlaEngine("model.keras", b"not model", (1,))


def test_what_runs_on_a_gpu_refuses_a_model_with_other_outputs(tmp_path):
    import keras

    images = keras.Input((28, 28), dtype="uint8")
    keras.Model(images, keras.ops.cast(images, "float32")[:, 0, :10]).save(tmp_path / "model.keras")
    with pytest.raises(ArtifactError, match="expected probabilities and strangeness"):
        XlaEngine("model.keras", (tmp_path / "model.keras").read_bytes(), (1,))
