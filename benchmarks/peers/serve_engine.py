"""LiteRT as the peers of benchmarks/serve.py use it, and the answer that ours gives.

``serve_engine.py WAY FOLDER THREADS SIZE SECONDS`` measures an engine alone, in a loop in one process, and prints one
JSON object: images per second. WAY is ``litert`` or ``predictor``, which is ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from engine_run import measure


class Engine:
    """LiteRT.

    Args:
        model: The model's file.
        threads: How many compute one batch.
    """

    def __init__(self, model: Path, threads: int = 1) -> None:
        self._interpreter = Interpreter(model_path=str(model), num_threads=threads)
        self._entrance = self._interpreter.get_input_details()[0]["index"]
        self._exits = [output["index"] for output in self._interpreter.get_output_details()]
        self._size = 0
        self.run(np.zeros((1, 28, 28), np.uint8))

    def run(self, images: Any) -> tuple[Any, Any]:
        """Probabilities and strangeness of uint8 (N, 28, 28)."""
        if len(images) != self._size:
            self._size = len(images)
            self._interpreter.resize_tensor_input(self._entrance, images.shape)
            self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._entrance, images)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._exits[0]), self._interpreter.get_tensor(self._exits[1])


def describe(probabilities: Any, strangeness: Any) -> dict[str, Any]:
    """The answer for one image, as ``/predict`` gives it."""
    digit = int(probabilities.argmax())
    found = {
        "digit": digit,
        "confidence": float(probabilities[digit]),
        "probabilities": probabilities.tolist(),
        "rejected": not float(strangeness) <= 1,
    }
    return {"predictions": [found], "model_version": "mnist/1"}


def answer(engine: Engine, pixels: bytes) -> dict[str, Any]:
    """The answer for the 784 bytes of one image, as ``/predict`` gives it."""
    probabilities, strangeness = engine.run(np.frombuffer(pixels, np.uint8).reshape(1, 28, 28))
    return describe(probabilities[0], strangeness[0])


def predictor(folder: Path, threads: int) -> Callable[[Any], Any]:
    """Our Predictor."""
    from mnist_core.predictor import load_predictor

    files = {path.name: path.read_bytes() for path in folder.glob("*.tflite")}
    return load_predictor(files, device="cpu", threads=threads).predict


def main(way: str, folder: Path, threads: int, size: int, seconds: float) -> None:
    """Measure and print."""
    run = predictor(folder, threads) if way == "predictor" else Engine(folder / "model.tflite", threads).run
    images = np.random.default_rng(0).integers(0, 256, (size, 28, 28), dtype=np.uint8)
    rate = measure(run, images, seconds / 4) and measure(run, images, seconds)
    print(json.dumps({"images_per_s": rate}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:5]), float(sys.argv[5]))
