"""TensorFlow Serving's REST protocol: what it takes, what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
import base64
import io
import types
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image

from mnist_core.config_serve import ServeConfig
from mnist_core.errors import ModelNotFoundError
from mnist_core.images import ImageLimits
from mnist_core.predictor import Predictions
from serve import protocol_tfs
from serve.calls import Call
from serve.http_errors import plain_error_reply
from serve.routing import Router
from serve.service import Service

IMAGES = np.random.default_rng(7).integers(2, 256, (4, 28, 28)).astype(np.uint8)
IMAGES[:, [0, -1]] = IMAGES[:, :, [0, -1]] = 0  # white on black
PREDICT = "/v1/models/mnist:predict"


class StubService(Service):
    """The real service over a model whose probabilities are ten pixels of an image."""

    def __init__(self, **config: Any) -> None:
        self.config = ServeConfig(storage="storage", **config)
        self.limits = ImageLimits()
        self.metrics: Any = types.SimpleNamespace(decoded=lambda *_: None, answered=lambda *_: None)
        self.batcher: Any = types.SimpleNamespace(predict=self._predict)
        self._decoders, self._undecoded = None, 0  # the decoders of the event loop
        self.models: Any = types.SimpleNamespace(name="mnist", loaded=self._loaded, open=self._open)

    def _loaded(self, version):
        if version not in (None, "1", "2"):
            return None
        return types.SimpleNamespace(name="mnist", version=version or "2", reference=f"mnist/{version or 2}")

    def _open(self, version):
        raise ModelNotFoundError(f"model 'mnist' has no version {version!r}")

    async def model(self, version):
        return self._loaded(version) or self._open(version)

    async def _predict(self, images, *_):
        return predict(images)


def predict(images):
    probabilities = images[:, 14, 9:19].astype(np.float32) + 1
    strangeness = images[:, 3, 3].astype(np.float32) / 128
    return Predictions(probabilities / probabilities.sum(1, keepdims=True), strangeness)


def ask(body: Any, path: str = PREDICT, method: str = "POST", **config: Any) -> tuple[int, Any]:
    """Status and content of the answer."""
    route, version = Router(protocol_tfs.ROUTES, "mnist").find(method, path)
    content = body if isinstance(body, bytes) else orjson.dumps(body)

    async def answer():
        try:
            return await route.handler(Call(content, {}, version=version), StubService(**config))
        except Exception as err:
            return route.error(err, "id-1")

    reply = asyncio.run(answer())
    return reply.status, orjson.loads(reply.body)


def refusal(body: Any, **config: Any) -> str:
    """Why a request is refused, with 400."""
    status, content = ask(body, **config)
    assert status == 400
    assert content.keys() == {"error"}
    assert len(content["error"].splitlines()) == 1
    return content["error"]


def encode(pixels: np.ndarray) -> dict[str, str]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"b64": base64.b64encode(buffer.getvalue()).decode()}


def rows(images: np.ndarray) -> list[dict[str, Any]]:
    found = predict(images)
    return [
        {"digit": digit, "confidence": confidence, "probabilities": probabilities, "rejected": rejected}
        for digit, confidence, probabilities, rejected in zip(
            found.digits.tolist(),
            found.confidences.tolist(),
            found.probabilities.tolist(),
            found.rejected.tolist(),
            strict=True,
        )
    ]


def same(answer: Any, expected: Any) -> bool:
    """Equal, but for digits of a float32 that JSON does not have."""
    if isinstance(expected, float):
        return np.float32(answer) == np.float32(expected)
    if isinstance(expected, list | dict):
        keys = expected if isinstance(expected, dict) else range(len(expected))
        return len(answer) == len(expected) and all(same(answer[key], expected[key]) for key in keys)
    return answer == expected and type(answer) is type(expected)


@pytest.mark.parametrize(
    "instances",
    [
        IMAGES.tolist(),
        IMAGES.reshape(4, 784).tolist(),
        IMAGES[..., None].tolist(),
        IMAGES.astype(float).tolist(),
        (IMAGES / 255).tolist(),
        [encode(image) for image in IMAGES],
        [{"image": image.tolist()} for image in IMAGES],
        [{"image": encode(image)} for image in IMAGES],
        [encode(IMAGES[0]), IMAGES[1].tolist(), {"image": encode(IMAGES[2])}, (IMAGES[3] / 255).tolist()],
    ],
    ids=["rows", "flat", "28x28x1", "floats", "of 0 to 1", "files", "named", "named files", "mixed"],
)
def test_an_instance_may_have_any_of_these_forms(instances: Any):
    status, content = ask({"instances": instances})
    assert (status, content.keys()) == (200, {"predictions"})
    assert same(content["predictions"], rows(IMAGES))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("images", [IMAGES.tolist(), [encode(image) for image in IMAGES]], ids=["pixels", "files"])
def test_inputs_are_answered_by_column(named: bool, images: Any):
    status, content = ask({"inputs": {"image": images} if named else images})
    assert (status, content.keys()) == (200, {"outputs"})
    expected = rows(IMAGES)
    assert same(content["outputs"], {name: [row[name] for row in expected] for name in expected[0]})


@pytest.mark.parametrize("name", ["serving_default", ""])
def test_the_only_signature_may_be_named(name: str):
    assert ask({"signature_name": name, "instances": IMAGES[:1].tolist()})[0] == 200
    assert "'serving_default'" in refusal({"signature_name": "other", "instances": IMAGES[:1].tolist()})


def test_an_image_of_ones_and_zeros_is_one_of_0_to_1():
    drawn = (IMAGES > 99).astype(np.uint8)
    assert same(ask({"instances": [drawn.tolist() for drawn in drawn]})[1]["predictions"], rows(drawn * 255))


def test_dark_ink_on_light_paper_is_the_same_digit():
    assert same(ask({"instances": (255 - IMAGES).tolist()})[1]["predictions"], rows(IMAGES))


def test_a_version_is_answered_for_by_itself():
    body = {"instances": IMAGES[:1].tolist()}
    assert ask(body, "/v1/models/mnist/versions/1:predict")[0] == 200
    assert ask(body, "/v1/models/mnist/versions/7:predict") == (404, {"error": "model 'mnist' has no version '7'"})


@pytest.mark.parametrize(("path", "version"), [("", "2"), ("/versions/1", "1")])
def test_status_and_metadata_are_of_the_version_that_is_asked_for(path: str, version: str):
    fine = {"error_code": "OK", "error_message": ""}
    assert ask(b"", f"/v1/models/mnist{path}", "GET") == (
        200,
        {"model_version_status": [{"version": version, "state": "AVAILABLE", "status": fine}]},
    )
    status, content = ask(b"", f"/v1/models/mnist{path}/metadata", "GET")
    assert (status, content["model_spec"]) == (200, {"name": "mnist", "signature_name": "", "version": version})
    signature = content["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert [size["size"] for size in signature["inputs"]["image"]["tensor_shape"]["dim"]] == ["-1", "28", "28"]
    assert signature["outputs"].keys() == rows(IMAGES[:1])[0].keys()


@pytest.mark.parametrize("path", ["/versions/7", "/versions/7/metadata"])
def test_a_version_that_is_not_there_is_404(path: str):
    assert ask(b"", f"/v1/models/mnist{path}", "GET")[0] == 404


def test_every_bad_image_is_named():
    bad: list[Any] = [{"b64": "AAAA"}, {"b64": "!"}, np.zeros((28, 28), int).tolist(), [1, 2], None, 5, [[1] * 28] * 27]
    assert refusal({"instances": [*bad[:1], IMAGES[0].tolist(), *bad[:1], *bad[:1]]}).startswith("instances[0, 2-3]: ")
    assert refusal({"inputs": [IMAGES[0].tolist(), bad[2]]}).startswith("inputs[1]: expected a digit")
    message = refusal({"instances": [IMAGES[0].tolist(), *bad[3:], bad[1], IMAGES[1].tolist()]})
    assert message.startswith("instances[1]: received a list of 2, expected 28 rows of 28 numbers, 784 numbers")
    assert message.endswith("instances[4-5]: bad for other reasons")


FULL = [[7] * 28] * 28


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        ([[7] * 28] * 27, "a list of 27"),
        ([*FULL[:27], [7] * 27], "a list of 27 as row 27"),
        ([*FULL[:27], 7], "a number as row 27"),
        ([*FULL[:27], [True] * 28], "a boolean among the pixels"),
        ([7] * 783 + [True], "a boolean among the pixels"),
        ([7] * 783 + ["7"], "a string among the pixels"),
        ([7] * 782 + [None, [7]], "a list and null among the pixels"),
        ([7] * 783 + [256], "7 to 256, expected 0 to 255"),
        ([7] * 783 + [-1], "-1 to 7, expected 0 to 255"),
        ([7] * 783 + [2**64 - 1], "expected 0 to 255"),
        ([7] * 783 + [1e308], "expected 0 to 255"),
        ([7] * 783 + [-0.001], "expected 0 to 255"),
        ([[[7]] * 28] * 27 + [[[7, 7]] * 28], "28x28x1"),
        ([[[7]] * 28] * 27 + [[7] * 28], "28x28x1"),
        ([[[[7]]] * 28] * 28, "a list among the pixels"),
        ([[[]] * 28] * 28, "28x28x1"),
        ([], "a list of 0"),
        ({}, "an empty object"),
        ({"x" * 99: 1}, f"an object with '{'x' * 40}'"),
        ({"b64": encode(IMAGES[0])["b64"], "image": 1}, "an object with 'b64', 'image'"),
        ({"b64": 7}, "b64: received int"),
        ({"image": {"image": FULL}}, "an object with 'image'"),
        ("AAAA", "'AAAA'"),
        (None, "null"),
    ],
)
def test_what_is_no_image_is_refused_with_what_was_received(instance: Any, reason: str):
    assert reason in refusal({"instances": [instance]})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b'{"instances": [[NaN]]}', "no JSON"),
        (b'{"instances": [[1e999]]}', "no JSON"),
        (b'{"instances": ' + b"[" * 2000, "no JSON"),
        (b'{"instances": ' + b'{"image":' * 2000, "no JSON"),
        (b"[1]", "received neither"),
        (b"{}", "received neither"),
        (b"7", "received neither"),
        (b'"instances"', "received neither"),
        (b'{"instances": [], "inputs": []}', "received instances and inputs"),
        (b'{"instances": []}', "instances: received an empty list"),
        (b'{"instances": {"b64": "AAAA"}}', "instances: received an object with 'b64'"),
        (b'{"instances": null}', "instances: received null"),
        (b'{"inputs": {"x": [1]}}', "expected the one input 'image'"),
        (b'{"inputs": {"image": 1}}', "inputs.image: received a number"),
        (b'{"inputs": {"image": [{"image": 1}]}}', "an object with 'image'"),
        (b'{"instances": [1], "signature_name": ["serving_default"]}', "signature_name: received a list"),
    ],
)
def test_what_is_no_request_is_refused_with_what_was_received(body: bytes, reason: str):
    assert reason in refusal(body)


def test_images_are_counted_before_they_are_looked_at():
    status, content = ask({"instances": [None] * 5}, max_request_images=4)
    assert status == 413
    assert "received 5 images, expected at most 4" in content["error"]


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"0,", b"[" * 500 + b"]" * 500 + b","])
def test_what_would_be_millions_of_values_is_refused_unread(unit: bytes, monkeypatch: pytest.MonkeyPatch):
    blind = types.SimpleNamespace(**{**vars(orjson), "loads": lambda _: pytest.fail("it was parsed")})
    monkeypatch.setattr("serve.calls.orjson", blind)
    status, content = ask(b'{"instances": [' + unit * (2**24 // len(unit)) + b"0]}", max_request_images=64)
    assert status == 413
    assert "expected at most so many images" in content["error"]


def test_as_many_images_as_are_allowed_are_taken_in_their_longest_form():
    images = np.resize(IMAGES, (64, 28, 28, 1))
    body = {"instances": [{"image": image.tolist()} for image in images]}
    assert ask(body, max_request_images=64)[0] == 200


def test_what_is_our_fault_is_not_told():
    assert plain_error_reply(ZeroDivisionError("secret"), "id-1").status == 500
    assert b"secret" not in plain_error_reply(ZeroDivisionError("secret"), "id-1").body


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/v1/models/other:predict", "model: received 'other', expected 'mnist'"),
        ("/v1/models/other", "model: received 'other', expected 'mnist'"),
        ("/v1/models/mnist/labels/x", "/v1/models/mnist:predict is one"),
        ("/v1/", "/v1/models/mnist:predict is one"),
    ],
)
def test_a_path_that_is_not_there_is_told_as_the_protocol_does(path: str, reason: str):
    err = protocol_tfs.no_such_path(path, StubService())
    reply = plain_error_reply(err, "id-1")
    assert reply.status == 404
    assert reason in orjson.loads(reply.body)["error"]
