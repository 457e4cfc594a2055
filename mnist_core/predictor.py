"""The only way from pixels to digits: evaluation, batch scoring and the endpoint all ask this class.

It runs the published ``model.tflite`` on LiteRT with XNNPACK, on CPU; TensorFlow is never loaded. Decoding a file to
pixels is not done here.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from mnist_core.errors import ArtifactError
from mnist_core.splits import IMAGE_SIZE, NUM_CLASSES

BLOCK_SIZE: Final = 32
"""Images the engine is given at once. 8 to 64 are the fastest, all alike; a fifth is lost at 1024, out of the cache."""

_EXPECTED: Final = "uint8 (-1, 28, 28) to float32 (-1, 10)"
_WAY_OUT: Final = "publish the model again, or name another version"


class Predictor:
    """Digit probabilities from images.

    An image gets the same probabilities, bit for bit, alone or in any batch and with any number of threads, on one
    kind of CPU: XNNPACK picks the order of its sums by layer, not by batch. The engine is warmed up when the
    constructor returns. Any number of threads may call one Predictor; calls take turns at its one engine.

    Args:
        model: Content of a ``model.tflite``: images uint8 (batch, 28, 28) to probabilities float32 (batch, 10).
        threads: Threads of the engine; None takes one for each CPU this process may use.

    Raises:
        ArtifactError: The bytes are no such model.
    """

    def __init__(self, model: bytes, threads: int | None = None) -> None:
        self._lock = threading.Lock()
        self._batch_size = 0
        try:
            self._engine = Interpreter(model_content=model, num_threads=threads or usable_cpus())
        except (ValueError, RuntimeError) as err:
            raise ArtifactError(
                f"model.tflite: received {len(model)} bytes, expected a LiteRT model; {_WAY_OUT}"
            ) from err
        inputs, outputs = self._engine.get_input_details(), self._engine.get_output_details()
        if (found := f"{_signature(inputs)} to {_signature(outputs)}") != _EXPECTED:
            raise ArtifactError(f"model.tflite: received {found}, expected {_EXPECTED}; {_WAY_OUT}")
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        self.predict(np.zeros((1, *IMAGE_SIZE), np.uint8))

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute the probability of each digit.

        Args:
            images: uint8 (N, 28, 28), ink bright on dark; N may be 0.

        Returns:
            float32 (N, 10), every row with sum 1.

        Raises:
            ValueError: The images have another dtype or shape.
        """
        if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SIZE:
            raise ValueError(f"images: received {images.dtype} {images.shape}, expected uint8 (N, 28, 28)")
        probabilities = np.empty((len(images), NUM_CLASSES), np.float32)
        with self._lock:
            for start in range(0, len(images), BLOCK_SIZE):
                block = images[start : start + BLOCK_SIZE]
                probabilities[start : start + len(block)] = self._predict_block(block)
        return probabilities

    def _predict_block(self, block: npt.NDArray[np.uint8]) -> Any:
        if len(block) != self._batch_size:  # about 10 microseconds: cheaper than padding
            self._engine.resize_tensor_input(self._input, block.shape)
            self._engine.allocate_tensors()
            self._batch_size = len(block)
        self._engine.set_tensor(self._input, block)
        self._engine.invoke()
        return self._engine.get_tensor(self._output)


def usable_cpus() -> int:
    """Count the CPUs this process may use, which in a container or under Ray can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _signature(tensors: list[dict[str, Any]]) -> str:
    return ", ".join(f"{np.dtype(each['dtype'])} {tuple(each['shape_signature'].tolist())}" for each in tensors)
