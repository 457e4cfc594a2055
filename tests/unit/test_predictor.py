from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mnist_core.errors import ArtifactError
from mnist_core.evaluation import evaluate_model
from mnist_core.predictor import BLOCK_SIZE, Predictor

IMAGES = np.random.default_rng(0).integers(0, 256, (101, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module", params=["convnet", "deepnet"])
def published(request):
    from mnist_core.export import export_model
    from mnist_core.model import build_training_network

    return export_model(build_training_network(request.param, dropout=0.5, precision="float32", seed=1))


@pytest.fixture(scope="module")
def predictor(published):
    return Predictor(published["model.tflite"])


@pytest.fixture(scope="module")
def expected(predictor):
    return predictor.predict(IMAGES)


def bits(probabilities):
    return probabilities.view(np.uint32).tolist()


def convert(function, *signature):
    import tensorflow as tf

    module = tf.Module()
    module.function = tf.function(function, input_signature=signature)
    return tf.lite.TFLiteConverter.from_concrete_functions([module.function.get_concrete_function()], module).convert()


def test_probabilities_are_those_of_the_keras_model(published, expected, tmp_path):
    import keras

    (tmp_path / "model.keras").write_bytes(published["model.keras"])
    model = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(expected, model(IMAGES).numpy(), atol=2e-6)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 64, 100])
def test_an_image_gets_the_same_bits_whatever_batch_it_is_in(predictor, expected, size):
    parts = [predictor.predict(IMAGES[start : start + size]) for start in range(0, len(IMAGES), size)]
    assert bits(np.concatenate(parts)) == bits(expected)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_image_gets_the_same_bits_with_any_number_of_threads(published, expected, threads):
    assert bits(Predictor(published["model.tflite"], threads).predict(IMAGES)) == bits(expected)


def test_another_process_gets_the_same_bits_and_never_loads_tensorflow(published, expected, tmp_path):
    program = """if True:
        import sys
        import numpy as np
        from mnist_core.predictor import Predictor

        model, images, probabilities = sys.argv[1:]
        np.save(probabilities, Predictor(open(model, "rb").read()).predict(np.load(images)))
        assert not {"tensorflow", "keras", "ray"} & set(sys.modules)
    """
    (tmp_path / "model.tflite").write_bytes(published["model.tflite"])
    np.save(tmp_path / "images.npy", IMAGES)
    paths = [str(tmp_path / name) for name in ("model.tflite", "images.npy", "probabilities.npy")]
    subprocess.run([sys.executable, "-c", program, *paths], check=True, timeout=120)
    assert bits(np.load(tmp_path / "probabilities.npy")) == bits(expected)


def test_many_threads_may_share_one_predictor(predictor, expected):
    spans = [(start, start + 1 + 7 * start % 60) for start in range(40)] * 3
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda span: predictor.predict(IMAGES[slice(*span)]), spans))
    for span, answer in zip(spans, answers, strict=True):
        assert bits(answer) == bits(expected[slice(*span)])


def test_an_answer_is_not_overwritten_by_the_next_one(predictor, expected):
    first = predictor.predict(IMAGES[:5])
    predictor.predict(IMAGES[5:10])
    assert bits(first) == bits(expected[:5])


def test_no_images_give_no_probabilities(predictor):
    probabilities = predictor.predict(IMAGES[:0])
    assert (probabilities.shape, probabilities.dtype) == ((0, 10), np.float32)


def test_strided_and_read_only_images_are_read_right(predictor, expected):
    assert bits(predictor.predict(IMAGES[::-2])) == bits(expected[::-2])
    frozen = IMAGES.transpose(0, 2, 1).copy().transpose(0, 2, 1)
    frozen.flags.writeable = False
    assert bits(predictor.predict(frozen)) == bits(expected)


@pytest.mark.parametrize(
    "images",
    [IMAGES.astype(np.float32), IMAGES.astype(np.int64), IMAGES[0], IMAGES[..., None], IMAGES[:, 1:], IMAGES.ravel()],
    ids=lambda images: f"{images.dtype}{images.shape}",
)
def test_images_of_another_form_are_refused(predictor, images):
    with pytest.raises(ValueError, match=r"images: received .*, expected uint8 \(N, 28, 28\)"):
        predictor.predict(images)


@pytest.mark.parametrize("cut", [0, 1, 100, 10_000, -1000])
def test_a_cut_off_model_is_refused(published, cut):
    with pytest.raises(ArtifactError, match=r"model\.tflite: received \d+ bytes, expected a LiteRT model"):
        Predictor(published["model.tflite"][:cut])


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(ArtifactError, match="received 9000 bytes"):
        Predictor(b"not model" * 1000)


def test_a_model_with_other_inputs_is_refused():
    import tensorflow as tf

    model = convert(lambda images: tf.reduce_sum(images, axis=1)[:, :10], tf.TensorSpec((None, 28, 28), tf.float32))
    with pytest.raises(ArtifactError, match=r"received float32 .* expected uint8"):
        Predictor(model)


def test_a_model_with_two_inputs_is_refused():
    import tensorflow as tf

    spec = tf.TensorSpec((None, 28, 28), tf.uint8)
    model = convert(
        lambda images, more: tf.cast(images, tf.float32)[:, 0, :10] + tf.cast(more, tf.float32)[:, 0, :10], spec, spec
    )
    with pytest.raises(ArtifactError, match=r"received uint8 .*, uint8 .* expected uint8"):
        Predictor(model)


def test_evaluating_a_model_counts_every_image(predictor, expected):
    labels = np.arange(len(IMAGES), dtype=np.uint8) % 10
    evaluation, probabilities = evaluate_model(predictor, IMAGES, labels)
    assert evaluation.count == len(IMAGES)
    assert evaluation.correct == (expected.argmax(axis=1) == labels).sum()
    assert bits(probabilities) == bits(expected)
