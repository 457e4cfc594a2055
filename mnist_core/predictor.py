"""The only way from pixels to digits: evaluation, batch scoring and the endpoint all ask this class.

The model file is the whole function, with calibrated confidence and the rejection of what is no digit inside, so
nobody who asks can disagree. On CPU it is run by LiteRT, and TensorFlow is never loaded. Decoding a file to pixels is
not done here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import Final

import numpy as np
import numpy.typing as npt

from mnist_core.engines import WAY_OUT, Engine, FasterEngine, LiteRtEngine, XlaEngine, gpu_is_usable, usable_cpus
from mnist_core.errors import ArtifactError, ConfigError, ResourcesError
from mnist_core.splits import IMAGE_SIZE, NUM_CLASSES

LITERT_BLOCK: Final = 16
"""Images LiteRT is given at once. 8 to 64 are the fastest, all alike; a fifth is lost at 1024, out of the cache."""

XLA_SIZES: Final = (1, 32, 1024)
"""Images a GPU is given at once. It hardly notices that a batch is filled up; each size is compiled at the start."""

LONE_THREADS: Final = 2
"""Threads that may compute few images together, if there are as many."""

LONE_IMAGES: Final = 64
"""Up to so many, two threads of one engine are faster than two engines, which have to be handed their blocks."""

MODEL_FILES: Final = {"float32": "model.tflite", "int8": "model.int8.tflite"}
"""What runs on CPU, by precision."""

_UINT8: Final = np.dtype(np.uint8)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of some images.

    Attributes:
        probabilities: float32 (N, 10), calibrated, every row with sum 1.
        strangeness: float32 (N,), how little an image looks like a digit; above 1 it is rejected.
    """

    probabilities: npt.NDArray[np.float32]
    strangeness: npt.NDArray[np.float32]

    @cached_property
    def rejected(self) -> npt.NDArray[np.bool_]:
        """Not a digit, as far as the model can tell: bool (N,). 0.5% of the validation digits are rejected."""
        return ~(self.strangeness <= 1)  # so that what is not a number is no digit either

    @property
    def digits(self) -> npt.NDArray[np.uint8]:
        """The most probable digit of each image: uint8 (N,)."""
        return np.asarray(self.probabilities.argmax(axis=1), np.uint8)

    @property
    def confidences(self) -> npt.NDArray[np.float32]:
        """The probability of that digit: float32 (N,)."""
        return np.asarray(self.probabilities.max(axis=1))


class Predictor:
    """Digits from images.

    On CPU an image gets the same answer, bit for bit, alone or in any batch and with any number of threads, on one kind
    of CPU. Any number of threads may ask one Predictor; each takes an engine that is free.

    Args:
        engines: Engines of one model, which share out what is more than a block; each is used by one thread at a time.
        block_size: The most images an engine is given at once.
        lone: An engine that answers few images faster than those do, for when nobody else asks.
    """

    def __init__(self, engines: Sequence[Engine], block_size: int, lone: Engine | None = None) -> None:
        self._block_size = block_size
        self._num_engines = len(engines)
        self._free: SimpleQueue[Engine] = SimpleQueue()
        self._lone: SimpleQueue[Engine] = SimpleQueue()
        self._helpers = ThreadPoolExecutor(len(engines), "predictor")
        for engine in engines:
            self._free.put(engine)
        if lone:
            self._lone.put(lone)

    def predict(self, images: npt.NDArray[np.uint8]) -> Predictions:
        """Classify images.

        Args:
            images: uint8 (N, 28, 28), ink bright on dark; N may be 0.

        Returns:
            The predictions, in the order of the images.

        Raises:
            ValueError: The images have another dtype or shape.
        """
        if images.dtype != _UINT8 or images.shape[1:] != IMAGE_SIZE:
            raise ValueError(f"images: received {images.dtype} {images.shape}, expected uint8 (N, 28, 28)")
        if 0 < len(images) <= LONE_IMAGES:
            try:
                engine = self._lone.get_nowait()
            except Empty:  # somebody else asks, or there is none
                pass
            else:
                return _run(self._lone, engine, images)
        if 0 < len(images) <= self._block_size:
            return _run(self._free, self._free.get(), images)
        predictions = Predictions(np.empty((len(images), NUM_CLASSES), np.float32), np.empty(len(images), np.float32))
        num_blocks = -(-len(images) // self._block_size)
        edges = [len(images) * index // max(1, num_blocks) for index in range(num_blocks + 1)]
        blocks = deque(map(slice, edges, edges[1:]))
        helpers = [
            self._helpers.submit(self._help, blocks, images, predictions)
            for _ in range(min(self._num_engines, num_blocks) - 1)
        ]
        engine = self._free.get()
        try:
            _fill(blocks, images, predictions, engine)
        finally:
            self._free.put(engine)
        for helper in helpers:
            if not helper.cancel():  # it has begun
                helper.result()
        return predictions

    def _help(self, blocks: deque[slice], images: npt.NDArray[np.uint8], predictions: Predictions) -> None:
        """Take part in a call if an engine is free; who calls has one, so nobody waits for help."""
        try:
            engine = self._free.get_nowait()
        except Empty:
            return
        try:
            _fill(blocks, images, predictions, engine)
        finally:
            self._free.put(engine)


def load_predictor(
    files: Mapping[str, bytes], *, device: str = "auto", precision: str = "float32", threads: int | None = None
) -> Predictor:
    """Load a published model, ready to answer.

    Args:
        files: The files of an artifact, by name.
        device: ``cpu``; ``gpu``, where answers depend on the batch in their last bits; or ``auto``: the GPU where there
            is one, for float32.
        precision: ``float32`` or, on CPU, ``int8``.
        threads: Threads on CPU; None takes one for each CPU this process may use.

    Raises:
        ArtifactError: The model is broken, or has not been published in that precision.
        ConfigError: There is no such device or precision, or not together.
        ResourcesError: There is no GPU.
    """
    if device not in ("auto", "cpu", "gpu"):
        raise ConfigError(f"device: received {device!r}, expected auto, cpu or gpu")
    if precision not in MODEL_FILES:
        raise ConfigError(f"precision: received {precision!r}, expected {' or '.join(MODEL_FILES)}")
    if device == "gpu" and precision == "int8":
        raise ConfigError("precision int8: runs on CPU only, expected float32 with device gpu")
    if device == "gpu" and not gpu_is_usable():
        raise ResourcesError("device gpu: found none that TensorFlow can use; use device cpu, or install the gpu extra")
    if device == "gpu" or (device == "auto" and precision == "float32" and gpu_is_usable()):
        return Predictor([XlaEngine("model.keras", _find(files, "model.keras"), XLA_SIZES)], XLA_SIZES[-1])
    name = MODEL_FILES[precision]
    model = _find(files, name)
    num_threads = threads or usable_cpus()
    engines = [LiteRtEngine(name, model) for _ in range(num_threads)]
    if num_threads < LONE_THREADS:
        return Predictor(engines, LITERT_BLOCK)
    lone = FasterEngine([LiteRtEngine(name, model, threads) for threads in (1, LONE_THREADS)])
    return Predictor(engines, LITERT_BLOCK, lone)


def _run(engines: SimpleQueue[Engine], engine: Engine, images: npt.NDArray[np.uint8]) -> Predictions:
    """Have one engine classify all images, and put it back; for one image, a microsecond counts."""
    try:
        probabilities, strangeness = engine.run(images)
    finally:
        engines.put(engine)
    return Predictions(probabilities, strangeness)


def _fill(blocks: deque[slice], images: npt.NDArray[np.uint8], predictions: Predictions, engine: Engine) -> None:
    """Classify one block after the other until none is left; several threads may take from the same blocks."""
    while True:
        try:
            block = blocks.popleft()
        except IndexError:
            return
        predictions.probabilities[block], predictions.strangeness[block] = engine.run(images[block])


def _find(files: Mapping[str, bytes], name: str) -> bytes:
    if name in files:
        return files[name]
    if name == MODEL_FILES["int8"]:
        raise ArtifactError(f"{name}: not published with this model, to which int8 costs accuracy; use float32")
    raise ArtifactError(f"{name}: not among the files of the model; {WAY_OUT}")
