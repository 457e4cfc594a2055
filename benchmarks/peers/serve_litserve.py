"""LitServe with LiteRT: ``serve_litserve.py MODEL.tflite PORT``; ``POST /predict`` takes ``{"image": base64}``.

Raw bytes are not among what LitServe reads by itself. One worker, as it comes, with its faster queue.
"""

import base64
import sys
from pathlib import Path
from typing import Any

import litserve
from fastapi import Request
from serve_engine import Engine, answer


class Classifier(litserve.LitAPI):
    """The engine behind LitServe's queue."""

    def __init__(self, model: Path) -> None:
        super().__init__()
        self._model = model

    def setup(self, device: str) -> None:
        """Load; called in the worker."""
        del device
        self._engine = Engine(self._model)

    def decode_request(self, request: Request) -> bytes:
        """The pixels; for LitServe this annotation, which must be a class, means the JSON in the request."""
        return base64.b64decode(request["image"])

    def predict(self, pixels: bytes) -> dict[str, Any]:
        """The answer."""
        return answer(self._engine, pixels)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """It is JSON already."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(Path(sys.argv[1])), accelerator="cpu", fast_queue=True)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False, generate_client_file=False
    )
