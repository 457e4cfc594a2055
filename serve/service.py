"""What a replica does for every protocol: find the model, decode, batch, and keep within the limits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from mnist_core.config_serve import ServeConfig
from mnist_core.cutting import Digits
from mnist_core.engines import usable_cpus
from mnist_core.errors import DeadlineError, ImageBlankError, ImageError, OverloadedError, RequestTooLargeError
from mnist_core.images import ImageLimits, decode_image, prepare_images
from mnist_core.predictor import Predictions
from mnist_core.splits import IMAGE_SIZE
from serve import split
from serve.access_log import AccessLog
from serve.api_keys import ApiKeys
from serve.batching import Batcher
from serve.calls import Call
from serve.metrics import FLUSH_S, Metrics
from serve.models import ServedModel, ServedModels

FOLLOW_INTERVAL_S: Final = 1.0
"""How often the registry's pointer is read."""

Decoded = TypeVar("Decoded")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found in the images of one request.

    Attributes:
        model: Who computed all of it.
        pixels: uint8 (N, 28, 28): what the model saw; zeros where an image was bad.
        predictions: Of all N; meaningless where an image was bad.
        errors: Position to what was wrong with that image.
        frames: Position to the number of frames or pages, where there are several: the first was read.
    """

    model: ServedModel
    pixels: npt.NDArray[np.uint8]
    predictions: Predictions
    errors: dict[int, ImageError]
    frames: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SplitAnswer:
    """What was found in the pictures of one request.

    Attributes:
        model: Who computed all of it.
        digits: Of each picture, by position.
        errors: Position to what was wrong with that picture.
    """

    model: ServedModel
    digits: dict[int, Digits]
    errors: dict[int, ImageError]


class Service:
    """One replica's work; to be made and used on one event loop.

    Args:
        config: What is served, and how.

    Raises:
        ArtifactError: The model is broken.
        ConfigError: The file with API keys holds none.
        ModelNotFoundError: There is no such model.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.limits = ImageLimits(config.max_image_bytes, config.max_image_pixels)
        self.metrics = Metrics()
        self.models = ServedModels(
            config.storage,
            config.model,
            device=config.device,
            precision=config.precision,
            threads=config.threads,
        )
        self._keys = ApiKeys(config.api_key_file)
        self._decoders = ThreadPoolExecutor(max(1, usable_cpus()), "decoder")
        self._undecoded = 0
        # Of its own: versions are loaded one at a time, and those who wait for one are to keep no decoder waiting.
        self._loader = ThreadPoolExecutor(1, "loader")
        # One thread: a batch has all threads of the engine.
        self._engine = ThreadPoolExecutor(1, "engine")
        self.batcher = Batcher(self._engine, config.max_batch_size, config.max_queue_images, self.metrics)
        self.access_log = AccessLog(config.access_log)
        loop = asyncio.get_running_loop()
        self._background = [
            loop.create_task(self.models.follow(FOLLOW_INTERVAL_S, self._model_changed)),
            loop.create_task(self._flush()),
        ]
        self._model_changed()

    def authorize(self, call: Call) -> None:
        """Refuse who brings no valid key, if keys are asked for.

        Raises:
            UnauthorizedError: No key, or not one of ours.
        """
        self._keys.check(call)

    async def model(self, version: str | None) -> ServedModel:
        """Find a version; None is the current one.

        Raises:
            ArtifactError: It is broken.
            ModelNotFoundError: There is no such version.
        """
        model = self.models.loaded(version)
        if model is None:
            assert version is not None
            model = await asyncio.get_running_loop().run_in_executor(self._loader, self.models.open, version)
        return model

    def check_count(self, num_images: int) -> None:
        """Refuse more images than one request may have.

        Raises:
            RequestTooLargeError: There are more.
        """
        if num_images > self.config.max_request_images:
            most = self.config.max_request_images
            raise RequestTooLargeError(
                f"received {num_images} images, expected at most {most} in a request; send several"
            )

    async def classify_pixels(self, images: npt.NDArray[np.uint8], version: str | None, deadline: float) -> Answer:
        """Classify images that are pixels already.

        Args:
            images: uint8 (N, 28, 28), white on black or the reverse.
            version: Of the model; None for the current one.
            deadline: By ``time.monotonic``.

        Raises:
            DeadlineError: The time was over.
            ModelNotFoundError: There is no such version.
            OverloadedError: Too many images wait.
            RequestTooLargeError: These are too many.
        """
        self.check_count(len(images))
        model = self.models.loaded(version) or await self.model(version)
        images, blank = prepare_images(images)
        errors: dict[int, ImageError] = {}
        if blank.any():
            for index in np.flatnonzero(blank).tolist():
                errors[index] = ImageBlankError("expected a digit, found an image without ink")
        return await self._answer(images, errors, model, deadline)

    async def classify_files(self, files: Sequence[bytes], version: str | None, deadline: float) -> Answer:
        """Classify encoded images: PNG, JPEG, BMP, GIF, WebP or TIFF. All else as in ``classify_pixels``."""
        self.check_count(len(files))
        model = self.models.loaded(version) or await self.model(version)
        pixels, errors, frames = await self._decode(len(files), partial(decode_files, files, self.limits, deadline))
        return replace(await self._answer(pixels, errors, model, deadline), frames=frames)

    async def split_files(self, files: Sequence[bytes], version: str | None, deadline: float) -> SplitAnswer:
        """Find and classify all digits of pictures: PNG, JPEG, BMP, GIF, WebP or TIFF.

        Args:
            files: The pictures.
            version: Of the model; None for the current one.
            deadline: By ``time.monotonic``.

        Raises:
            DeadlineError: The time was over.
            ModelNotFoundError: There is no such version.
            OverloadedError: Too many images wait.
            RequestTooLargeError: These are too many pictures, or have too many digits together.
        """
        self.check_count(len(files))
        model = self.models.loaded(version) or await self.model(version)
        most, most_together = self.config.max_digits, self.config.max_request_images
        found, errors = await self._decode(
            len(files), partial(split.find_all, files, self.limits, most, most_together, deadline)
        )
        predictions = await split.ask_in_turn(found, self.batcher, self.config.max_batch_size, model, deadline)
        # Not on the event loop: it takes as long as many a request does altogether.
        digits = await asyncio.get_running_loop().run_in_executor(
            self._decoders, split.choose_all, found, predictions, errors, most, most_together
        )
        rejected = sum(int(np.count_nonzero(each.predictions.rejected)) for each in digits.values())
        self.metrics.answered(model.reference, sum(len(each) for each in digits.values()), rejected)
        return SplitAnswer(model, digits, errors)

    async def decode(
        self, files: Sequence[bytes], deadline: float
    ) -> tuple[npt.NDArray[np.uint8], dict[int, ImageError]]:
        """Decode images as ``decode_files`` does, aside, so that the loop stays free.

        Raises:
            DeadlineError: The time was over.
            OverloadedError: Too many images wait.
        """
        pixels, errors, _ = await self._decode(len(files), partial(decode_files, files, self.limits, deadline))
        return pixels, errors

    async def _decode(self, num_files: int, work: Callable[[], Decoded]) -> Decoded:
        """Have a decoder do some work; as with the batcher, what an idle replica can take is never refused."""
        most = self.config.max_queue_images
        if self._undecoded and self._undecoded + num_files > most:
            raise OverloadedError(f"{self._undecoded} images wait to be decoded, at most {most} may; try again later")
        started = time.monotonic()
        self._undecoded += num_files
        try:
            decoded = await asyncio.get_running_loop().run_in_executor(self._decoders, work)
        finally:
            self._undecoded -= num_files
        self.metrics.decoded(time.monotonic() - started)
        return decoded

    async def _answer(
        self, pixels: npt.NDArray[np.uint8], errors: dict[int, ImageError], model: ServedModel, deadline: float
    ) -> Answer:
        predictions = await self.batcher.predict(pixels, model, deadline)
        rejected = predictions.rejected
        if errors:
            rejected = np.delete(rejected, list(errors))
        self.metrics.answered(model.reference, len(rejected), int(np.count_nonzero(rejected)))
        return Answer(model, pixels, predictions, errors)

    async def close(self) -> None:
        """Let go of what a replica holds."""
        for task in self._background:
            task.cancel()
        self.metrics.flush()
        self.access_log.flush()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._loader.shutdown(wait=False, cancel_futures=True)
        self._engine.shutdown(wait=False, cancel_futures=True)

    def failed(self, request_id: str, err: Exception) -> None:
        """Note what went wrong by our fault; who asked is only told the request's id."""
        logger.error("request %s failed", request_id, exc_info=err)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.metrics.flush()
            self.access_log.flush()

    def _model_changed(self) -> None:
        self.metrics.serving(self.models.current)


def decode_files(
    files: Sequence[bytes], limits: ImageLimits, deadline: float
) -> tuple[npt.NDArray[np.uint8], dict[int, ImageError], dict[int, int]]:
    """Decode images.

    Args:
        files: The images.
        limits: What is refused unread.
        deadline: By ``time.monotonic``; a file of some kilobytes may take a tenth of a second.

    Returns:
        Pixels, uint8 (N, 28, 28), zeros where an image is bad; and by position, what was wrong, and how many frames
        there are where that is more than one.

    Raises:
        DeadlineError: The time was over.
    """
    pixels = np.zeros((len(files), *IMAGE_SIZE), np.uint8)
    errors: dict[int, ImageError] = {}
    frames: dict[int, int] = {}
    for index, data in enumerate(files):
        if time.monotonic() > deadline:
            raise DeadlineError(f"the request's time was over when {index} of {len(files)} images had been decoded")
        try:
            decoded = decode_image(data, limits)
        except ImageError as err:
            errors[index] = err.with_traceback(None)  # whose frame holds errors, which would be a circle
            continue
        pixels[index] = decoded.pixels
        if decoded.num_frames > 1:
            frames[index] = decoded.num_frames
    return pixels, errors, frames
