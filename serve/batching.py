"""Dynamic batching that never waits: a batch goes out when an engine is free, with what has queued up until then.

Batches are counted in images, not in requests. A small batch is computed at once on the event loop: handing it to
another thread and back takes longer than the engine needs. Requests that arrived together, in one turn of the loop,
share it. Larger ones are computed by a thread, and what arrives meanwhile is the next batch.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from mnist_core.errors import DeadlineError, OverloadedError
from mnist_core.predictor import Predictions

INLINE_IMAGES: Final = 32
"""Most images computed on the event loop; one thread needs 2.5 ms for them."""

Images = npt.NDArray[np.uint8]


class Model(Protocol):
    """What computes a batch."""

    def predict(self, images: Images) -> Predictions:
        """Classify uint8 (N, 28, 28)."""


class Recorder(Protocol):
    """Who wants to know about batches."""

    def batch(self, images: int, seconds: float, waited_s: float) -> None:
        """A batch was computed, whose first request had waited so long."""


@dataclass(slots=True)
class _Ticket:
    images: Images
    model: Model
    deadline: float
    arrived: float
    answer: asyncio.Future[Predictions]


class Batcher:
    """The queue before the engines of one replica; to be used on one event loop.

    Args:
        engine: Computes what is too large for the loop, one batch at a time.
        max_batch: Images in a batch.
        max_queue: Images that may wait; more are refused.
        recorder: Told of every batch.
    """

    def __init__(self, engine: Executor, max_batch: int, max_queue: int, recorder: Recorder) -> None:
        self._engine = engine
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Ticket] = deque()
        self._queued_images = 0
        self._busy = False
        self._due = False

    @property
    def queued_images(self) -> int:
        """How many images wait."""
        return self._queued_images

    async def predict(self, images: Images, model: Model, deadline: float) -> Predictions:
        """Classify images, together with those of others.

        Args:
            images: uint8 (N, 28, 28); more than a batch are split.
            model: Who is to do it; batches never mix models.
            deadline: By ``time.monotonic``; what has not begun by then is not computed.

        Raises:
            DeadlineError: It has not begun in time.
            OverloadedError: Too many images wait. What an idle replica can take in one request is never refused.
        """
        if self._queued_images + len(images) > self._max_queue and self._queued_images:
            raise OverloadedError(f"{self._queued_images} images wait, at most {self._max_queue} may; try again later")
        if len(images) <= self._max_batch:
            return await self._enqueue(images, model, deadline)
        cuts = range(0, len(images), self._max_batch)
        parts = await asyncio.gather(
            *[self._enqueue(images[cut : cut + self._max_batch], model, deadline) for cut in cuts]
        )
        return Predictions(
            np.concatenate([part.probabilities for part in parts]), np.concatenate([part.strangeness for part in parts])
        )

    def _enqueue(self, images: Images, model: Model, deadline: float) -> asyncio.Future[Predictions]:
        answer: asyncio.Future[Predictions] = self._loop.create_future()
        self._queue.append(_Ticket(images, model, deadline, time.monotonic(), answer))
        self._queued_images += len(images)
        if not self._due:
            self._due = True
            # After all that this turn of the loop has brought: those requests are one batch.
            self._loop.call_soon(self._dispatch)
        return answer

    def _dispatch(self) -> None:
        self._due = False
        while self._queue and not self._busy:
            batch = self._take()
            if not batch:
                continue
            images = batch[0].images if len(batch) == 1 else np.concatenate([ticket.images for ticket in batch])
            started = time.monotonic()
            if len(images) <= INLINE_IMAGES:
                try:
                    self._deliver(batch, batch[0].model.predict(images), started)
                except Exception as err:  # whatever went wrong, those who wait are to be told
                    _fail(batch, err)
            else:
                self._busy = True
                computed = self._loop.run_in_executor(self._engine, batch[0].model.predict, images)
                computed.add_done_callback(partial(self._finish, batch, started))

    def _take(self) -> list[_Ticket]:
        """The next requests in the queue, of one model and as many as make a batch; who cannot wait longer is told."""
        batch: list[_Ticket] = []
        num_images = 0
        now = time.monotonic()
        while self._queue:
            ticket = self._queue[0]
            gone = ticket.answer.done()  # the client went away
            if gone or ticket.deadline <= now:
                self._leave()
                if not gone:
                    ticket.answer.set_exception(DeadlineError("the request's time was over before its turn came"))
                continue
            if batch and (num_images + len(ticket.images) > self._max_batch or ticket.model is not batch[0].model):
                break
            self._leave()
            batch.append(ticket)
            num_images += len(ticket.images)
        return batch

    def _leave(self) -> None:
        self._queued_images -= len(self._queue.popleft().images)

    def _finish(self, batch: list[_Ticket], started: float, done: asyncio.Future[Predictions]) -> None:
        self._busy = False
        if err := done.exception():
            _fail(batch, err)
        else:
            self._deliver(batch, done.result(), started)
        self._dispatch()

    def _deliver(self, batch: list[_Ticket], predictions: Predictions, started: float) -> None:
        self._recorder.batch(
            len(predictions.strangeness), time.monotonic() - started, max(0.0, started - batch[0].arrived)
        )
        first = 0
        for ticket in batch:
            last = first + len(ticket.images)
            if not ticket.answer.done():
                ticket.answer.set_result(
                    predictions
                    if len(batch) == 1
                    else Predictions(predictions.probabilities[first:last], predictions.strangeness[first:last])
                )
            first = last


def _fail(batch: list[_Ticket], err: BaseException) -> None:
    for ticket in batch:
        if not ticket.answer.done():
            ticket.answer.set_exception(err)
