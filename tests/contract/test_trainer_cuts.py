"""The same bits however a run is cut: into workers' shares, into calls, by restarts; and evaluation, into blocks."""

from __future__ import annotations

import numpy as np
import pytest
from small_run import DATA, EVERYTHING, PER_SAMPLE, STEPS_AN_EPOCH, make_trainer, restart, take_steps

from mnist_core.batches import Share, epoch_steps
from mnist_core.trainer import STATE_NAMES


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in STATE_NAMES)


@pytest.fixture(scope="module")
def everything():
    trainer = make_trainer(**EVERYTHING)
    return trainer, trainer.state()


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "ensemble"])
def anything(request):
    trainer = make_trainer(**EVERYTHING, ensemble=request.param)
    return trainer, trainer.state()


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_shares_sum_to_the_whole_batch_bit_for_bit_whatever_the_number_of_workers(anything, world_size):
    """The update is a function of this sum, so equal sums at every step are equal runs."""
    trainer = restart(*anything)
    shares = [Share(rank, world_size) for rank in range(world_size)]
    for step in range(STEPS_AN_EPOCH):
        sums = []
        for share in [Share(), *shares]:
            (steps,) = epoch_steps(DATA, trainer.config, share, epoch=0)
            sums.append(trainer._sum_gradients(*(getattr(steps, name)[step] for name in PER_SAMPLE)).numpy())
        assert sums[0][:-3].any()
        assert np.array_equal(sum(sums[1:]), sums[0])
        take_steps(trainer, step, step + 1, per_call=1)


@pytest.mark.parametrize("world_size", [2, 3])
def test_evaluation_is_shared_out_exactly(anything, world_size, monkeypatch):
    monkeypatch.setattr("mnist_core.trainer.EVALUATION_BLOCK", 10)
    trainer = restart(*anything)
    take_steps(trainer, last=3)  # so that the average is not the weights
    whole = trainer.evaluate(DATA)
    parts = []
    for rank in range(world_size):
        monkeypatch.setattr(trainer, "share", Share(rank, world_size))
        parts.append(trainer.evaluate(DATA))
    assert (sum(part[0] for part in parts), sum(part[1] for part in parts)) == whole


@pytest.mark.parametrize("block", [1, 10, 53, 60])
def test_evaluation_counts_every_sample_once_in_blocks_of_any_size(everything, monkeypatch, block):
    monkeypatch.setattr("mnist_core.trainer.EVALUATION_BLOCK", block)
    trainer = restart(*everything)
    take_steps(trainer, last=3)
    network = trainer.load_network(trainer.result_weights())
    images = DATA.images[..., None].astype(np.float32)
    logits = network([images, np.zeros((len(DATA), 1), np.uint32)], training=False).numpy().astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    correct, loss = trainer.evaluate(DATA)
    assert correct == (logits.argmax(axis=1) == DATA.labels).sum()
    assert loss == pytest.approx(-np.log(chances[np.arange(len(DATA)), DATA.labels]).sum(), rel=1e-6)


def test_a_state_taken_anywhere_resumes_bit_for_bit(anything):
    trainer = restart(*anything)
    take_steps(trainer, last=3)
    taken = trainer.state()
    kept = {name: values.copy() for name, values in taken.items()}
    metrics = take_steps(trainer, 3, 10)
    assert same_bits(taken, kept), "a state is a copy"
    other = make_trainer(**EVERYTHING, ensemble=trainer.config.ensemble)
    other.load_state(taken)
    assert same_bits(other.state(), taken)
    assert np.array_equal(take_steps(other, 3, 10), metrics)
    assert same_bits(other.state(), trainer.state())


@pytest.mark.parametrize("per_call", [1, 3, 25])
def test_how_steps_are_grouped_into_calls_changes_no_bit(anything, per_call):
    metrics = take_steps(restart(*anything))
    expected = anything[0].state()
    assert np.array_equal(take_steps(restart(*anything), per_call=per_call), metrics)
    assert same_bits(anything[0].state(), expected)
