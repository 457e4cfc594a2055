"""The plain way to train with TensorFlow on Ray: ``ray.init``, ``TensorflowTrainer``, Keras 2 ``fit`` in its loop.

``ray_start.py FOLDER DATASET.npz`` makes each of two workers write a file there: seconds since 1970 at the loop's first
line, after its import of TensorFlow, and after the first step of one epoch.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig, get_context
from ray.train.tensorflow import TensorflowTrainer


def train_loop(config: dict[str, Any]) -> None:
    """Import TensorFlow, train an epoch, and say when."""
    first_line = time.time()
    import tensorflow  # noqa: F401

    after_import = time.time()
    from tf_keras_worker import fit

    steps: list[float] = []
    fit(config["dataset"], 1, on_train_batch_end=lambda *_: steps.append(time.time()))
    rank = get_context().get_world_rank()
    Path(config["folder"], f"{rank}.json").write_text(json.dumps([first_line, after_import, steps[0]]))


if __name__ == "__main__":
    folder, dataset = sys.argv[1:]
    ray.init()
    TensorflowTrainer(
        train_loop,
        train_loop_config={"folder": folder, "dataset": dataset},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=folder),
    ).fit()
