"""What Ray's manual suggests: ``read_images`` and ``map_batches`` with Keras's ``model.predict`` in an actor.

``score_ray_data.py MODEL.keras FOLDER`` prints one JSON object: images, and seconds from the start of the pipeline,
with Ray already there, to the last answer.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ.setdefault("RAY_AUTH_MODE", "token")

import numpy as np
import ray


class Model:
    """Loaded once an actor."""

    def __init__(self, path: str) -> None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        import keras

        self.model = keras.saving.load_model(path)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predict a batch."""
        found = self.model.predict(batch["image"], verbose=0)
        return {"digit": found["probabilities"].argmax(axis=1), "path": batch["path"]}


def main(model: str, folder: str) -> None:
    """Score and print the time."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    started = time.perf_counter()
    images = ray.data.read_images(folder, mode="L", include_paths=True)
    strategy = ray.data.ActorPoolStrategy(size=1)  # a CPU for the model, one to read: with two nothing is read
    digits = images.map_batches(Model, fn_constructor_args=[model], batch_size=128, compute=strategy, num_cpus=1)
    count = sum(len(batch["digit"]) for batch in digits.iter_batches(batch_size=None))
    print(json.dumps({"images": count, "seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
