"""No body makes the endpoint fail: whatever comes, on every POST route, the answer is 200 or a 4xx with one line."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from fuzz_images import valid_files
from fuzz_requests import KINDS, PIXELS, Request, complaint, in_process, multipart, spoil, valid_requests
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_core.errors import MnistError

VALID = valid_requests()
PATHS = sorted({request.path for request in VALID})
KEYS = (
    *("images", "instances", "inputs", "image", "b64", "signature_name", "outputs", "parameters", "id"),
    *("name", "shape", "datatype", "data", "binary_data_size", "binary_data", "binary_data_output"),
)
WORDS = ("images", "serving_default", "UINT8", "FP32", "BYTES", "digit", "AAAA", "iVBORw0KGgo=")

often = settings(max_examples=200, deadline=None)
paths = st.sampled_from(PATHS)
kinds = st.one_of(
    st.sampled_from(KINDS), st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=40)
)
lengths = st.one_of(
    st.just(()), st.integers(-1, 2000).map(lambda n: ((b"inference-header-content-length", b"%d" % n),))
)
numbers = st.one_of(st.integers(), st.integers(0, 255), st.floats())
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20), st.sampled_from(WORDS))
images = st.one_of(numbers.map(lambda number: [number] * 784), numbers.map(lambda number: [[number] * 28] * 28))
shapes = st.lists(st.sampled_from((0, 1, 2, 28, 784, -1, 2**62)), max_size=5)
values = st.recursive(
    st.one_of(scalars, images, shapes),
    lambda parts: st.one_of(
        st.lists(parts, max_size=4), st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=5)), parts)
    ),
    max_leaves=12,
)
tensors = st.fixed_dictionaries(
    {"name": st.just("images"), "datatype": st.sampled_from(WORDS[2:5]), "shape": shapes},
    optional={"data": values, "parameters": values},
)
requests_in_json = st.one_of(
    values,
    st.dictionaries(st.sampled_from(KEYS), values, max_size=4),
    st.fixed_dictionaries(
        {"inputs": st.lists(tensors, min_size=1, max_size=2)}, optional={"outputs": values, "id": values}
    ),
    st.fixed_dictionaries({"instances": st.lists(st.one_of(values, images), max_size=3)}),
)

Post = Callable[[Request], tuple[int, bytes]]


@pytest.fixture(scope="module")
def post(model_storage: str) -> Iterator[Post]:
    """Sends a request to the application in this process: status and body of the answer."""
    with in_process(model_storage) as (runner, client):
        yield lambda request: runner.run(client.post(request))[:2]


def check(post: Post, request: Request) -> None:
    status, body = post(request)
    assert not complaint(status, body), (request, body)


def test_every_post_route_is_tried_with_requests_that_succeed(post: Post):
    from serve.web import ROUTES

    assert {route.path for route in ROUTES if route.method == "POST"} == {path.partition("?")[0] for path in PATHS}
    for request in VALID:
        status, body = post(request)
        assert status == 200, (request, body)


@given(path=paths, kind=kinds, body=st.binary(max_size=2000), headers=lengths)
@often
def test_raw_bytes_of_any_content_type(post: Post, path: str, kind: str, body: bytes, headers: tuple):
    check(post, Request(path, kind.encode("latin-1").decode("latin-1"), body, headers))


@given(path=paths, value=requests_in_json, kind=st.one_of(st.just("application/json"), kinds), headers=lengths)
@often
def test_json_of_any_shape(post: Post, path: str, value: object, kind: str, headers: tuple):
    check(post, Request(path, kind, json.dumps(value).encode(), headers))


@given(
    path=paths,
    files=st.lists(st.one_of(st.binary(max_size=50), st.sampled_from([VALID[0].body])), max_size=4),
    start=st.integers(0, 60),
    end=st.integers(0, 60),
    boundary=st.one_of(st.just("cut"), st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80)),
)
@often
def test_multipart_that_is_cut_anywhere(post: Post, path: str, files: list[bytes], start: int, end: int, boundary: str):
    body = multipart(*files)
    check(post, Request(path, f"multipart/form-data; boundary={boundary}", body[start : len(body) - end]))


@given(index=st.integers(0, len(VALID) - 1), other=st.integers(0, len(VALID) - 1), seed=st.integers(0, 2**32))
@often
def test_good_requests_that_are_spoilt(post: Post, index: int, other: int, seed: int):
    check(post, spoil(VALID[index], VALID[other], random.Random(seed)))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("unit", [b"[", b"[],", b"{},", b'{"a":', b"0,", b'"",', b"1e308,", b"\xff", b"\0"])
@pytest.mark.parametrize("head", [b"", b'{"instances":[', b'{"inputs":[{"name":"images","data":['])
def test_a_megabyte_of_the_same(post: Post, path: str, unit: bytes, head: bytes):
    check(post, Request(path, "application/json", head + unit * (2**20 // len(unit))))


def test_a_refused_request_leaves_nothing_to_the_garbage_collector(post: Post):
    """An error in a circle of references keeps the whole request, of which there may be gigabytes until it is found."""

    def errors() -> list[MnistError]:
        return [each for each in gc.get_objects() if isinstance(each, MnistError)]

    gc.collect()
    others = {id(each) for each in errors()}  # which other tests have kept
    gc.disable()
    try:
        for request in VALID:
            body = request.body.replace(b"IDAT", b"tADI").replace(b"SURBV", b"AAAAA").replace(b"255", b"999")
            post(replace(request, body=body))
        assert not [each for each in errors() if id(each) not in others]
    finally:
        gc.enable()


def test_good_requests_still_get_their_answers(post: Post):
    before = [post(request) for request in VALID]
    for path in PATHS:
        check(post, Request(path, "application/json", b"{"))
    assert [post(request) for request in VALID] == before


def test_a_body_that_is_too_long_is_refused_even_if_its_length_was_not_told(model_storage: str):
    with in_process(model_storage, max_body_bytes=1000) as (runner, client):
        for path in PATHS:
            assert runner.run(client.post(Request(path, "application/json", b" " * 1001)))[0] == 413


@pytest.mark.parametrize("file", valid_files(), ids=lambda file: f"{len(file)} bytes")
def test_a_file_as_long_as_pixels_are_is_still_a_file(post: Post, file: bytes):
    """Whose type was not told; most decoders do not mind what comes after the image."""
    padded = file + bytes(-len(file) % PIXELS.size)
    told = post(Request("/predict?pixels=1", "image/png", padded))
    assert post(Request("/predict?pixels=1", "application/octet-stream", padded)) == told
    assert told[0] == 200


def test_pixels_that_begin_as_a_file_does_are_pixels(post: Post):
    digit = PIXELS.copy()
    for beginning in (b"BM", b"RIFF", b"\xff\xd8\xff"):
        digit.ravel()[: len(beginning)] = np.frombuffer(beginning, np.uint8)
        status, body = post(Request("/predict", "application/octet-stream", digit.tobytes()))
        assert (status, len(json.loads(body)["predictions"])) == (200, 1)
