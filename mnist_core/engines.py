"""What runs a published model: LiteRT on CPU, TensorFlow with XLA on a GPU. Which one is the predictor's choice.

TensorFlow is imported to make an ``XlaEngine``, or to ask it for a GPU where the driver shows one, and never else.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from mnist_core.errors import ArtifactError
from mnist_core.splits import IMAGE_SIZE, NUM_CLASSES

WAY_OUT: Final = "publish the model again, or name another version"
OUTPUTS: Final = ("probabilities", "strangeness")
SIGNATURE: Final = f"uint8 (-1, 28, 28) to float32 (-1, {NUM_CLASSES}), float32 (-1,)"
"""Of a published model: images to probabilities and strangeness."""

CALLS_A_ROUND: Final = 256
"""So often is it found out anew which engine is the fastest."""

CALLS_A_TRY: Final = 6
"""So many calls in a row for each engine; the first only wakes its threads up, and says nothing of how fast it is."""

Images = npt.NDArray[np.uint8]
Outputs = Sequence[npt.NDArray[np.float32]]


class Engine(Protocol):
    """Something that computes a model's outputs for uint8 (N, 28, 28), N at least 1; not for two threads at once."""

    def run(self, images: Images) -> Outputs:
        """Compute each output for all images."""


class LiteRtEngine:
    """A model on LiteRT with XNNPACK, on CPU, warmed up.

    An image gets the same outputs, bit for bit, in whatever batch it is, on one kind of CPU: XNNPACK picks the order of
    its sums by layer, not by batch.

    Args:
        name: What to call the model in an error.
        model: Content of a ``.tflite`` file that takes uint8 (batch, 28, 28).
        threads: Threads that compute together.
        signature: What inputs and outputs it must have.

    Raises:
        ArtifactError: The bytes are no model, or one with other inputs or outputs.
    """

    def __init__(self, name: str, model: bytes, threads: int = 1, signature: str = SIGNATURE) -> None:
        try:
            self._interpreter = Interpreter(model_content=model, num_threads=threads)
        except (ValueError, RuntimeError) as err:
            raise ArtifactError(f"{name}: received {len(model)} bytes, expected a LiteRT model; {WAY_OUT}") from err
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if (found := f"{_describe(inputs)} to {_describe(outputs)}") != signature:
            raise ArtifactError(f"{name}: received {found}, expected {signature}; {WAY_OUT}")
        self._input = inputs[0]["index"]
        self._outputs = [output["index"] for output in outputs]
        self._batch_size = 0
        self.run(np.zeros((1, *IMAGE_SIZE), np.uint8))

    def run(self, images: Images) -> Outputs:
        """Compute each output for all images."""
        interpreter = self._interpreter
        if len(images) != self._batch_size:  # about 10 microseconds: cheaper than padding
            interpreter.resize_tensor_input(self._input, images.shape)
            interpreter.allocate_tensors()
            self._batch_size = len(images)
        interpreter.set_tensor(self._input, images)
        interpreter.invoke()
        return [interpreter.get_tensor(output) for output in self._outputs]


class FasterEngine:
    """Whichever of several engines of one model has been the fastest of late.

    Two threads answer one image in a third less time than one where each has a core for itself, and in almost twice the
    time where they have not; which of the two is the case changes with what else the machine does.

    Args:
        engines: The engines.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self._fastest = engines[0]
        self._num_calls = 0
        self._tries = [0.0] * (len(engines) * CALLS_A_TRY)

    def run(self, images: Images) -> Outputs:
        """Compute each output for all images."""
        call = self._num_calls
        self._num_calls = (call + 1) % CALLS_A_ROUND
        return self._try(call, images) if call < len(self._tries) else self._fastest.run(images)

    def _try(self, call: int, images: Images) -> Outputs:
        """Time one engine; after the last try the one with the smallest median is the fastest."""
        started = time.perf_counter()
        outputs = self._engines[call // CALLS_A_TRY].run(images)
        self._tries[call] = (time.perf_counter() - started) / len(images)
        if call == len(self._tries) - 1:
            # The median, since a call that the system interrupted says little.
            medians = [median(self._tries[first + 1 : first + CALLS_A_TRY]) for first in range(0, call, CALLS_A_TRY)]
            self._fastest = self._engines[medians.index(min(medians))]
        return outputs


class XlaEngine:
    """A model on TensorFlow, on the GPU if there is one, compiled by XLA for a few batch sizes and warmed up.

    Args:
        name: What to call the model in an error.
        model: Content of a ``model.keras``.
        sizes: The batch sizes, growing; images are filled up to the next one, and more than the last are too many.

    Raises:
        ArtifactError: The bytes are no such model.
    """

    def __init__(self, name: str, model: bytes, sizes: Sequence[int]) -> None:
        import keras
        import tensorflow as tf

        with suppress(RuntimeError):  # TensorFlow is at work in this process already, and has what it wanted
            for device in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(device, True)
        # Else an NVIDIA GPU rounds the inputs of a convolution to 10 bits, and answers differ from those of a CPU.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.keras")
            path.write_bytes(model)
            try:
                loaded = keras.models.load_model(path, compile=False, safe_mode=True)
            except (OSError, ValueError, TypeError, KeyError) as err:
                raise ArtifactError(f"{name}: received {len(model)} bytes, expected a Keras model; {WAY_OUT}") from err
        found = loaded.output
        if not isinstance(found, dict) or set(found) != set(OUTPUTS):
            raise ArtifactError(f"{name}: received other outputs, expected {' and '.join(OUTPUTS)}; {WAY_OUT}")

        def compute(images: tf.Tensor) -> list[tf.Tensor]:
            outputs = loaded(images, training=False)
            return [outputs[output] for output in OUTPUTS]

        self._compute = tf.function(compute, jit_compile=True)
        self._sizes = sizes
        for size in sizes:
            self.run(np.zeros((size, *IMAGE_SIZE), np.uint8))

    def run(self, images: Images) -> Outputs:
        """Compute each output for all images."""
        size = next(size for size in self._sizes if size >= len(images))
        padded = np.zeros((size, *IMAGE_SIZE), np.uint8)
        padded[: len(images)] = images
        return [output.numpy()[: len(images)] for output in self._compute(padded)]


def usable_cpus() -> int:
    """Count the CPUs this process may use, which in a container or under Ray can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_is_usable() -> bool:
    """Whether this process may use an NVIDIA GPU. Where the driver shows none, TensorFlow is not loaded to ask."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _describe(tensors: list[dict[str, Any]]) -> str:
    return ", ".join(f"{np.dtype(each['dtype'])} {tuple(each['shape_signature'].tolist())}" for each in tensors)
