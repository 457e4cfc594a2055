"""How an epoch is cut: every sample once, the same micro-batches for any number of workers, from any step on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_core.augmentation import affine_transforms
from mnist_core.batches import Share, Steps, cut_into_micro_batches, epoch_steps, steps_per_epoch
from mnist_core.config import TrainConfig
from mnist_core.datasets import Split
from mnist_core.sampling import Purpose, member_seed, permutation, sample_keys

counts = st.integers(1, 200)
batch_sizes = st.integers(1, 40)
micro_sizes = st.integers(1, 12)
world_sizes = st.integers(1, 7)
reproducible = settings(deadline=None, derandomize=True)

SEED = 11
PER_SAMPLE = ("images", "labels", "weights", "keys", "transforms")


def numbered(count: int) -> Split:
    """Image i is filled with the number i, so that a batch tells which samples it holds."""
    numbers = np.arange(count, dtype=np.uint8)
    return Split(np.tile(numbers[:, None, None], (1, 28, 28)), numbers % 10)


def samples_of(steps: Steps, member: int = 0) -> np.ndarray:
    return steps.images[:, :, member, :, 0, 0].astype(np.int64)


def take(count, batch_size, micro_size=5, share=None, *, epoch=0, first_step=0, **options) -> list[Steps]:
    values = {"augment": "none", "steps_per_call": 1000, **options}
    config = TrainConfig(batch_size=batch_size, micro_batch_size=micro_size, seed=SEED, **values)
    return list(epoch_steps(numbered(count), config, share or Share(), epoch=epoch, first_step=first_step))


def take_all_shares(count, batch_size, micro_size, world_size, **options) -> list[Steps]:
    """What each of the workers gets of an epoch, in one call."""
    shares = [Share(rank, world_size) for rank in range(world_size)]
    return [take(count, batch_size, micro_size, share, **options)[0] for share in shares]


def micro_batches(shares: list[Steps]) -> list[list[list[bytes]]]:
    """All workers' micro-batches that are not padding alone, in full, for each step; in no particular order."""
    found: list[list[list[bytes]]] = [[] for _ in shares[0].sizes]
    for steps in shares:
        for step, micro in zip(*np.nonzero(steps.weights.any(axis=-1)), strict=True):
            found[step].append([getattr(steps, name)[step, micro].tobytes() for name in PER_SAMPLE])
    return [sorted(step) for step in found]


@reproducible
@given(counts, batch_sizes, micro_sizes, world_sizes)
def test_every_position_belongs_to_one_worker_and_the_rest_is_padding(count, batch_size, micro_size, world_size):
    shares = [Share(rank, world_size) for rank in range(world_size)]
    grids = np.stack([cut_into_micro_batches(count, batch_size, micro_size, share) for share in shares])
    _, steps, per_worker, rows = grids.shape
    assert (steps, rows) == (steps_per_epoch(count, batch_size), micro_size)
    assert sorted(grids[grids >= 0].tolist()) == list(range(count))
    assert set(grids[grids < 0].tolist()) <= {-1}
    needed = -(-batch_size // micro_size)
    assert per_worker == -(-needed // world_size), "no worker computes more padding than it must"


@reproducible
@given(batch_sizes, micro_sizes, world_sizes)
def test_workers_have_the_same_number_of_micro_batches_or_one_less(batch_size, micro_size, world_size):
    shares = [Share(rank, world_size) for rank in range(world_size)]
    grids = [cut_into_micro_batches(batch_size, batch_size, micro_size, share) for share in shares]
    busy = [int((grid >= 0).any(axis=-1).sum()) for grid in grids]
    assert max(busy) - min(busy) <= 1


@reproducible
@given(counts, batch_sizes, micro_sizes, world_sizes)
def test_every_sample_is_trained_on_once_an_epoch_with_its_own_label(count, batch_size, micro_size, world_size):
    found = []
    for steps in take_all_shares(count, batch_size, micro_size, world_size):
        real = steps.weights > 0
        found += zip(samples_of(steps)[real].tolist(), steps.labels[:, :, 0][real].tolist(), strict=True)
    assert sorted(found) == [(sample, sample % 10) for sample in range(count)]


@reproducible
@given(counts, batch_sizes, micro_sizes, world_sizes, st.sampled_from(["none", "affine"]))
def test_micro_batches_are_the_same_for_any_number_of_workers(count, batch_size, micro_size, world_size, augment):
    alone = take_all_shares(count, batch_size, micro_size, 1, augment=augment)
    shared = take_all_shares(count, batch_size, micro_size, world_size, augment=augment)
    assert micro_batches(shared) == micro_batches(alone)


@reproducible
@given(counts, batch_sizes, micro_sizes, world_sizes)
def test_weights_of_a_step_sum_to_one_over_all_workers_and_padding_weighs_nothing(
    count, batch_size, micro_size, world_size
):
    shares = take_all_shares(count, batch_size, micro_size, world_size)
    weights, sizes = np.stack([steps.weights for steps in shares], axis=1), shares[0].sizes
    np.testing.assert_allclose(weights.sum(axis=(1, 2, 3)), 1, rtol=1e-5)
    for step, size in zip(weights, sizes, strict=True):
        assert step[step > 0].tolist() == [np.float32(1 / size)] * size


@pytest.mark.parametrize(("count", "last"), [(12, 4), (13, 1), (15, 3), (3, 3)])
def test_the_last_batch_may_be_short_and_says_so(count, last):
    (steps,) = take(count, batch_size=4)
    assert steps.sizes.tolist() == [4] * (len(steps.sizes) - 1) + [last]
    assert steps.sizes.sum() == count


@reproducible
@given(counts, batch_sizes, st.integers(1, 3), st.integers(1, 9), st.data())
def test_an_epoch_can_start_at_any_step_and_be_cut_into_calls_of_any_length(count, batch_size, world, length, data):
    share = Share(data.draw(st.integers(0, world - 1)), world)
    first = data.draw(st.integers(0, steps_per_epoch(count, batch_size) - 1))
    (whole,) = take(count, batch_size, share=share, augment="affine")
    calls = take(count, batch_size, share=share, augment="affine", first_step=first, steps_per_call=length)
    assert all(len(call.sizes) == length for call in calls[:-1])
    for name in (*PER_SAMPLE, "sizes"):
        assert np.array_equal(np.concatenate([getattr(call, name) for call in calls]), getattr(whole, name)[first:])


def test_nothing_is_left_of_an_epoch_that_is_done():
    assert take(12, batch_size=4, first_step=3) == []


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_goes_through_its_permutation_in_order(epoch):
    (steps,) = take(40, batch_size=8, micro_size=4, epoch=epoch)
    assert samples_of(steps).ravel().tolist() == permutation(SEED, Purpose.ORDER, epoch, 40).tolist()


def test_sample_keys_and_transforms_are_those_of_the_epoch_and_the_sample():
    (steps,) = take(40, batch_size=8, epoch=2, augment="affine")
    samples = samples_of(steps).ravel()
    assert np.array_equal(steps.keys.ravel(), sample_keys(SEED, 2, samples))
    assert np.array_equal(steps.transforms.reshape(-1, 8), affine_transforms(SEED, 2, samples))


def test_members_of_an_ensemble_have_orders_keys_and_maps_of_their_own_and_the_first_those_of_a_network_alone():
    (alone,), (steps,) = (
        take(40, batch_size=8, micro_size=4, epoch=2, augment="affine", ensemble=size) for size in (1, 3)
    )
    for name in ("images", "labels", "keys", "transforms"):
        assert np.array_equal(getattr(steps, name)[:, :, :1], getattr(alone, name))
    assert np.array_equal(steps.weights, alone.weights)
    orders = [samples_of(steps, member).ravel() for member in range(3)]
    assert [sorted(order) for order in orders] == [list(range(40))] * 3
    assert len({order.tobytes() for order in orders}) == 3
    for member, samples in enumerate(orders):
        seed = member_seed(SEED, member)
        assert np.array_equal(steps.labels[:, :, member].ravel(), samples % 10)
        assert np.array_equal(steps.keys[:, :, member].ravel(), sample_keys(seed, 2, samples))
        assert np.array_equal(steps.transforms[:, :, member].reshape(-1, 8), affine_transforms(seed, 2, samples))


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize(("augment", "num_transforms"), [("none", 0), ("affine", 8)])
def test_inputs_have_the_shapes_and_dtypes_that_are_documented(augment, num_transforms, members):
    (steps,) = take(13, batch_size=8, micro_size=3, share=Share(1, 2), augment=augment, ensemble=members)
    found = {name: (getattr(steps, name).shape, getattr(steps, name).dtype) for name in PER_SAMPLE}
    assert found == {
        "images": ((2, 2, members, 3, 28, 28), np.uint8),
        "labels": ((2, 2, members, 3), np.int32),
        "weights": ((2, 2, 3), np.float32),
        "keys": ((2, 2, members, 3), np.uint32),
        "transforms": ((2, 2, members, 3, num_transforms), np.float32),
    }
    assert steps.sizes.dtype == np.int64
