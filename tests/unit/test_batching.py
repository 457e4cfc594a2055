"""What goes into a batch, what is refused, and who is told what."""

import asyncio
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mnist_core.errors import DeadlineError, OverloadedError
from mnist_core.predictor import Predictions
from serve.batching import INLINE_IMAGES, Batcher
from serve.split import ask_in_turn

FOREVER = float("inf")


class Echo:
    """A model whose probabilities are the images' first pixel, so that an answer tells whose it is."""

    def __init__(self):
        self.sizes = []
        self.threads = set()
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, images):
        self.gate.wait(10)
        self.sizes.append(len(images))
        self.threads.add(threading.current_thread().name)
        first = images[:, 0, 0].astype(np.float32)
        return Predictions(np.repeat(first[:, None], 10, axis=1), first)


class Notes:
    def __init__(self):
        self.batches = []

    def batch(self, images, seconds, waited_s):
        assert seconds >= 0
        assert waited_s >= 0
        self.batches.append(images)


def numbered(first, count):
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(first, first + count)
    return images


def run(scenario, *, max_batch=64, max_queue=1000):
    """Run a scenario with a batcher, a model and the notes."""

    async def main():
        with ThreadPoolExecutor(1, "engine") as threads:
            model, notes = Echo(), Notes()
            await scenario(Batcher(threads, max_batch, max_queue, notes), model, notes)

    asyncio.run(asyncio.wait_for(main(), 20))


def test_requests_of_one_turn_are_one_batch_and_each_gets_its_own_answer():
    async def scenario(batcher, model, notes):
        answers = await asyncio.gather(*[batcher.predict(numbered(each, 1), model, FOREVER) for each in range(8)])
        assert [answer.strangeness.tolist() for answer in answers] == [[each] for each in range(8)]
        assert model.sizes == notes.batches == [8]

    run(scenario)


def test_a_small_batch_is_computed_on_the_loop_and_a_large_one_beside_it():
    async def scenario(batcher, model, _):
        await batcher.predict(numbered(0, INLINE_IMAGES), model, FOREVER)
        assert model.threads == {"MainThread"}
        await batcher.predict(numbered(0, INLINE_IMAGES + 1), model, FOREVER)
        assert len(model.threads) == 2

    run(scenario)


def test_a_batch_counts_images_and_a_request_that_is_larger_is_split():
    async def scenario(batcher, model, _):
        sizes = [30, 30, 30, 150, 1]
        answers = await asyncio.gather(*[batcher.predict(numbered(0, size), model, FOREVER) for size in sizes])
        assert [len(answer.strangeness) for answer in answers] == sizes
        assert answers[3].strangeness.tolist() == list(range(150))
        assert max(model.sizes) <= 64
        assert model.sizes[:1] == [60]

    run(scenario)


def test_what_arrives_while_the_engine_is_busy_is_the_next_batch():
    async def scenario(batcher, model, _):
        model.gate.clear()
        first = asyncio.create_task(batcher.predict(numbered(0, 50), model, FOREVER))
        await asyncio.sleep(0)
        later = []
        for each in range(5):
            later.append(asyncio.create_task(batcher.predict(numbered(each, 1), model, FOREVER)))
            await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(first, *later)
        assert model.sizes == [50, 5]

    run(scenario)


def test_a_batch_never_mixes_models():
    async def scenario(batcher, model, _):
        other = Echo()
        turns = [model, model, other, model]
        await asyncio.gather(*[batcher.predict(numbered(0, 2), each, FOREVER) for each in turns])
        assert model.sizes == [4, 2]
        assert other.sizes == [2]

    run(scenario)


def test_more_than_may_wait_is_refused_at_once_and_what_waits_is_answered():
    async def scenario(batcher, model, _):
        model.gate.clear()
        busy = asyncio.create_task(batcher.predict(numbered(0, 64), model, FOREVER))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = asyncio.create_task(batcher.predict(numbered(0, 90), model, FOREVER))
        await asyncio.sleep(0)
        assert batcher.queued_images == 90
        with pytest.raises(OverloadedError, match="90 images wait, at most 100 may"):
            await batcher.predict(numbered(0, 20), model, FOREVER)
        model.gate.set()
        assert len((await waiting).strangeness) == 90
        await busy
        assert batcher.queued_images == 0

    run(scenario, max_queue=100)


def test_an_idle_engine_takes_a_request_that_is_larger_than_the_queue():
    async def scenario(batcher, model, _):
        assert len((await batcher.predict(numbered(0, 200), model, FOREVER)).strangeness) == 200

    run(scenario, max_queue=100)


def test_a_request_whose_time_is_over_is_not_computed():
    async def scenario(batcher, model, _):
        model.gate.clear()
        now = time.monotonic()
        busy = asyncio.create_task(batcher.predict(numbered(0, 64), model, FOREVER))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        late = asyncio.create_task(batcher.predict(numbered(0, 3), model, now))
        await asyncio.sleep(0)
        model.gate.set()
        with pytest.raises(DeadlineError):
            await late
        await busy
        assert model.sizes == [64]

    run(scenario)


def test_who_went_away_is_not_computed():
    async def scenario(batcher, model, _):
        model.gate.clear()
        busy = asyncio.create_task(batcher.predict(numbered(0, 64), model, FOREVER))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone = asyncio.create_task(batcher.predict(numbered(0, 3), model, FOREVER))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        model.gate.set()
        await busy
        await batcher.predict(numbered(0, 1), model, FOREVER)
        assert model.sizes == [64, 1]

    run(scenario)


@pytest.mark.parametrize("size", [1, 100])
def test_when_the_engine_fails_all_of_its_batch_are_told_and_the_next_one_is_computed(size):
    class Broken:
        def predict(self, _):
            raise RuntimeError("engine")

    async def scenario(batcher, model, _):
        broken = Broken()
        results = await asyncio.gather(
            *[batcher.predict(numbered(0, size), broken, FOREVER) for _ in range(3)], return_exceptions=True
        )
        assert all(isinstance(each, RuntimeError) for each in results)
        assert len((await batcher.predict(numbered(0, 2), model, FOREVER)).strangeness) == 2

    run(scenario, max_batch=128)


def test_candidates_of_pictures_come_a_batch_at_a_time_and_single_images_in_between():
    async def scenario(batcher, model, _):
        model.gate.clear()
        pictures = {
            0: types.SimpleNamespace(pixels=numbered(0, 90)),
            2: types.SimpleNamespace(pixels=numbered(90, 110)),
        }
        pictures = asyncio.create_task(ask_in_turn(pictures, batcher, 64, model, FOREVER))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert batcher.queued_images == 0  # though 64 are in work and 136 are still to come
        single = asyncio.create_task(batcher.predict(numbered(7, 1), model, FOREVER))
        await asyncio.sleep(0)
        model.gate.set()
        assert (await single).strangeness.tolist() == [7]
        assert not pictures.done()
        assert (await pictures).strangeness.tolist() == list(range(200))
        assert model.sizes[:2] == [64, 1]
        assert len((await ask_in_turn({}, batcher, 64, model, FOREVER)).probabilities) == 0

    run(scenario, max_queue=100)
