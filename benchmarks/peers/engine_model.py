"""The model that the engines run: ``engine_model.py FOLDER NETWORK`` exports a network, untrained, into a folder.

``model.tflite`` and ``model.int8.tflite`` are as a training publishes them; ``layers.json`` and ``layers.npz`` hold
the same layers for peers that read no format of ours. How long inference takes does not depend on the weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from mnist_core.calibration import Calibration
from mnist_core.export import export_int8, export_model
from mnist_core.model import NUM_CLASSES, build_published_model, build_training_network

RNG = np.random.default_rng(0)


def random_head(channels: int) -> Calibration:
    """A calibration whose every weight has a part in the answer."""

    def dense(num_inputs: int, num_units: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        scale = num_inputs**-0.5
        return RNG.normal(0, scale, (num_inputs, num_units)).astype(np.float32), np.full(num_units, scale, np.float32)

    return Calibration(1.5, dense(channels, channels), dense(2 * channels + NUM_CLASSES, NUM_CLASSES))


def main(folder: Path, name: str) -> None:
    """Export the network."""
    network = build_training_network(name, dropout=0.5, precision="float32", seed=0)
    calibration = random_head(build_published_model(name).get_layer("whiten").units)
    images = RNG.integers(0, 256, (100, 28, 28), dtype=np.uint8)
    for file, content in {**export_model(network, calibration), **export_int8(network, images, calibration)}.items():
        (folder / file).write_bytes(content)
    model = keras.models.load_model(folder / "model.keras")
    kinds = {layers.Conv2D: "convolution", layers.MaxPooling2D: "pooling", layers.Dense: "dense"}
    kept = [layer for layer in model.layers if type(layer) in kinds]
    facts = [
        {"kind": kinds[type(layer)], "name": layer.name, "padding": getattr(layer, "padding", "")} for layer in kept
    ]
    (folder / "layers.json").write_text(json.dumps(facts))
    weights = {f"{layer.name}/{index}": values for layer in kept for index, values in enumerate(layer.get_weights())}
    np.savez(folder / "layers.npz", **weights)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
