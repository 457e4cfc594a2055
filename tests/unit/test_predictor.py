"""The same answer for an image whoever asks, in whatever batch and on however many threads."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from digits import NOISE, exported, splits

from mnist_core.engines import CALLS_A_ROUND, CALLS_A_TRY, FasterEngine, LiteRtEngine
from mnist_core.evaluation import evaluate_model
from mnist_core.predictor import LITERT_BLOCK, Predictor, load_predictor

IMAGES = np.concatenate([NOISE[:40], splits()[1].images[:61]])
SIZES = [1, 2, 3, LITERT_BLOCK - 1, LITERT_BLOCK, LITERT_BLOCK + 1, 2 * LITERT_BLOCK, 50, 100]


@pytest.fixture(scope="module", params=["convnet", "deepnet"])
def published(request):
    return exported(request.param)[0]


@pytest.fixture(scope="module")
def predictor(published):
    return load_predictor(published, device="cpu")


@pytest.fixture(scope="module")
def expected(predictor):
    predictions = predictor.predict(IMAGES)
    assert predictions.rejected[:40].all(), "noise must be no digit, and most digits must be one"
    assert predictions.rejected[40:].mean() < 0.2
    return predictions


def bits(*predictions):
    return [each.probabilities.view(np.uint32).tolist() + each.rejected.tolist() for each in predictions]


def joined(parts):
    return np.concatenate([part.probabilities for part in parts]), np.concatenate([part.rejected for part in parts])


def test_predictions_are_those_of_the_keras_model(published, expected, tmp_path):
    import keras

    (tmp_path / "model.keras").write_bytes(published["model.keras"])
    outputs = keras.models.load_model(tmp_path / "model.keras")(IMAGES)
    np.testing.assert_allclose(expected.probabilities, outputs["probabilities"].numpy(), atol=2e-6)
    np.testing.assert_allclose(expected.probabilities.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(expected.rejected, outputs["strangeness"].numpy() > 1)


def test_digits_and_confidences_are_those_of_the_most_probable_class(expected):
    assert (expected.digits.dtype, expected.confidences.dtype) == (np.uint8, np.float32)
    assert np.array_equal(expected.probabilities[np.arange(len(IMAGES)), expected.digits], expected.confidences)
    assert (expected.confidences[:, None] >= expected.probabilities).all()


@pytest.mark.parametrize("size", SIZES)
def test_an_image_gets_the_same_bits_whatever_batch_it_is_in(predictor, expected, size):
    parts = [predictor.predict(IMAGES[start : start + size]) for start in range(0, len(IMAGES), size)]
    probabilities, rejected = joined(parts)
    assert np.array_equal(probabilities.view(np.uint32), expected.probabilities.view(np.uint32))
    assert np.array_equal(rejected, expected.rejected)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_image_gets_the_same_bits_with_any_number_of_threads(published, expected, threads):
    predictor = load_predictor(published, device="cpu", threads=threads)
    assert bits(predictor.predict(IMAGES)) == bits(expected)
    assert predictor.predict(IMAGES[:1]).probabilities.tobytes() == expected.probabilities[:1].tobytes()
    together = LiteRtEngine("model.tflite", published["model.tflite"], threads)
    assert together.run(IMAGES[:7])[0].tobytes() == expected.probabilities[:7].tobytes()


def test_another_process_gets_the_same_bits_and_never_loads_tensorflow(published, expected, tmp_path):
    program = """if True:
        import sys
        import numpy as np
        from mnist_core.predictor import load_predictor

        model, images, answers = sys.argv[1:]
        predictions = load_predictor({"model.tflite": open(model, "rb").read()}, device="cpu").predict(np.load(images))
        np.savez(answers, probabilities=predictions.probabilities, rejected=predictions.rejected)
        assert not {"tensorflow", "keras", "ray"} & set(sys.modules)
    """
    (tmp_path / "model.tflite").write_bytes(published["model.tflite"])
    np.save(tmp_path / "images.npy", IMAGES)
    paths = [str(tmp_path / name) for name in ("model.tflite", "images.npy", "answers.npz")]
    subprocess.run([sys.executable, "-c", program, *paths], check=True, timeout=120)
    with np.load(paths[2]) as answers:
        assert np.array_equal(answers["probabilities"].view(np.uint32), expected.probabilities.view(np.uint32))
        assert np.array_equal(answers["rejected"], expected.rejected)


def test_many_threads_may_share_one_predictor(predictor, expected):
    spans = [(start, start + 1 + 7 * start % 60) for start in range(40)] * 3
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda span: predictor.predict(IMAGES[slice(*span)]), spans))
    for span, answer in zip(spans, answers, strict=True):
        assert answer.probabilities.tobytes() == expected.probabilities[slice(*span)].tobytes()
        assert answer.rejected.tobytes() == expected.rejected[slice(*span)].tobytes()


class Jealous:
    """An engine that refuses to be used by two threads at once, and says of every image that it is no number."""

    def __init__(self):
        self._busy = threading.Lock()
        self.sizes = []

    def run(self, images):
        assert self._busy.acquire(blocking=False), "two threads at once"
        self.sizes.append(len(images))
        answers = [np.full((len(images), 10), 0.1, np.float32), np.full(len(images), np.nan, np.float32)]
        self._busy.release()
        return answers


def test_an_engine_is_used_by_one_thread_at_a_time_and_given_no_more_than_a_block():
    engines, lone = [Jealous(), Jealous(), Jealous()], Jealous()
    predictor = Predictor(engines, 32, lone)
    with ThreadPoolExecutor(8) as pool:
        sizes = [1, 300, 4, 75, 8, 9, 200, 2] * 5
        answers = list(pool.map(lambda size: predictor.predict(np.zeros((size, 28, 28), np.uint8)), sizes))
    assert [len(answer.rejected) for answer in answers] == sizes
    assert all(size <= 32 for engine in engines for size in engine.sizes)
    assert lone.sizes


class Slow(Jealous):
    """An engine that takes its time."""

    def __init__(self):
        super().__init__()
        self.seconds = 0.0

    def run(self, images):
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            pass
        return super().run(images)


def test_of_two_engines_the_faster_is_used_and_the_other_one_tried_again():
    one, two = Slow(), Slow()
    engine = FasterEngine([one, two])
    two.seconds = 1e-4
    for _ in range(100):
        engine.run(IMAGES[:1])
    assert len(two.sizes) == CALLS_A_TRY
    one.seconds, two.seconds = 2e-4, 0.0
    for _ in range(100, CALLS_A_ROUND + 2 * CALLS_A_TRY):
        engine.run(IMAGES[:1])
    before = len(one.sizes)
    for _ in range(50):
        engine.run(IMAGES[:1])
    assert len(one.sizes) == before


def test_a_strangeness_that_is_no_number_is_rejected():
    predictor = Predictor([Jealous()], 32)
    assert predictor.predict(IMAGES[:1]).rejected.all()
    assert predictor.predict(IMAGES).rejected.all()


def test_an_answer_is_not_overwritten_by_the_next_one(predictor, expected):
    first = predictor.predict(IMAGES[:5])
    predictor.predict(IMAGES[5:10])
    assert first.probabilities.tobytes() == expected.probabilities[:5].tobytes()


def test_no_images_give_no_predictions(predictor):
    predictions = predictor.predict(IMAGES[:0])
    assert (predictions.probabilities.shape, predictions.probabilities.dtype) == ((0, 10), np.float32)
    assert (predictions.rejected.shape, predictions.rejected.dtype) == ((0,), np.bool_)
    assert (predictions.digits.shape, predictions.confidences.shape) == ((0,), (0,))


def test_strided_and_read_only_images_are_read_right(predictor, expected):
    assert predictor.predict(IMAGES[::-2]).probabilities.tobytes() == expected.probabilities[::-2].tobytes()
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


def test_the_integer_model_gives_almost_the_same_answers_in_the_same_way(published, expected):
    predictor = load_predictor(published, device="cpu", precision="int8", threads=2)
    predictions = predictor.predict(IMAGES)
    np.testing.assert_allclose(predictions.probabilities, expected.probabilities, atol=0.05)
    assert not np.array_equal(predictions.probabilities, expected.probabilities)
    assert np.mean(predictions.rejected != expected.rejected) < 0.05
    assert predictor.predict(IMAGES[:1]).probabilities.tobytes() == predictions.probabilities[:1].tobytes()


def test_evaluating_a_model_counts_every_image_and_leaves_none_out_that_is_rejected(predictor, expected):
    labels = np.arange(len(IMAGES), dtype=np.uint8) % 10
    evaluation, predictions = evaluate_model(predictor, IMAGES, labels)
    assert evaluation.count == len(IMAGES)
    assert evaluation.correct == (expected.digits == labels).sum()
    assert bits(predictions) == bits(expected)
