"""From trained weights to the two forms of the published model: ``model.keras`` and ``model.tflite``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from mnist_core.model import IMAGE_SIDE, build_published_model, publish_weights


def export_model(network: keras.Model) -> dict[str, bytes]:
    """Export a trained network.

    Args:
        network: What ``build_training_network`` made, with its final weights.

    Returns:
        ``model.keras``, stock Keras layers only, and ``model.tflite``, the same function for LiteRT. Both take
        uint8 (N, 28, 28) and give probabilities float32 (N, 10).
    """
    model = build_published_model(network.name)
    model.set_weights(publish_weights(network))
    return {"model.keras": _to_keras(model), "model.tflite": _to_tflite(model)}


def _to_keras(model: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        model.save(path)
        return path.read_bytes()


def _to_tflite(model: keras.Model) -> bytes:
    signature = tf.TensorSpec((None, IMAGE_SIDE, IMAGE_SIDE), tf.uint8, name="images")
    function = tf.function(lambda images: model(images, training=False)).get_concrete_function(signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    return bytes(converter.convert())
