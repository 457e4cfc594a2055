"""Requests of the Open Inference Protocol V2, a service that answers them without a model, and what is to come out."""

from __future__ import annotations

import asyncio
import io
import struct
import types

import numpy as np
import orjson
from PIL import Image

from mnist_core.config_serve import ServeConfig
from mnist_core.errors import ImageBlankError, ModelNotFoundError, RequestTooLargeError
from mnist_core.images import ImageLimits, prepare_images
from mnist_core.predictor import Predictions
from serve import protocol_v2
from serve.calls import Call
from serve.routing import Router
from serve.service import Answer, decode_files
from serve.v2_tensors import OUTPUTS

IMAGES = np.random.default_rng(5).integers(0, 256, (5, 28, 28)).astype(np.uint8)
IMAGES[:, 0] = IMAGES[:, -1] = IMAGES[:, :, 0] = IMAGES[:, :, -1] = 0  # white on black
JSON_LENGTH = b"inference-header-content-length"


class FakeService:
    """A service whose model answers with what an image has in one row of pixels."""

    def __init__(self, **config):
        self.config = ServeConfig(storage="storage", **config)
        self.models = types.SimpleNamespace(name="mnist", versions=lambda: ["1", "2", "3"])
        self.failure = None

    async def model(self, version):
        if version not in (None, "1", "2", "3"):
            raise ModelNotFoundError(f"model 'mnist' has no version {version!r}")
        return types.SimpleNamespace(name="mnist", version=version or "2")

    def check_count(self, count):
        if count > self.config.max_request_images:
            raise RequestTooLargeError(f"received {count} images")

    async def classify_pixels(self, images, version, deadline):
        assert images.dtype == np.uint8
        assert images.shape[1:] == (28, 28)
        prepared, blank = prepare_images(images)
        found = {int(index): ImageBlankError("found no ink") for index in np.flatnonzero(blank)}
        return await self._answer(prepared, found, version, deadline)

    async def classify_files(self, files, version, deadline):
        return await self._answer(*decode_files(files, ImageLimits(), deadline)[:2], version, deadline)

    async def _answer(self, pixels, errors, version, deadline):
        assert deadline > 0
        if self.failure:
            raise self.failure
        return Answer(await self.model(version), pixels, predict(pixels), errors)


def predict(images):
    probabilities = images[:, 14, 4:14].astype(np.float32) / np.float32(2550)
    return Predictions(probabilities, images[:, 14, 20].astype(np.float32) / np.float32(128))


def ask(path, body=b"", headers=(), service=None, method=None):
    """Status, headers and body of an answer, the way a replica comes to it."""
    service = service or FakeService()
    found = Router(protocol_v2.ROUTES, "mnist").find(method or ("POST" if body else "GET"), path)
    assert found, f"no route for {path}"
    route, version = found
    call = Call(body, dict(headers), version=version, request_id="r1")
    try:
        reply = asyncio.run(route.handler(call, service))
    except Exception as err:
        reply = route.error(err, "r1")
    assert (reply.status == 200) == (not reply.code)
    return reply


def infer(request, binary=b"", *, path="/v2/models/mnist/infer", service=None, headers=()):
    head = orjson.dumps(request)
    length = ((JSON_LENGTH, b"%d" % len(head)),) if binary else ()
    return ask(path, head + binary, (*length, *headers), service)


def tensor(datatype="UINT8", shape=(5, 28, 28), **more):
    return {"name": "images", "datatype": datatype, "shape": [*shape], **more}


def outputs_of(reply):
    """Outputs by name as arrays, from JSON or binary."""
    assert reply.status == 200, reply.body
    headers = dict(reply.headers)
    length = int(headers.get(JSON_LENGTH, len(reply.body)))
    position, found = length, {}
    answer = orjson.loads(reply.body[:length])
    for output in answer["outputs"]:
        dtype = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}[output["datatype"]]
        if "parameters" in output:
            size = output["parameters"]["binary_data_size"]
            values = np.frombuffer(reply.body[position : position + size], dtype)
            position += size
        else:
            values = np.array(output["data"], dtype)
        found[output["name"]] = values.reshape(output["shape"])
    assert position == len(reply.body)
    return found


def check_answers(found, images, names=tuple(OUTPUTS)):
    expected = predict(images)
    wanted = {
        "probabilities": expected.probabilities,
        "digit": expected.digits.astype(np.int64),
        "confidence": expected.confidences,
        "rejected": expected.rejected,
    }
    assert list(found) == list(names)
    for name, values in found.items():
        assert values.dtype == wanted[name].dtype
        np.testing.assert_array_equal(values, wanted[name])


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def prefixed(files):
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


def error_of(reply, status=400):
    body = orjson.loads(reply.body)
    assert list(body) == ["error"]
    assert reply.status == status, body
    assert "\n" not in body["error"]
    return body["error"]
