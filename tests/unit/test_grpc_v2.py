"""The Open Inference Protocol V2 over gRPC: through a real server that calls the methods as Ray Serve does."""

from __future__ import annotations

import asyncio
import types
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from ray.serve.grpc_util import RayServegRPCContext
from v2_requests import IMAGES, FakeService, check_answers, png, prefixed

from mnist_core.errors import DeadlineError, OverloadedError, UnauthorizedError
from serve.grpc_v2 import InferenceMethods, add_GRPCInferenceServiceServicer_to_server
from serve.protos import inference_pb2 as pb
from serve.v2_tensors import OUTPUTS

CONTENTS = {"FP32": "fp32_contents", "INT64": "int64_contents", "BOOL": "bool_contents"}
DTYPES = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}


class GrpcService(FakeService):
    """Notes what is counted and logged; asks for the key ``secret`` if told so."""

    def __init__(self, key=None, **config):
        super().__init__(**config)
        self.key = key
        self.counted = []
        self.logged = []
        self.failed_with = []
        self.metrics = types.SimpleNamespace(arrived=int, left=lambda *noted: self.counted.append(noted[:3]))
        self.access_log = types.SimpleNamespace(write=lambda *noted: self.logged.append(noted))

    def authorize(self, call):
        keys = (call.header(b"authorization").removeprefix(b"Bearer "), call.header(b"x-api-key"))
        if self.key and self.key not in keys:
            raise UnauthorizedError("expected an API key")

    def failed(self, request_id, err):
        self.failed_with.append((request_id, err))


class Servicer:
    """Calls methods as Ray's replica does: with its own context, whose code and details it passes on."""

    def __init__(self, service):
        self._methods = InferenceMethods()
        self._methods._service = service

    def __getattr__(self, name):
        async def call(request, context):
            ray_context = RayServegRPCContext(context)
            ray_context.set_trailing_metadata([("request_id", "of Ray")])
            message = await getattr(self._methods, name)(request, grpc_context=ray_context)
            ray_context._set_on_grpc_context(context)
            return message

        return call


def call(name, request, service=None, metadata=()):
    """The answer and the trailing metadata of one call; raises what a client sees."""

    async def main():
        server = grpc.aio.server()
        add_GRPCInferenceServiceServicer_to_server(Servicer(service or GrpcService()), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = channel.unary_unary(f"/inference.GRPCInferenceService/{name}")
            called = ask(request if isinstance(request, bytes) else request.SerializeToString(), metadata=metadata)
            try:
                answer = getattr(pb, f"{name}Response").FromString(await called)
                return answer, dict(await called.trailing_metadata())
            finally:
                await server.stop(None)

    with ThreadPoolExecutor(1) as thread:  # gRPC keeps an event loop of its own for each thread
        return thread.submit(asyncio.run, main()).result(30)


def refused(request, code, service=None, name="ModelInfer", metadata=()):
    """The text of an error."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        call(name, request, service, metadata)
    assert caught.value.code() == code, caught.value.details()
    assert "\n" not in caught.value.details()
    return caught.value.details()


def request_of(datatype="UINT8", shape=(5, 28, 28), raw=None, outputs=(), name="images", **contents):
    request = pb.ModelInferRequest(model_name="mnist")
    tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    if raw is not None:
        request.raw_input_contents.append(raw)
    for output in outputs:
        request.outputs.add(name=output)
    return request


def outputs_of(response):
    found = {}
    for index, tensor in enumerate(response.outputs):
        dtype = DTYPES[tensor.datatype]
        if response.raw_output_contents:
            values = np.frombuffer(response.raw_output_contents[index], dtype)
        else:
            values = np.array(getattr(tensor.contents, CONTENTS[tensor.datatype]), dtype)
        found[tensor.name] = values.reshape(tuple(tensor.shape))
    return found


REQUESTS = {
    "raw bytes": request_of(raw=IMAGES.tobytes()),
    "raw floats": request_of("FP32", (5, 784), raw=(IMAGES.astype("<f4") / np.float32(255)).tobytes()),
    "raw files": request_of("BYTES", (5, 1), raw=prefixed(map(png, IMAGES))),
    "numbers": request_of("UINT8", (5, 28, 28, 1), uint_contents=IMAGES.ravel().tolist()),
    "floats": request_of("FP32", fp32_contents=IMAGES.ravel().tolist()),
    "files": request_of("BYTES", (5,), bytes_contents=map(png, IMAGES)),
}


@pytest.mark.parametrize("form", REQUESTS)
def test_images_come_in_every_form_and_outputs_are_raw_where_the_request_was(form):
    response, _ = call("ModelInfer", REQUESTS[form])
    assert bool(response.raw_output_contents) == form.startswith("raw")
    assert (response.model_name, response.model_version, response.id) == ("mnist", "2", "")
    check_answers(outputs_of(response), IMAGES)


def test_outputs_version_and_id_are_those_of_the_request():
    request = request_of(raw=IMAGES.tobytes(), outputs=["rejected", "digit"])
    request.model_version, request.id = "3", "ü 1"
    response, _ = call("ModelInfer", request)
    assert (response.model_version, response.id) == ("3", "ü 1")
    check_answers(outputs_of(response), IMAGES, ["rejected", "digit"])


def test_no_image_is_no_output():
    for request in (request_of(shape=(0, 784), raw=b""), request_of("FP32", (0, 28, 28)), request_of("BYTES", (0,))):
        response, _ = call("ModelInfer", request)
        assert outputs_of(response)["probabilities"].shape == (0, 10)


def test_the_server_and_its_model_describe_themselves():
    assert call("ServerLive", pb.ServerLiveRequest())[0].live
    assert call("ServerReady", pb.ServerReadyRequest())[0].ready
    server, _ = call("ServerMetadata", pb.ServerMetadataRequest())
    assert (server.name, list(server.extensions)) == ("mnist-on-ray", ["binary_tensor_data"])
    for version in ("", "3"):
        assert call("ModelReady", pb.ModelReadyRequest(name="mnist", version=version))[0].ready
        metadata, _ = call("ModelMetadata", pb.ModelMetadataRequest(name="mnist", version=version))
        assert list(metadata.versions) == ["1", "2", "3"]
        assert (metadata.inputs[0].name, list(metadata.inputs[0].shape)) == ("images", [-1, 28, 28])
        assert [output.name for output in metadata.outputs] == list(OUTPUTS)


@pytest.mark.parametrize("name", ["ModelReady", "ModelMetadata"])
def test_other_models_and_versions_are_not_found(name):
    kind = getattr(pb, f"{name}Request")
    assert "'other'" in refused(kind(name="other"), grpc.StatusCode.NOT_FOUND, name=name)
    assert "'9'" in refused(kind(name="mnist", version="9"), grpc.StatusCode.NOT_FOUND, name=name)
    request = request_of(raw=IMAGES.tobytes())
    request.model_name = "other"
    assert "expected 'mnist'" in refused(request, grpc.StatusCode.NOT_FOUND)
    request.model_name, request.model_version = "mnist", "9"
    assert "'9'" in refused(request, grpc.StatusCode.NOT_FOUND)


def with_both():
    return request_of(raw=IMAGES.tobytes(), uint_contents=IMAGES.ravel().tolist())


MALFORMED = {
    "no message": (b"\xff\xff\xff", "body: received b'\\xff\\xff\\xff', expected the message ModelInferRequest"),
    "no input": (pb.ModelInferRequest(model_name="mnist"), "inputs: received 0 tensors, expected one"),
    "another input": (request_of(name="x"), "inputs[0].name: received 'x'"),
    "another datatype": (request_of("INT32"), "inputs[0].datatype: received 'INT32'"),
    "another shape": (request_of(shape=(28, 28)), "inputs[0].shape: received [28, 28]"),
    "a size below 0": (request_of(shape=(-1, 784)), "inputs[0].shape: received [-1, 784]"),
    "no contents": (request_of(), "inputs[0].contents.uint_contents: received 0 elements, expected 3920"),
    "contents of another kind": (request_of(fp32_contents=[1.0]), "received fp32_contents, expected uint_contents"),
    "both contents": (with_both(), "raw_input_contents: received 1 and contents in the input"),
    "too few raw bytes": (request_of(raw=b"123"), "raw_input_contents[0]: received 3 bytes, expected 3920"),
    "a number too large": (request_of(shape=(1, 784), uint_contents=[256] * 784), "received 256, expected integers"),
    "no number": (request_of("FP32", (1, 784), fp32_contents=[np.nan] * 784), "image 0: received pixels that are not"),
    "a file cut off": (request_of("BYTES", (1,), raw=b"\5\0\0\0abc"), "raw_input_contents[0][0]: is cut off"),
    "a file too many": (request_of("BYTES", (1,), bytes_contents=[b"", b""]), "received 2 elements, expected 1"),
    "an unknown output": (request_of(raw=IMAGES.tobytes(), outputs=["x"]), "outputs[0].name: received 'x', expected"),
    "an image without ink": (request_of(shape=(1, 784), raw=bytes(784)), "image 0: found no ink"),
    "images that are none": (request_of("BYTES", (2,), bytes_contents=[b"", b""]), "images 0-1: received no bytes"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_malformed_is_an_invalid_argument(what):
    request, expected = MALFORMED[what]
    assert expected in refused(request, grpc.StatusCode.INVALID_ARGUMENT)


def test_two_raw_contents_for_one_input_are_refused():
    request = request_of(raw=IMAGES.tobytes())
    request.raw_input_contents.append(b"")
    assert "received 2, expected one" in refused(request, grpc.StatusCode.INVALID_ARGUMENT)


def test_shared_memory_is_refused_where_an_answer_would_have_to_be_put():
    request = request_of(raw=IMAGES.tobytes(), outputs=["digit"])
    request.outputs[0].parameters["shared_memory_region"].string_param = "x"
    assert "received shared_memory_region" in refused(request, grpc.StatusCode.INVALID_ARGUMENT)


def test_too_many_images_and_bytes_are_refused_before_they_are_looked_at():
    request = request_of(shape=(2**62, 784), raw=b"")
    assert str(2**62) in refused(request, grpc.StatusCode.INVALID_ARGUMENT)
    service = GrpcService(max_body_bytes=1000)
    assert "at most 1000" in refused(b"\xff" * 1001, grpc.StatusCode.INVALID_ARGUMENT, service)


def test_a_long_error_is_cut_so_that_clients_can_receive_it():
    bad = [b"\x89PNG" + bytes([index % 250]) * index for index in range(1, 600)]
    request = request_of("BYTES", (len(bad),), bytes_contents=bad)
    assert len(refused(request, grpc.StatusCode.INVALID_ARGUMENT)) <= 2003
    assert "\\u20ac" in refused(request_of(name="€" * 10000), grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (OverloadedError("later"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (DeadlineError("too late"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (KeyError("private"), grpc.StatusCode.INTERNAL),
    ],
)
def test_other_errors_have_codes_of_their_own(failure, code):
    service = GrpcService()
    service.failure = failure
    details = refused(request_of(raw=IMAGES.tobytes()), code, service, metadata=[("x-request-id", "r7")])
    assert "private" not in details
    assert service.failed_with == ([("r7", failure)] if code == grpc.StatusCode.INTERNAL else [])


def test_a_key_is_asked_for_except_for_health():
    service = GrpcService(key=b"secret")
    for method in ("ServerLive", "ServerReady"):
        call(method, getattr(pb, f"{method}Request")(), service)
    for metadata in ([], [("authorization", "Bearer wrong")], [("x-api-key", "wrong")]):
        for name in ("ModelInfer", "ServerMetadata", "ModelReady", "ModelMetadata"):
            assert refused(b"\xff", grpc.StatusCode.UNAUTHENTICATED, service, name, metadata) == "expected an API key"
    for metadata in ([("authorization", "Bearer secret")], [("x-api-key", "secret")]):
        call("ModelInfer", request_of(raw=IMAGES.tobytes()), service, metadata)


def test_requests_are_counted_and_logged_with_their_ids(tmp_path):
    service = GrpcService(access_log=tmp_path / "log")
    response, trailers = call("ModelInfer", request_of(raw=IMAGES.tobytes()), service, [("x-request-id", "r5")])
    assert trailers["x-request-id"] == "r5"
    assert trailers["request_id"] == "of Ray"
    sent = [("x-request-id", "spaces are none"), ("x-forwarded-for", "192.0.2.9")]  # HAProxy's, who called it
    refused(request_of(), grpc.StatusCode.INVALID_ARGUMENT, service, metadata=sent)
    assert service.counted == [("grpc", 200, ""), ("grpc", 400, "bad_request")]
    (scope, reply, request_id, seconds), _ = service.logged
    assert [each[0]["client"][0] for each in service.logged] == ["127.0.0.1", "192.0.2.9"]
    assert (scope["path"], reply.status, request_id) == ("/inference.GRPCInferenceService/ModelInfer", 200, "r5")
    assert len(reply.body) == response.ByteSize()
    assert seconds > 0
    assert service.logged[1][2] != "spaces are none"


def test_a_call_that_the_client_gave_up_is_not_counted_as_our_fault():
    class Slow(GrpcService):
        async def classify_pixels(self, *_):
            await asyncio.Event().wait()

    service = Slow()
    context = types.SimpleNamespace(invocation_metadata=list, set_trailing_metadata=lambda _: None)
    methods = InferenceMethods()
    methods._service = service

    async def main():
        await asyncio.wait_for(methods.ModelInfer(request_of(raw=IMAGES.tobytes()).SerializeToString(), context), 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert service.counted == [("grpc", 499, "cancelled")]


def test_the_service_and_its_methods_are_those_of_the_published_protocol():
    (service,) = pb.DESCRIPTOR.services_by_name.values()
    assert service.full_name == "inference.GRPCInferenceService"
    assert {method.name for method in service.methods} == {
        name for name in vars(InferenceMethods) if not name.startswith("_")
    }
