"""Ray Serve as it comes: ``serve_ray.py MODEL.keras PORT``; ``POST /predict`` takes the 784 bytes of an image.

No flag is set, ``@serve.batch`` collects up to 64 requests for 2 ms, and Keras's ``model.predict`` computes them.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import numpy as np
import ray
from ray import serve as ray_serve
from ray.serve.config import HTTPOptions
from starlette.requests import Request


@ray_serve.deployment(max_ongoing_requests=128)
class Classifier:
    """One replica."""

    def __init__(self, model: str) -> None:
        import keras

        self._model = keras.models.load_model(model)
        self._model.predict(np.zeros((1, 28, 28), np.uint8), verbose=0)

    @ray_serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def classify(self, images: list[Any]) -> list[dict[str, Any]]:
        """Answers for several requests."""
        found = self._model.predict(np.stack(images), verbose=0)
        return [describe(*each) for each in zip(found["probabilities"], found["strangeness"], strict=True)]

    async def __call__(self, request: Request) -> dict[str, Any]:
        """The answer for one."""
        pixels = np.frombuffer(await request.body(), np.uint8)
        return await self.classify(pixels.reshape(28, 28))


def describe(probabilities: Any, strangeness: Any) -> dict[str, Any]:
    """The answer for one image, as ours gives it."""
    digit = int(probabilities.argmax())
    found = {
        "digit": digit,
        "confidence": float(probabilities[digit]),
        "probabilities": probabilities.tolist(),
        "rejected": not float(strangeness) <= 1,
    }
    return {"predictions": [found], "model_version": "mnist/1"}


if __name__ == "__main__":
    ray.init(address="local", log_to_driver=False)
    ray_serve.start(http_options=HTTPOptions(port=int(sys.argv[2])))
    ray_serve.run(Classifier.bind(sys.argv[1]), route_prefix="/predict")
    try:
        signal.pause()
    except KeyboardInterrupt:
        ray_serve.shutdown()
        ray.shutdown()
