"""From a trained network to the files that are published: calibrated, in Keras's form and in LiteRT's.

The two forms, ``model.keras`` and ``model.tflite``, compute one function. ``model.int8.tflite`` computes almost the
same with convolutions of 8-bit integers, and goes with them only where the validation split shows that nothing is lost.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mnist_core.calibration import Calibration, Observation, calibrate, disturb, softmax
from mnist_core.engines import OUTPUTS, LiteRtEngine, usable_cpus
from mnist_core.evaluation import Evaluation, count_predictions, evaluate_model
from mnist_core.model import IMAGE_SIDE, NUM_CLASSES, build_published_model, carry_weights
from mnist_core.predictor import LITERT_BLOCK, MODEL_FILES, load_predictor
from mnist_core.sampling import Purpose, permutation
from mnist_core.splits import Split

NUM_OBSERVED: Final = 2_500
"""Training images that the idea of a digit is fitted to, plain and disturbed. 20,000 give the same."""

NUM_REPRESENTATIVE: Final = 200
"""Training images whose activations decide the integers' scales. 50 and 500 give the same."""

MAX_INT8_LOSS_POINTS: Final = 0.02
"""Percentage points of validation accuracy that the integer model may lose: one image of 6,000."""

FLOAT_OPERATIONS: Final = (
    *("MEAN", "CONCATENATION", "SQRT", "SQUARE", "FULLY_CONNECTED", "REDUCE_MIN", "SOFTMAX"),
    *("PACK", "MAXIMUM", "LOG"),  # an ensemble's
)
"""What follows the convolutions stays in float32. All in integers, the notebook's network after 3 epochs had a loss of
0.0596 instead of 0.0493 and rejected 3% of the digits; like this it has 0.0494 and rejects 0.5%."""

Converter = Callable[[keras.Model, tuple[str, ...]], bytes]


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
    return {"model.keras": _to_keras(model), MODEL_FILES["float32"]: _convert(model, OUTPUTS)}


def export_int8(
    network: keras.Model, images: npt.NDArray[np.uint8], calibration: Calibration | None = None
) -> dict[str, bytes]:
    """Export a network with its convolutions in 8-bit integers.

    Args:
        network: As for ``export_model``.
        images: uint8 (N, 28, 28), whose activations decide the integers' scales: some hundred training images.
        calibration: Of this network with the same images' integers.

    Returns:
        ``model.int8.tflite``, which takes and gives what ``model.tflite`` does.
    """
    return {MODEL_FILES["int8"]: _quantize(_build(network, calibration), OUTPUTS, images)}


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
    digits = Split(np.concatenate([images, disturb(images, seed)]), np.tile(labels, 2))
    representative = images[:NUM_REPRESENTATIVE]

    def fit(convert: Converter) -> tuple[Calibration, Evaluation]:
        """The calibration, and what the network is worth without it."""
        seen = _observe(network, validation, convert, threads)
        raw = count_predictions(softmax(seen.logits).astype(np.float32), validation.labels).evaluate()
        return calibrate(_observe(network, digits, convert, threads), seen), raw

    calibration, raw = fit(_convert)
    files = export_model(network, calibration)
    exact = _measure(files, "float32", validation, threads)
    # Integers see textures a little differently, so they get a head of their own.
    int8_calibration, _ = fit(partial(_quantize, images=representative))
    int8_files = export_int8(network, representative, int8_calibration)
    rounded = _measure(int8_files, "int8", validation, threads)
    lost_points = 100 * (exact["accuracy"] - rounded["accuracy"])
    published = lost_points <= MAX_INT8_LOSS_POINTS
    return files | (int8_files if published else {}), {
        "calibration": {
            "temperature": calibration.temperature,
            "loss_before": raw.loss,
            "loss_after": exact["loss"],
            "ece_before": raw.ece,
            "ece_after": exact["ece"],
            "rejected_validation_fraction": exact["rejected"],
        },
        "int8": {
            "published": published,
            "lost_accuracy_points": lost_points,
            "loss": rounded["loss"],
            "ece": rounded["ece"],
            "rejected_validation_fraction": rounded["rejected"],
        },
    }


def _build(network: keras.Model, calibration: Calibration | None) -> keras.Model:
    model = build_published_model(network.name, members=len(network.outputs))
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


def _observe(network: keras.Model, data: Split, convert: Converter, threads: int | None) -> Observation:
    """Ask a network for textures and logits: as LiteRT computes them, since that is who will be asked later."""
    model = _build(network, None)
    outputs = {"texture": model.get_layer("whiten").input, "logits": model.get_layer("logits").output}
    probe = convert(keras.Model(model.input, outputs), tuple(outputs))
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


def _measure(files: Mapping[str, bytes], precision: str, data: Split, threads: int | None) -> dict[str, float]:
    """What the published form does, asked by whom everybody will ask."""
    predictor = load_predictor(files, device="cpu", precision=precision, threads=threads)
    evaluation, predictions = evaluate_model(predictor, data.images, data.labels)
    return {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "ece": evaluation.ece,
        "rejected": float(predictions.rejected.mean()),
    }


def _to_keras(model: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        model.save(path)
        return path.read_bytes()


def _convert(model: keras.Model, outputs: tuple[str, ...]) -> bytes:
    """Convert to LiteRT, for the outputs of these names in this order."""
    return bytes(_converter(model, outputs).convert())


def _quantize(model: keras.Model, outputs: tuple[str, ...], images: npt.NDArray[np.uint8]) -> bytes:
    """Convert to LiteRT with the convolutions in 8-bit integers, which are scaled to these images."""

    def representative() -> Iterator[list[npt.NDArray[np.uint8]]]:
        yield from ([image[None]] for image in images)

    converter = _converter(model, outputs)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(FLOAT_OPERATIONS))
    with warnings.catch_warnings():  # about an interpreter that TensorFlow starts itself
        warnings.simplefilter("ignore")
        # The converter itself quantizes all or nothing; its debugger can leave operations out.
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=representative, debug_options=options
        )
    return bytes(debugger.get_nondebug_quantized_model())


def _converter(model: keras.Model, outputs: tuple[str, ...]) -> tf.lite.TFLiteConverter:
    def compute(images: tf.Tensor) -> list[tf.Tensor]:
        found = model(images, training=False)
        return [found[output] for output in outputs]

    signature = tf.TensorSpec((None, IMAGE_SIDE, IMAGE_SIDE), tf.uint8, name="images")
    return tf.lite.TFLiteConverter.from_concrete_functions([tf.function(compute).get_concrete_function(signature)])
