"""How an epoch is cut into global batches, those into micro-batches, and which of them are a worker's. Plain numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mnist_core.augmentation import affine_transforms
from mnist_core.config import TrainConfig
from mnist_core.datasets import Split
from mnist_core.sampling import Purpose, member_seed, permutation, sample_keys


@dataclass(frozen=True)
class Share:
    """One worker's part of every global batch: that of worker ``rank`` of ``world_size``."""

    rank: int = 0
    world_size: int = 1


@dataclass(frozen=True, eq=False)
class Steps:
    """One worker's input of several optimizer steps: S steps of M micro-batches of R rows for each of E members.

    A network that is trained alone is the one member of its ensemble.

    Attributes:
        images: uint8 (S, M, E, R, 28, 28).
        labels: int32 (S, M, E, R).
        weights: float32 (S, M, R): 1 over the true size of the global batch for a sample, 0 for padding, so that the
            weighted sum over all workers is the mean over the global batch.
        keys: uint32 (S, M, E, R), from which dropout masks and distortions follow.
        transforms: float32 (S, M, E, R, 8), the affine map of each sample; (S, M, E, R, 0) without augmentation.
        sizes: int64 (S,), true size of each global batch.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    keys: npt.NDArray[np.uint32]
    transforms: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.int64]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Global batches of an epoch, the last, short one included."""
    return -(-count // batch_size)


def cut_into_micro_batches(count: int, batch_size: int, micro_size: int, share: Share) -> npt.NDArray[np.int64]:
    """Lay ``count`` positions out in global batches, cut those into micro-batches, and take one worker's share.

    What is in a micro-batch does not depend on the number of workers, only who gets it does.

    Returns:
        int64 (steps, micro-batches of the worker, micro_size): positions 0..count-1, or -1 for padding. Over all
        workers each position occurs once.
    """
    steps = steps_per_epoch(count, batch_size)
    per_batch = -(-batch_size // micro_size)
    per_worker = -(-per_batch // share.world_size)
    positions = np.full(steps * batch_size, -1, np.int64)
    positions[:count] = np.arange(count)
    grid = np.full((steps, per_worker * share.world_size * micro_size), -1, np.int64)
    grid[:, :batch_size] = positions.reshape(steps, batch_size)
    # Dealt out in turn, so that nobody is left without one while another has two more.
    return grid.reshape(steps, per_worker, share.world_size, micro_size)[:, :, share.rank]


def epoch_steps(data: Split, config: TrainConfig, share: Share, *, epoch: int, first_step: int = 0) -> Iterator[Steps]:
    """Yield one worker's input of an epoch, ``config.steps_per_call`` steps at a time, from ``first_step`` on.

    Each member of an ensemble takes the samples in an order of its own, and has distortions and masks of its own.
    """
    seeds = [member_seed(config.seed, member) for member in range(config.ensemble)]
    orders = [permutation(seed, Purpose.ORDER, epoch, len(data)) for seed in seeds]
    grid = cut_into_micro_batches(len(data), config.batch_size, config.micro_batch_size, share)
    sizes = np.minimum(config.batch_size, len(data) - config.batch_size * np.arange(len(grid)))
    for start in range(first_step, len(grid), config.steps_per_call):
        positions = grid[start : start + config.steps_per_call]
        real = positions >= 0
        samples = np.stack([order[np.where(real, positions, 0)] for order in orders], axis=2)
        drawn = [_draw(config, seed, epoch, samples[:, :, member]) for member, seed in enumerate(seeds)]
        keys, transforms = (np.stack(members, axis=2) for members in zip(*drawn, strict=True))
        size = sizes[start : start + config.steps_per_call]
        yield Steps(
            images=data.images[samples],
            labels=data.labels[samples].astype(np.int32),
            weights=(real / size[:, None, None]).astype(np.float32),
            keys=keys,
            transforms=transforms,
            sizes=size,
        )


def _draw(
    config: TrainConfig, seed: int, epoch: int, samples: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    """Draw keys and affine maps of samples, for a member of that seed."""
    flat = samples.ravel()
    maps = np.zeros((len(flat), 0), np.float32)
    if config.augment != "none":
        maps = affine_transforms(seed, epoch, flat)
    return sample_keys(seed, epoch, flat).reshape(samples.shape), maps.reshape(*samples.shape, -1)
