"""A small run for the tests of the trainer: images, a trainer, and a way to take some of its steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from mnist_core.batches import Share, epoch_steps
from mnist_core.config import TrainConfig
from mnist_core.datasets import Split
from mnist_core.trainer import Trainer

PLAIN: dict[str, Any] = {"dropout": 0.0}
EVERYTHING: dict[str, Any] = {
    "dropout": 0.4,
    "augment": "affine",
    "weight_decay": 0.1,
    "label_smoothing": 0.1,
    "ema_decay": 0.9,
}
STEPS_AN_EPOCH = 5
PER_SAMPLE = ("images", "labels", "weights", "keys", "transforms")


def squares(count: int) -> Split:
    """Images with a bright square where their class says, in noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.uint8) % 10
    images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = 4 + 12 * (label // 5), 5 * (label % 5)
        image[top : top + 6, left : left + 6] += 190
    return Split(images, labels)


DATA = squares(53)  # batches of 12, the last one of 5


def make_trainer(**values) -> Trainer:
    config = TrainConfig(**{"recipe": "notebook", "batch_size": 12, "micro_batch_size": 4, **values})
    return Trainer(config, tf.distribute.get_strategy(), Share())


def take_steps(trainer, first=0, last=2 * STEPS_AN_EPOCH, *, per_call=1000, rate=1e-3) -> np.ndarray:
    """Run the optimizer steps from ``first`` to ``last`` of a run; returns their metrics."""
    config = trainer.config.model_copy(update={"steps_per_call": per_call})
    metrics = []
    while first < last:
        epoch, step = divmod(first, STEPS_AN_EPOCH)
        for steps in epoch_steps(DATA, config, trainer.share, epoch=epoch, first_step=step):
            metrics.append(trainer.run(steps, np.full(len(steps.sizes), rate, np.float32), first))
            first += len(steps.sizes)
            if first >= last:
                break
    return np.concatenate(metrics)


def restart(trainer: Trainer, start: dict[str, np.ndarray]) -> Trainer:
    trainer.load_state(start)
    return trainer
