"""One worker of our training step, without Ray: how long a step takes, and how many bytes leave this host for it.

``scaling_worker.py RANK WORLD_SIZE STEPS`` and, for workers that add their gradients up, the cluster in ``TF_CONFIG``;
without it the worker computes its share alone. Prints one JSON object: seconds of each step in all, of its input, and
bytes sent and received a step.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from mnist_core.batches import Share, Steps, epoch_steps
from mnist_core.config import TrainConfig
from mnist_core.splits import Split
from mnist_core.trainer import Trainer

CALLS = 8
WARM_UP_CALLS = 2


def main(rank: int, world_size: int, steps: int) -> None:
    """Take steps and print their figures."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    together = "TF_CONFIG" in os.environ
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if together else tf.distribute.get_strategy()
    config = TrainConfig(recipe="notebook", steps_per_call=steps, micro_batch_size=16)
    trainer = Trainer(config, strategy, Share(rank, world_size))
    images = np.random.default_rng(0).integers(0, 256, (config.batch_size * steps, 28, 28), dtype=np.uint8)
    data = Split(images, (np.arange(len(images)) % 10).astype(np.uint8))
    rates = np.full(steps, 1e-3, np.float32)
    computing, feeding = [], []
    before = (0, 0)
    for call in range(WARM_UP_CALLS + CALLS):
        if call == WARM_UP_CALLS:
            before = traffic()
        started = time.perf_counter()
        batch = next(iter(epoch_steps(data, config, trainer.share, epoch=call)))
        fed = time.perf_counter()
        take(trainer, batch, rates, call * steps)
        computing.append((time.perf_counter() - fed) / steps)
        feeding.append((fed - started) / steps)
    sent, received = (after - earlier for after, earlier in zip(traffic(), before, strict=True))
    print(
        json.dumps(
            {
                "step_s": statistics.median(computing[WARM_UP_CALLS:]),
                "input_s": statistics.median(feeding[WARM_UP_CALLS:]),
                "sent": sent / (CALLS * steps),
                "received": received / (CALLS * steps),
                "parameters": len(trainer.result_weights()),
            }
        )
    )


def take(trainer: Trainer, batch: Steps, rates: np.ndarray, first: int) -> None:
    """Take the steps of one call, and have their result."""
    assert np.isfinite(trainer.run(batch, rates, first)).all()


def traffic() -> tuple[int, int]:
    """Bytes that this host has sent and received, on its network interface if it has one, else on loopback."""
    lines = [line.split(":") for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]]
    counters = {name.strip(): figures.split() for name, figures in lines}
    figures = counters.get("eth0" if os.environ.get("OWN_HOST") else "lo", ["0"] * 16)
    return int(figures[8]), int(figures[0])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
