"""BentoML with LiteRT: ``bentoml serve serve_bentoml:Classifier --port PORT``; MODEL_FILE names the model.

``POST /predict`` takes ``{"image": base64}``: raw bytes would be written to a file first. One worker, as it comes.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import bentoml
from serve_engine import Engine, answer


@bentoml.service
class Classifier:
    """The engine behind BentoML's API."""

    def __init__(self) -> None:
        self._engine = Engine(Path(os.environ["MODEL_FILE"]))

    @bentoml.api
    async def predict(self, image: str) -> dict[str, Any]:
        """The answer, on the event loop: a thread would cost more than the engine needs."""
        return answer(self._engine, base64.b64decode(image))
