"""From a trained network to the files that are published: calibrated, in Keras's form and in LiteRT's.

The two forms, ``model.keras`` and ``model.tflite``, compute one function. ``model.int8.tflite`` computes almost the
same with convolutions of 8-bit integers, and goes with them only where the validation split shows that nothing is lost.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_core.calibration import Calibration, Observation, calibrate, disturb, softmax
from mnist_core.engines import OUTPUTS, LiteRtEngine, usable_cpus
from mnist_core.evaluation import count_predictions
from mnist_core.model import IMAGE_SIDE, NUM_CLASSES, build_published_model, carry_weights
from mnist_core.predictor import LITERT_BLOCK, MODEL_FILES, load_predictor
from mnist_core.sampling import Purpose, permutation
from mnist_core.splits import Split

NUM_OBSERVED: Final = 5_000
"""Training images that the idea of a digit is fitted to. 2,500 and 20,000 give the same."""

NUM_REPRESENTATIVE: Final = 200
"""Training images whose activations decide the integers' scales. 50 and 500 give the same."""

MAX_INT8_LOSS_POINTS: Final = 0.02
"""Percentage points of validation accuracy that the integer model may lose: one image of 6,000."""

FLOAT_OPERATIONS: Final = ("MEAN", "CONCATENATION", "SQRT", "SQUARE", "FULLY_CONNECTED", "REDUCE_MIN", "SOFTMAX")
"""What follows the convolutions stays in float32. With all of it in integers, the notebook's network lost a fifth of
its loss (0.0493 to 0.0596) and rejected 3% of all digits; so it loses 0.0001 and rejects as before."""


def export_model(network: keras.Model, calibration: Calibration | None = None) -> dict[str, bytes]:
    """Export a network.

    Args:
        network: What ``build_training_network`` made, with its final weights.
        calibration: Of this network; without one, confidences are raw and nothing is rejected.

    Returns:
        ``model.keras``, stock Keras only, and ``model.tflite``, the same function for LiteRT. Both map uint8
        (N, 28, 28) to probabilities float32 (N, 10) and strangeness float32 (N,); above 1 it is no digit.
    """
    model = _build(network, calibration)
    return {"model.keras": _to_keras(model), "model.tflite": bytes(_converter(model, OUTPUTS).convert())}


def export_int8(
    network: keras.Model, calibration: Calibration | None, images: npt.NDArray[np.uint8]
) -> dict[str, bytes]:
    """Export a network with the convolutions in 8-bit integers.

    Args:
        network: As for ``export_model``.
        calibration: As for ``export_model``.
        images: uint8 (N, 28, 28), whose activations decide the integers' scales: some hundred training images.

    Returns:
        ``model.int8.tflite``, which takes and gives what ``model.tflite`` does.
    """

    def representative() -> Iterator[list[npt.NDArray[np.uint8]]]:
        yield from ([image[None]] for image in images)

    converter = _converter(_build(network, calibration), OUTPUTS)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(FLOAT_OPERATIONS))
    with warnings.catch_warnings():  # about an interpreter that TensorFlow starts itself
        warnings.simplefilter("ignore")
        # The converter itself quantizes all or nothing; its debugger can leave operations out.
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=representative, debug_options=options
        )
    return {MODEL_FILES["int8"]: bytes(debugger.get_nondebug_quantized_model())}


def export_calibrated(
    network: keras.Model, training: Split, validation: Split, *, seed: int, threads: int | None = None
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Calibrate a trained network and export it.

    The bits of the LiteRT models do not depend on ``threads``.

    Args:
        network: What ``build_training_network`` made, with its final weights.
        training: The training split.
        validation: The validation split, at least one image; the temperature and what is rejected are fitted to it.
        seed: Decides which training images are looked at.
        threads: Threads to use; None takes one for each CPU this process may use.

    Returns:
        The files, as of ``export_model`` and with ``model.int8.tflite`` if it is good enough; and what was measured on
        the validation split, as JSON values: ``calibration`` and ``int8``.
    """
    chosen = permutation(seed, Purpose.AUGMENT, 0, len(training))[:NUM_OBSERVED]
    images, labels = training.images[chosen], training.labels[chosen]
    both = Split(np.concatenate([images, disturb(images, seed)]), np.tile(labels, 2))
    observed = _observe(network, validation, threads)
    calibration = calibrate(_observe(network, both, threads), observed)
    files = export_model(network, calibration)
    before = count_predictions(softmax(observed.logits).astype(np.float32), validation.labels).evaluate()
    after = _measure(files, validation, "float32", threads)
    measured: dict[str, Any] = {
        "calibration": {
            "temperature": calibration.temperature,
            "loss_before": before.loss,
            "loss_after": after["loss"],
            "ece_before": before.ece,
            "ece_after": after["ece"],
            "rejected_validation_fraction": after["rejected_fraction"],
        }
    }
    quantized = export_int8(network, calibration, images[:NUM_REPRESENTATIVE])
    int8 = _measure(quantized, validation, "int8", threads)
    lost_points = 100 * (after["accuracy"] - int8["accuracy"])
    measured["int8"] = {
        "published": lost_points <= MAX_INT8_LOSS_POINTS,
        "lost_accuracy_points": lost_points,
        "loss": int8["loss"],
        "rejected_validation_fraction": int8["rejected_fraction"],
    }
    return (files | quantized if measured["int8"]["published"] else files), measured


def _build(network: keras.Model, calibration: Calibration | None) -> keras.Model:
    model = build_published_model(network.name)
    carry_weights(network, model)
    whiten, cost, logits = (model.get_layer(name) for name in ("whiten", "cost", "logits"))
    if calibration:
        whiten.set_weights(calibration.whiten)
        cost.set_weights(calibration.cost)
        logits.set_weights([weight / np.float32(calibration.temperature) for weight in logits.get_weights()])
    else:  # a strangeness of 0, whatever the image
        for layer in (whiten, cost):
            layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    return model


def _observe(network: keras.Model, data: Split, threads: int | None) -> Observation:
    """Ask a network, by LiteRT like everybody later, for textures and logits."""
    model = _build(network, None)
    outputs = {"texture": model.get_layer("whiten").input, "logits": model.get_layer("logits").output}
    probe = bytes(_converter(keras.Model(model.input, outputs), tuple(outputs)).convert())
    channels = outputs["texture"].shape[-1]
    signature = f"uint8 (-1, 28, 28) to float32 (-1, {channels}), float32 (-1, {NUM_CLASSES})"

    def run(images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        engine = LiteRtEngine("the network", probe, signature=signature)
        blocks = [images[start : start + LITERT_BLOCK] for start in range(0, len(images), LITERT_BLOCK)]
        return [np.concatenate(parts) for parts in zip(*map(engine.run, blocks), strict=True)]

    num_shares = min(threads or usable_cpus(), len(data))
    with ThreadPoolExecutor(num_shares) as pool:
        shares = list(pool.map(run, np.array_split(data.images, num_shares)))
    textures, logits = (np.concatenate(parts) for parts in zip(*shares, strict=True))
    return Observation(textures, logits, data.labels)


def _measure(files: Mapping[str, bytes], data: Split, precision: str, threads: int | None) -> dict[str, float]:
    predictions = load_predictor(files, device="cpu", precision=precision, threads=threads).predict(data.images)
    evaluation = count_predictions(predictions.probabilities, data.labels).evaluate()
    return {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "ece": evaluation.ece,
        "rejected_fraction": float(predictions.rejected.mean()),
    }


def _to_keras(model: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        model.save(path)
        return path.read_bytes()


def _converter(model: keras.Model, outputs: tuple[str, ...]) -> tf.lite.TFLiteConverter:
    """A converter to LiteRT, for the outputs of these names in this order."""

    def compute(images: tf.Tensor) -> list[tf.Tensor]:
        found = model(images, training=False)
        return [found[output] for output in outputs]

    signature = tf.TensorSpec((None, IMAGE_SIDE, IMAGE_SIDE), tf.uint8, name="images")
    return tf.lite.TFLiteConverter.from_concrete_functions([tf.function(compute).get_concrete_function(signature)])
