"""``POST /predict``: one image as the body, several as multipart, or JSON with base64.

The answer is the same for one and for many: ``{"predictions": [...], "model_version": "mnist/3"}``, one prediction an
image, in order. A bad image among several is one ``{"error": ...}`` among the predictions; one that came alone is the
request's error. Of several frames or pages the first is read, and the prediction has a ``remark``. With ``?split=true``
an image is a picture of several digits, and a prediction is ``{"text": "90210", "digits": [...]}``, each digit with its
box; in the text, ``?`` stands for one that is rejected. Bytes that do not say whether they are pixels or a file
(``application/octet-stream``) are pixels if they are as long as some images, unless they begin as a file does.
"""

from __future__ import annotations

import base64
from typing import Any, Final
from urllib.parse import parse_qs

import numpy as np

from mnist_core.cutting import Digits
from mnist_core.errors import ImageError, NotAnImageError, RequestError, UnsupportedMediaError
from mnist_core.image_files import looks_encoded
from mnist_core.predictor import Predictions
from mnist_core.scoring import FIRST_FRAME, describe_frames
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
    if call.query and _asks(call, "split"):
        return await _split(kind, parameters, call, service)
    body = call.body
    if kind == b"application/octet-stream" and len(body) % PIXELS == 0 and body and not looks_encoded(body):
        images = np.frombuffer(body, np.uint8).reshape(-1, *IMAGE_SIZE)
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
    predictions = _list_digits(answer.predictions)
    for index, num_frames in answer.frames.items():
        predictions[index]["remark"] = _remark(num_frames)
    for index, err in answer.errors.items():
        predictions[index] = _describe_error(err)
    if call.query and _asks(call, "pixels"):
        for prediction, pixels in zip(predictions, answer.pixels, strict=True):
            if "error" not in prediction:
                prediction["pixels"] = base64.b64encode(pixels.tobytes()).decode()
    return {"predictions": predictions, "model_version": answer.model.reference}


async def _split(kind: bytes, parameters: bytes, call: Call, service: Service) -> Reply:
    """Answer a request whose images are pictures of several digits."""
    answer = await service.split_files(_read_files(kind, parameters, call, service), call.version, call.deadline)
    if kind == b"application/octet-stream" and isinstance(answer.errors.get(0), NotAnImageError):
        raise RequestError(
            f"body: received {len(call.body)} bytes that are no image file, expected one with split (PNG, JPEG, BMP, "
            "GIF, WebP or TIFF); pixels of 28x28 are one digit each, send them without split"
        )
    if not answer.digits and len(answer.errors) == 1:
        raise answer.errors.pop(0)
    with_pixels = _asks(call, "pixels")
    predictions = [
        _describe_error(answer.errors[index])
        if index in answer.errors
        else _describe_line(answer.digits[index], with_pixels)
        for index in range(len(answer.digits) + len(answer.errors))
    ]
    return json_reply({"predictions": predictions, "model_version": answer.model.reference})


def _describe_line(found: Digits, with_pixels: bool) -> dict[str, Any]:
    digits = _list_digits(found.predictions)
    for digit, line, box, pixels in zip(digits, found.lines.tolist(), found.boxes.tolist(), found.pixels, strict=True):
        digit["line"] = line
        digit["box"] = dict(zip("xywh", box, strict=True))
        if with_pixels:
            digit["pixels"] = base64.b64encode(pixels.tobytes()).decode()
    remark = {"remark": _remark(found.num_frames)} if found.num_frames > 1 else {}
    return {"text": found.text, "digits": digits, **remark}


def _list_digits(predictions: Predictions) -> list[dict[str, Any]]:
    rows = zip(predictions.digits.tolist(), predictions.probabilities, predictions.rejected.tolist(), strict=True)
    return [
        {"digit": digit, "confidence": probabilities[digit], "probabilities": probabilities, "rejected": rejected}
        for digit, probabilities, rejected in rows
    ]


def _describe_error(err: ImageError) -> dict[str, Any]:
    return {"error": {"code": err.code, "message": str(err)}}


def _remark(num_frames: int) -> dict[str, str]:
    """What is told with the digits of an image of several frames, as ``mnist predict`` and ``mnist score`` do."""
    return {"code": FIRST_FRAME, "message": describe_frames(num_frames)}


def _asks(call: Call, name: str) -> bool:
    """Whether the query says yes to that."""
    return parse_qs(call.query.decode("latin-1")).get(name, [""])[-1].lower() in ("1", "true", "yes")


ROUTES: Final = (
    Route("POST", "/predict", predict, "predict", "The digits of one or several images", docs=PREDICT_DOCS),
)
