"""How an epoch's samples are cut into global batches and a global batch into the workers' shares. Plain numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mnist_core.augmentation import affine_transforms
from mnist_core.datasets import Split
from mnist_core.sampling import Purpose, dropout_keys, permutation


@dataclass(frozen=True)
class Share:
    """One worker's part of the global batch: worker ``rank`` of ``world_size``."""

    rank: int = 0
    world_size: int = 1

    def rows(self, batch_size: int) -> int:
        """Rows of a worker in every global batch; workers at the end may have padding among theirs."""
        return -(-batch_size // self.world_size)


@dataclass(frozen=True)
class Steps:
    """One worker's input of several optimizer steps, S steps of R rows.

    Attributes:
        images: uint8 (S, R, 28, 28).
        labels: int32 (S, R).
        weights: float32 (S, R): 1 over the true size of the global batch for a sample, 0 for padding, so that the
            weighted sum over all workers is the mean over the global batch.
        keys: uint32 (S, R), from which dropout masks follow.
        transforms: float32 (S, R, 8), the augmentation of each sample; (S, R, 0) without augmentation.
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


def padded_rows(count: int, batch_size: int, share: Share) -> npt.NDArray[np.int64]:
    """Lay ``count`` positions out in global batches and take one worker's share.

    Returns:
        int64 (steps, rows): positions 0..count-1, or -1 for padding. Over all workers each position occurs once.
    """
    rows = share.rows(batch_size)
    steps = steps_per_epoch(count, batch_size)
    grid = np.full((steps, rows * share.world_size), -1, np.int64)
    positions = np.full(steps * batch_size, -1, np.int64)
    positions[:count] = np.arange(count)
    grid[:, :batch_size] = positions.reshape(steps, batch_size)
    return grid[:, share.rank * rows : (share.rank + 1) * rows]


def epoch_steps(
    data: Split,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    share: Share,
    augment: str,
    first_step: int,
    steps_per_call: int,
) -> Iterator[Steps]:
    """Yield one worker's input of an epoch, several steps at a time, from ``first_step`` on."""
    order = permutation(seed, Purpose.ORDER, epoch, len(data))
    grid = padded_rows(len(data), batch_size, share)
    sizes = np.minimum(batch_size, len(data) - batch_size * np.arange(len(grid)))
    for start in range(first_step, len(grid), steps_per_call):
        positions = grid[start : start + steps_per_call]
        real = positions >= 0
        samples = order[np.where(real, positions, 0)]
        size = sizes[start : start + steps_per_call]
        keys = dropout_keys(seed, epoch, samples.ravel()).reshape(samples.shape)
        transforms = np.zeros((*samples.shape, 0), np.float32)
        if augment == "affine":
            transforms = affine_transforms(seed, epoch, samples.ravel()).reshape(*samples.shape, 8)
        yield Steps(
            images=data.images[samples],
            labels=data.labels[samples].astype(np.int32),
            weights=(real / size[:, None]).astype(np.float32),
            keys=keys,
            transforms=transforms,
            sizes=size,
        )
