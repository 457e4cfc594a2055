"""The plain way to start TensorFlow on Ray: ``ray.init``, ``TensorflowTrainer``, a loop that imports TensorFlow.

``ray_start.py FOLDER`` makes each of two workers write a file there: seconds since 1970 at the loop's first line, and
after its import.
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
    """Import TensorFlow and say when."""
    first_line = time.time()
    import tensorflow  # noqa: F401

    after_import = time.time()
    rank = get_context().get_world_rank()
    Path(config["folder"], f"{rank}.json").write_text(json.dumps([first_line, after_import]))


if __name__ == "__main__":
    folder = sys.argv[1]
    ray.init()
    TensorflowTrainer(
        train_loop,
        train_loop_config={"folder": folder},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=folder),
    ).fit()
