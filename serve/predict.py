"""``POST /predict``: one image as the body, several as multipart, or JSON with base64.

The answer is the same for one and for many: ``{"predictions": [...], "model_version": "mnist/3"}``, one prediction an
image, in order. A bad image among several is one ``{"error": ...}`` among the predictions; one that came alone is the
request's error.
"""

from __future__ import annotations

import base64
from typing import Any, Final
from urllib.parse import parse_qs

import numpy as np

from mnist_core.errors import RequestError, UnsupportedMediaError
from mnist_core.splits import IMAGE_SIZE
from serve.calls import Call, Reply, json_reply, read_json
from serve.multipart import read_files
from serve.openapi import PREDICT_DOCS
from serve.pixels import PIXELS, decode_base64
from serve.routing import Route
from serve.service import Answer, Service

EXPECTED: Final = (
    "an image (image/*), 784 raw bytes an image (application/octet-stream), several files (multipart/form-data) or "
    '{"images": [base64, ...]} (application/json)'
)


async def predict(call: Call, service: Service) -> Reply:
    """Answer one request.

    Raises:
        MnistError: It cannot be answered; ``serve.http_errors`` says with which status.
    """
    kind, _, parameters = call.header(b"content-type").partition(b";")
    kind = kind.strip().lower()
    if kind == b"application/octet-stream" and len(call.body) % PIXELS == 0 and call.body:
        images = np.frombuffer(call.body, np.uint8).reshape(-1, *IMAGE_SIZE)
        answer = await service.classify_pixels(images, call.version, call.deadline)
    else:
        files = _read_files(kind, parameters, call, service)
        answer = await service.classify_files(files, call.version, call.deadline)
    if len(answer.pixels) == 1 and answer.errors:
        raise answer.errors.pop(0)  # else the error's frame would hold it
    return json_reply(_describe(answer, call))


def _read_files(kind: bytes, parameters: bytes, call: Call, service: Service) -> list[bytes]:
    if kind.startswith(b"image/"):
        return [call.body]
    if kind == b"application/json":
        return _read_base64(call.body, service)
    if kind == b"multipart/form-data":
        return read_files(call.body, parameters, service.config.max_request_images)
    if kind in (b"application/octet-stream", b"", b"application/x-www-form-urlencoded"):  # what curl -d says by itself
        return [call.body]
    raise UnsupportedMediaError(f"content-type: received {kind.decode('latin-1')!r}, expected {EXPECTED}")


def _read_base64(body: bytes, service: Service) -> list[bytes]:
    try:
        value = read_json(body, service.config.max_request_images)
    except ValueError as err:
        raise RequestError(f"body: received no JSON ({err}), expected {EXPECTED}") from err
    images = value.get("images") if isinstance(value, dict) else None
    if not isinstance(images, list) or not images:
        raise RequestError('body: expected {"images": [base64, ...]} with one image at least')
    service.check_count(len(images))
    return [decode_base64(image, f"images[{index}]") for index, image in enumerate(images)]


def _describe(answer: Answer, call: Call) -> dict[str, Any]:
    digits = answer.predictions.digits.tolist()
    confidences = answer.predictions.confidences
    rejected = answer.predictions.rejected.tolist()
    predictions: list[dict[str, Any]] = [
        {
            "digit": digits[index],
            "confidence": confidences[index],
            "probabilities": answer.predictions.probabilities[index],
            "rejected": rejected[index],
        }
        for index in range(len(digits))
    ]
    for index, err in answer.errors.items():
        predictions[index] = {"error": {"code": err.code, "message": str(err)}}
    if call.query and parse_qs(call.query.decode("latin-1")).get("pixels", [""])[-1].lower() in ("1", "true", "yes"):
        for prediction, pixels in zip(predictions, answer.pixels, strict=True):
            if "error" not in prediction:
                prediction["pixels"] = base64.b64encode(pixels.tobytes()).decode()
    return {"predictions": predictions, "model_version": answer.model.reference}


ROUTES: Final = (
    Route("POST", "/predict", predict, "predict", "The digits of one or several images", docs=PREDICT_DOCS),
)
