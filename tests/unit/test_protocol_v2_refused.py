"""The Open Inference Protocol V2 over REST: what it refuses, in which words."""

from __future__ import annotations

import math

import numpy as np
import orjson
import pytest
from v2_requests import IMAGES, JSON_LENGTH, FakeService, ask, error_of, infer, prefixed, tensor

from mnist_core.errors import DeadlineError, OverloadedError

ONE = [0] * 784

MALFORMED = {
    "no JSON": (b"{", "body: received no JSON"),
    "no object": (b"[1]", "body: received [1], expected"),
    "nothing": (b" ", "body: received no JSON"),
    "a number that is none": (b'{"inputs": [NaN]}', "body: received no JSON"),
    "a deep list": (b"[" * 5000, "body: received no JSON"),
    "no inputs": ({}, "inputs: received 0 tensors"),
    "inputs that are no list": ({"inputs": {"a": 1}}, "inputs: received {...}, expected a list"),
    "inputs that are no objects": ({"inputs": [1]}, "inputs: received [1], expected a list of objects"),
    "two inputs": ({"inputs": [tensor(), tensor()]}, "inputs: received 2 tensors, expected one"),
    "another input": ({"inputs": [{**tensor(), "name": "x" * 9999}]}, "expected 'images'"),
    "no name": ({"inputs": [{"data": []}]}, "inputs[0].name: received None"),
    "an id that is no string": ({"id": 7, "inputs": [tensor(data=[])]}, "id: received 7, expected a string"),
    "another datatype": ({"inputs": [tensor("INT8", data=ONE)]}, "received 'INT8', expected UINT8 or FP32 or BYTES"),
    "a datatype that is no string": ({"inputs": [tensor(["UINT8"])]}, "inputs[0].datatype: received ['UINT8']"),
    "no data": ({"inputs": [tensor()]}, "inputs[0]: received no data"),
    "data that is null": ({"inputs": [tensor(data=None)]}, "inputs[0].data: received None, expected a list"),
    "data that is text": ({"inputs": [tensor(data="abc")]}, "inputs[0].data: received 'abc', expected a list"),
    "too few pixels": ({"inputs": [tensor(data=ONE)]}, "received 784 elements, expected 3920"),
    "a ragged list": ({"inputs": [tensor(shape=(2, 784), data=[ONE[:-1], [*ONE, 0]])]}, "received a list of 783"),
    "a list among pixels": ({"inputs": [tensor(shape=(1, 784), data=[[[], *ONE[1:]]])]}, "received list among"),
    "a pixel among lists": ({"inputs": [tensor(shape=(2, 784), data=[ONE, 1])]}, "received 1 where the shape"),
    "lists nested otherwise": ({"inputs": [tensor(shape=(1, 784), data=[[ONE[:28]] * 28])]}, "a list of 28 where"),
    "a pixel too bright": ({"inputs": [tensor(shape=(1, 784), data=[256, *ONE[1:]])]}, "received 256, expected integ"),
    "a pixel below 0": ({"inputs": [tensor(shape=(1, 784), data=[-1, *ONE[1:]])]}, "received -1, expected integers"),
    "a huge pixel": ({"inputs": [tensor(shape=(1, 784), data=[2**64 - 1, *ONE[1:]])]}, f"received {2**64 - 1}"),
    "a pixel that is true": ({"inputs": [tensor(shape=(1, 784), data=[True, *ONE[1:]])]}, "received bool among"),
    "a pixel that is text": ({"inputs": [tensor(shape=(1, 784), data=["1", *ONE[1:]])]}, "received str among"),
    "a pixel that is null": ({"inputs": [tensor(shape=(1, 784), data=[None, *ONE[1:]])]}, "received NoneType among"),
    "a float in UINT8": ({"inputs": [tensor(shape=(1, 784), data=[0.5, *ONE[1:]])]}, "received float among the pix"),
    "a float too bright": ({"inputs": [tensor("FP32", (1, 784), data=[255.1, *ONE[1:]])]}, "image 0: received pixels"),
    "a huge float": ({"inputs": [tensor("FP32", (1, 784), data=[1e300, *ONE[1:]])]}, "image 0: received pixels"),
    "a float below 0": ({"inputs": [tensor("FP32", (1, 784), data=[-0.1, *ONE[1:]])]}, "not within 0 to 255"),
    "true among floats": ({"inputs": [tensor("FP32", (1, 784), data=[True, *ONE[1:]])]}, "received bool among"),
    "a file that is no text": ({"inputs": [tensor("BYTES", (1,), data=[5])]}, "inputs[0].data[0]: received int"),
    "a file that is no base64": ({"inputs": [tensor("BYTES", (1,), data=["é"])]}, "inputs[0].data[0]: received no"),
    "too many files": ({"inputs": [tensor("BYTES", (1,), data=["", ""])]}, "received 2 elements, expected 1"),
    "parameters that are none": ({"inputs": [tensor(parameters=[])]}, "inputs[0].parameters: received []"),
    "request parameters that are none": ({"parameters": "x"}, "parameters: received 'x', expected an object"),
    "a flag that is a number": ({"parameters": {"binary_data_output": 1}}, "parameters.binary_data_output: received 1"),
    "both data and binary data": (
        {"inputs": [tensor(data=ONE, parameters={"binary_data_size": 0})]},
        "received both data and parameters.binary_data_size",
    ),
    "binary data that is not there": (
        {"inputs": [tensor(parameters={"binary_data_size": 3920})]},
        "binary_data_size: received 3920, but 0 bytes",
    ),
    "shared memory": ({"inputs": [tensor(parameters={"shared_memory_region": "x"})]}, "inputs[0]: received no data"),
    "an unknown output": (
        {"inputs": [tensor()], "outputs": [{"name": "logits"}]},
        "outputs[0].name: received 'logits'",
    ),
    "an output without a name": ({"outputs": [{}]}, "outputs[0].name: received None, expected one of probabilities"),
    "an output named by a list": ({"outputs": [{"name": ["digit"]}]}, "outputs[0].name: received ['digit']"),
    "an output twice": ({"outputs": [{"name": "digit"}] * 2}, "outputs[1].name: received 'digit' again"),
    "an output that is text": ({"outputs": ["digit"]}, "outputs: received ['digit'], expected a list of objects"),
    "classes": (
        {"outputs": [{"name": "digit", "parameters": {"classification": 3}}]},
        "outputs[0].parameters: received classification, which is not offered",
    ),
    "a flag of an output that is text": (
        {"outputs": [{"name": "digit", "parameters": {"binary_data": "true"}}]},
        "outputs[0].parameters.binary_data: received 'true', expected true or false",
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_malformed_is_told_in_one_line(what):
    request, expected = MALFORMED[what]
    message = error_of(ask("/v2/models/mnist/infer", request) if isinstance(request, bytes) else infer(request))
    assert expected in message
    assert len(message) < 400


SHAPES = [
    None,
    5,
    {},
    [],
    [28, 28],
    [1, 28],
    [1, 28, 28, 3],
    [1, 28, 28, True],
    [True, 28, 28],
    [1, 28, 28, 1, 1],
    [-1, 28, 28],
    [-1, -28, 28],
    [1.0, 28, 28],
    ["1", 28, 28],
    [None, 784],
    [math.inf, 784],
    [2**63, 784.0],
    [[1], 784],
    [1] * 100_000,
    [1, 0],
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: repr(shape)[:30])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32", "BYTES"])
def test_a_shape_that_is_none_of_the_models_is_refused(datatype, shape):
    for data in ([], ONE):
        message = error_of(infer({"inputs": [{**tensor(datatype, data=data), "shape": shape}]}))
        assert message.startswith("inputs[0].shape: received ")
        assert len(message) < 250


@pytest.mark.parametrize("size", [2049, 2**31, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize(("datatype", "tail"), [("UINT8", [28, 28]), ("FP32", [784]), ("BYTES", [])])
def test_more_images_than_a_request_may_have_are_refused_before_their_data_is_looked_at(size, datatype, tail):
    for more in ({"data": []}, {"parameters": {"binary_data_size": 4}}):
        reply = infer({"inputs": [tensor(datatype, [size, *tail], **more)]}, b"1234" if "parameters" in more else b"")
        assert str(size) in error_of(reply, 413)


BINARY = {
    "too short": (tensor(parameters={"binary_data_size": 3919}), 3919, "received 3919 bytes, expected 3920"),
    "too long": (tensor(parameters={"binary_data_size": 3921}), 3921, "received 3921 bytes, expected 3920"),
    "of another size": (tensor(parameters={"binary_data_size": 3920}), 3921, "received 3920, but 3921 bytes after"),
    "of a size below 0": (tensor(parameters={"binary_data_size": -1}), 3920, "received -1, but 3920 bytes after"),
    "of a size that is a float": (tensor(parameters={"binary_data_size": 3920.0}), 3920, "received 3920.0, but"),
    "of a size that is true": (tensor(shape=(1, 784), parameters={"binary_data_size": True}), 1, "received True, but"),
    "not announced": (tensor(data=ONE), 3, "received 3 bytes after the JSON"),
    "of other floats": (tensor("FP32", parameters={"binary_data_size": 3920}), 3920, "expected 15680 for the shape"),
}


@pytest.mark.parametrize("what", BINARY)
def test_binary_data_that_is_not_what_was_announced_is_refused(what):
    described, size, expected = BINARY[what]
    assert expected in error_of(infer({"inputs": [described]}, bytes(size)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 256, -1, 1e30])
def test_binary_floats_that_are_no_pixels_are_refused_with_their_images(bad):
    values = IMAGES.astype(np.float32)
    values[[0, 3], 5, 5] = bad
    message = error_of(infer({"inputs": [tensor("FP32", parameters={"binary_data_size": 15680})]}, values.tobytes()))
    assert "images 0, 3: received pixels that are not finite or not within 0 to 255" in message


FILES = {
    "nothing": (b"", 1),
    "half a length": (b"\1\0", 1),
    "a length alone": (b"\1\0\0\0", 1),
    "a huge length": (b"\xff\xff\xff\xff1234", 1),
    "one too few": (prefixed([b"ab"]), 2),
    "one too many": (prefixed([b"ab", b"c"]), 1),
    "some where none is": (prefixed([b"ab"]), 0),
    "more after the last": (prefixed([b"ab"]) + b"x", 1),
}


@pytest.mark.parametrize("what", FILES)
def test_binary_files_that_do_not_add_up_are_refused(what):
    body, count = FILES[what]
    described = tensor("BYTES", (count,), parameters={"binary_data_size": len(body)})
    head = orjson.dumps({"inputs": [described]})
    message = error_of(ask("/v2/models/mnist/infer", head + body, [(JSON_LENGTH, b"%d" % len(head))]))
    assert "inputs[0] (binary data)" in message


@pytest.mark.parametrize("length", [b"-1", b"x", b"1.5", b"99999", b"9" * 5000, "²".encode("latin-1"), b" 3"])
def test_a_json_length_that_cannot_be_is_refused(length):
    message = error_of(ask("/v2/models/mnist/infer", b"{}", [(JSON_LENGTH, length)]))
    assert message.startswith("Inference-Header-Content-Length: received ")
    assert len(message) < 200


def test_a_compressed_body_is_refused():
    reply = infer({"inputs": []}, headers=[(b"content-encoding", b"gzip")])
    assert "content-encoding: received 'gzip'" in error_of(reply, 415)


@pytest.mark.parametrize(
    ("failure", "status"),
    [(OverloadedError("later"), 503), (DeadlineError("too late"), 504), (KeyError("secret"), 500)],
)
def test_other_errors_have_the_statuses_that_they_have_everywhere(failure, status):
    service = FakeService()
    service.failure = failure
    reply = infer({"inputs": [tensor(data=IMAGES.ravel().tolist())]}, service=service)
    message = error_of(reply, status)
    assert "secret" not in message
    assert dict(reply.headers).get(b"retry-after") == (b"1" if status == 503 else None)
    if status == 500:
        assert "r1" in message
