"""The Open Inference Protocol V2 over REST: what it takes and what it answers."""

from __future__ import annotations

import base64

import numpy as np
import orjson
import pytest
from v2_requests import (
    IMAGES,
    JSON_LENGTH,
    FakeService,
    ask,
    check_answers,
    error_of,
    infer,
    outputs_of,
    png,
    predict,
    prefixed,
    tensor,
)

from serve import protocol_v2
from serve.http_errors import plain_error_reply


@pytest.mark.parametrize("shape", [(5, 28, 28), (5, 28, 28, 1), (5, 784)])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
def test_pixels_in_json_are_flat_or_nested_like_their_shape(datatype, shape, nested):
    data = IMAGES.reshape(shape).tolist() if nested else IMAGES.ravel().tolist()
    check_answers(outputs_of(infer({"inputs": [tensor(datatype, shape, data=data)]})), IMAGES)


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("binary", [True, False])
def test_floats_may_be_of_0_to_1_or_of_0_to_255(scale, binary):
    values = IMAGES.astype(np.float32) / np.float32(scale)
    if binary:
        parameters = {"binary_data_size": values.nbytes}
        reply = infer({"inputs": [tensor("FP32", parameters=parameters)]}, values.tobytes())
    else:
        reply = infer({"inputs": [tensor("FP32", data=values.ravel().tolist())]})
    check_answers(outputs_of(reply), IMAGES)


def test_each_image_decides_for_itself_which_range_its_floats_have():
    values = IMAGES.astype(np.float32)
    values[1] /= 255
    check_answers(outputs_of(infer({"inputs": [tensor("FP32", data=values.ravel().tolist())]})), IMAGES)


def test_binary_pixels_are_not_copied_on_their_way_to_the_model():
    class Watching(FakeService):
        async def classify_pixels(self, images, version, deadline):
            self.owner = images
            while isinstance(self.owner, np.ndarray):
                self.owner = self.owner.base
            return await super().classify_pixels(images, version, deadline)

    service = Watching()
    reply = infer({"inputs": [tensor(parameters={"binary_data_size": 3920})]}, IMAGES.tobytes(), service=service)
    check_answers(outputs_of(reply), IMAGES)
    assert isinstance(service.owner, memoryview)


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_image_files_are_bytes_in_binary_form_and_base64_in_json(shape):
    files = [png(image) for image in IMAGES]
    body = prefixed(files)
    check_answers(
        outputs_of(infer({"inputs": [tensor("BYTES", shape, parameters={"binary_data_size": len(body)})]}, body)),
        IMAGES,
    )
    texts = np.array([base64.b64encode(file).decode() for file in files])
    for data in (texts.tolist(), texts.reshape(shape).tolist()):
        check_answers(outputs_of(infer({"inputs": [tensor("BYTES", shape, data=data)]})), IMAGES)


def test_no_image_is_no_output():
    for datatype, shape in (("UINT8", (0, 28, 28)), ("FP32", (0, 784)), ("BYTES", (0, 1))):
        found = outputs_of(infer({"inputs": [tensor(datatype, shape, data=[])]}))
        assert found["probabilities"].shape == (0, 10)
        assert found["digit"].shape == (0,)
    request = {"inputs": [tensor(shape=(0, 28, 28), data=[])], "parameters": {"binary_data_output": True}}
    assert outputs_of(infer(request))["rejected"].shape == (0,)


def test_a_body_of_nothing_but_pixels_is_announced_by_a_json_length_of_0():
    reply = ask("/v2/models/mnist/infer", IMAGES.tobytes(), [(JSON_LENGTH, b"0")])
    assert reply.content_type == b"application/octet-stream"
    check_answers(outputs_of(reply), IMAGES)
    assert "expected 784" in error_of(ask("/v2/models/mnist/infer", b"x" * 785, [(JSON_LENGTH, b"0")]))


def test_outputs_are_those_that_are_asked_for_each_in_its_form():
    wanted = [{"name": "rejected", "parameters": {"binary_data": True}}, {"name": "digit"}]
    reply = infer({"inputs": [tensor(data=IMAGES.ravel().tolist())], "outputs": wanted})
    assert reply.content_type == b"application/octet-stream"
    check_answers(outputs_of(reply), IMAGES, ["rejected", "digit"])
    length = int(dict(reply.headers)[JSON_LENGTH])
    described = orjson.loads(reply.body[:length])["outputs"]
    assert described[0]["parameters"] == {"binary_data_size": 5}
    assert "data" not in described[0]
    assert described[1]["data"] == predict(IMAGES).digits.tolist()


def test_an_output_may_differ_from_what_all_are_wanted_like():
    request = {
        "inputs": [tensor(data=IMAGES.ravel().tolist())],
        "parameters": {"binary_data_output": True},
        "outputs": [
            {"name": "confidence", "parameters": {"binary_data": False}},
            {"name": "digit", "parameters": None},
        ],
    }
    reply = infer(request)
    check_answers(outputs_of(reply), IMAGES, ["confidence", "digit"])
    assert len(reply.body) == int(dict(reply.headers)[JSON_LENGTH]) + 5 * 8


@pytest.mark.parametrize("more", [{}, {"outputs": []}, {"outputs": None, "parameters": None, "id": None}])
def test_what_is_absent_null_or_empty_means_the_default(more):
    reply = infer({"inputs": [tensor(data=IMAGES.ravel().tolist(), parameters=None)], **more})
    assert reply.content_type == b"application/json"
    check_answers(outputs_of(reply), IMAGES)


def test_the_answer_says_the_model_its_version_and_the_requests_id():
    request = {"id": "a 5", "inputs": [tensor(data=IMAGES.ravel().tolist())], "outputs": [{"name": "digit"}]}
    answer = orjson.loads(infer(request).body)
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("mnist", "2", "a 5")
    answer = orjson.loads(infer({**request, "id": ""}, path="/v2/models/mnist/versions/3/infer").body)
    assert (answer["model_version"], answer["id"]) == ("3", "")


def test_metadata_names_all_versions_and_tensors():
    metadata = orjson.loads(ask("/v2/models/mnist").body)
    assert metadata["name"] == "mnist"
    assert metadata["versions"] == ["1", "2", "3"]
    assert metadata["platform"]
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28]}]
    assert [(each["name"], each["datatype"], each["shape"]) for each in metadata["outputs"]] == [
        ("probabilities", "FP32", [-1, 10]),
        ("digit", "INT64", [-1]),
        ("confidence", "FP32", [-1]),
        ("rejected", "BOOL", [-1]),
    ]
    assert orjson.loads(ask("/v2/models/mnist/versions/1").body) == metadata
    assert "has no version '4'" in error_of(ask("/v2/models/mnist/versions/4"), 404)


def test_the_server_says_what_it_is_and_that_it_is_there():
    server = orjson.loads(ask("/v2").body)
    assert server["name"] == "mnist-on-ray"
    assert server["extensions"] == ["binary_tensor_data"]
    assert orjson.loads(ask("/v2/health/live").body) == {"live": True}
    assert orjson.loads(ask("/v2/health/ready").body) == {"ready": True}
    assert orjson.loads(ask("/v2/models/mnist/ready").body) == {"name": "mnist", "ready": True}
    assert orjson.loads(ask("/v2/models/mnist/versions/3/ready").body) == {"name": "mnist", "ready": True}
    assert "9" in error_of(ask("/v2/models/mnist/versions/9/ready"), 404)


def test_only_health_is_told_without_an_api_key():
    assert {route.path for route in protocol_v2.ROUTES if not route.guarded} == {"/v2/health/live", "/v2/health/ready"}


def test_another_model_and_other_paths_are_told_apart():
    service = FakeService()
    other = protocol_v2.no_such_path("/v2/models/other/versions/1/infer", service)
    assert error_of(plain_error_reply(other, "r"), 404) == "model: received 'other', expected 'mnist', which is served"
    for path in (
        "/v2/models",
        "/v2/repository/index",
        "/v2/models/mnist/config",
        "/v2/models/mnist/",
        "/v2/" + "x" * 999,
    ):
        message = error_of(plain_error_reply(protocol_v2.no_such_path(path, service), "r"), 404)
        assert message.startswith("path '/v2/")
        assert len(message) < 200


def test_bad_images_make_the_request_bad_and_are_all_named():
    images = IMAGES.copy()
    images[[1, 2, 4]] = 0
    request = {"inputs": [tensor(parameters={"binary_data_size": images.nbytes})]}
    assert error_of(infer(request, images.tobytes())) == "images 1-2, 4: found no ink; send the other 2 without them"
    files = prefixed([png(IMAGES[0]), b"", b"GIF", b""])
    message = error_of(infer({"inputs": [tensor("BYTES", (4,), parameters={"binary_data_size": len(files)})]}, files))
    assert "images 1, 3: received no bytes" in message
    assert "image 2: " in message
    message = error_of(infer({"inputs": [tensor("BYTES", (1,), data=[""])]}))
    assert message == "image 0: received no bytes, expected an image file"
