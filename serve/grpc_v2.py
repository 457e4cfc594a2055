"""The Open Inference Protocol V2 over gRPC: the methods of ``inference.GRPCInferenceService``.

Ray Serve's gRPC server calls a replica's method of the same name. It is given the request's bytes, not a message: what
is too large or no message is refused here, in the protocol's own words. An error is a status set on the context, not
an exception, which Ray would log with a traceback for each bad request.

``serve/protos/inference_pb2.py`` is generated from the .proto beside it with protoc 25 (grpcio-tools 1.62), whose code
runs with every protobuf from 4.21 on; what newer ones write asks for a protobuf as new as they are. In the repository's
root: ``python -m grpc_tools.protoc -I. --python_out=. serve/protos/inference.proto``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from mnist_core.errors import RequestError, RequestTooLargeError
from serve import v2_core
from serve.calls import Call, Reply
from serve.http_errors import describe_error
from serve.lane import CLIENT_GONE, REQUEST_ID
from serve.protos import inference_pb2
from serve.service import Service
from serve.v2_tensors import OUTPUTS, Images, count_images, read_binary, read_elements, shown

messages: Any = inference_pb2
"""Its classes are made at import, where no type checker sees them."""

SERVICE: Final = "inference.GRPCInferenceService"
PROTOCOL: Final = "grpc"
"""For the metrics."""

STATUS_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,  # not RESOURCE_EXHAUSTED, after which clients try again
    415: grpc.StatusCode.INVALID_ARGUMENT,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.RESOURCE_EXHAUSTED,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""By the HTTP status of an error."""

LONGEST_DETAILS: Final = 2000
"""Bytes of an error's text: it travels in the trailers, which clients bound at 8 KiB."""

_SHOWN_BYTES: Final = 16
_CONTENTS: Final = {"UINT8": "uint_contents", "FP32": "fp32_contents", "BYTES": "bytes_contents"}
_OUTPUT_CONTENTS: Final = {"FP32": "fp32_contents", "INT64": "int64_contents", "BOOL": "bool_contents"}


async def server_live(_: Any, __: Service, ___: float) -> Any:
    """A replica that answers is live."""
    return messages.ServerLiveResponse(live=True)


async def server_ready(_: Any, __: Service, ___: float) -> Any:
    """A replica answers when its model is loaded, verified and warm, and not before."""
    return messages.ServerReadyResponse(ready=True)


async def server_metadata(_: Any, __: Service, ___: float) -> Any:
    """What the server is."""
    return messages.ServerMetadataResponse(**v2_core.describe_server())


async def model_ready(request: Any, service: Service, _: float) -> Any:
    """One version is loaded, verified and warm, which is done now if need be."""
    v2_core.check_model(service, request.name)
    await service.model(request.version or None)
    return messages.ModelReadyResponse(ready=True)


async def model_metadata(request: Any, service: Service, _: float) -> Any:
    """What the model takes and gives."""
    v2_core.check_model(service, request.name)
    return messages.ModelMetadataResponse(**await v2_core.describe_model(service, request.version or None))


async def model_infer(request: Any, service: Service, deadline: float) -> Any:
    """Answer for the images of one request; raw if it was raw itself.

    Raises:
        MnistError: It cannot be answered.
    """
    v2_core.check_model(service, request.model_name)
    outputs = v2_core.choose_outputs([(output.name, output.parameters) for output in request.outputs])
    images = _read_input(request, service)
    answer = await v2_core.classify(service, images, request.model_version or None, deadline)
    response = messages.ModelInferResponse(
        model_name=answer.model.name, model_version=answer.model.version, id=request.id
    )
    for name in outputs:
        kind = OUTPUTS[name]
        values = kind.compute(answer.predictions)
        tensor = response.outputs.add(name=name, datatype=kind.datatype, shape=values.shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(values.tobytes())
        else:
            getattr(tensor.contents, _OUTPUT_CONTENTS[kind.datatype]).extend(values.ravel().tolist())
    return response


def _read_input(request: Any, service: Service) -> Images:
    v2_core.check_input([tensor.name for tensor in request.inputs])
    tensor, where = request.inputs[0], "inputs[0]"
    count = count_images(tensor.datatype, list(tensor.shape), where)
    service.check_count(count)
    raw = request.raw_input_contents
    if raw:
        if len(raw) != 1 or tensor.HasField("contents"):
            contents = " and contents in the input" if tensor.HasField("contents") else ""
            raise RequestError(f"raw_input_contents: received {len(raw)}{contents}, expected one for the one input")
        return read_binary(tensor.datatype, count, raw[0], "raw_input_contents[0]")
    name = _CONTENTS[tensor.datatype]
    if others := [field.name for field, _ in tensor.contents.ListFields() if field.name != name]:
        raise RequestError(f"{where}.contents: received {', '.join(others)}, expected {name} for {tensor.datatype}")
    return read_elements(tensor.datatype, count, getattr(tensor.contents, name), f"{where}.contents.{name}")


@dataclass(frozen=True)
class _Method:
    name: str
    handler: Callable[[Any, Service, float], Awaitable[Any]]
    guarded: bool = True

    @property
    def request(self) -> Any:
        return getattr(messages, f"{self.name}Request")

    @property
    def response(self) -> Any:
        return getattr(messages, f"{self.name}Response")


_METHODS: Final = {
    method.name: method
    for method in (
        _Method("ServerLive", server_live, guarded=False),
        _Method("ServerReady", server_ready, guarded=False),
        _Method("ServerMetadata", server_metadata),
        _Method("ModelReady", model_ready),
        _Method("ModelMetadata", model_metadata),
        _Method("ModelInfer", model_infer),
    )
}


class InferenceMethods:
    """The service's methods, for a deployment that keeps its ``Service`` as ``_service``; named as Ray calls them."""

    _service: Service

    async def ServerLive(self, request: bytes, grpc_context: Any) -> Any:  # noqa: D102, N802
        return await _answer("ServerLive", request, grpc_context, self._service)

    async def ServerReady(self, request: bytes, grpc_context: Any) -> Any:  # noqa: D102, N802
        return await _answer("ServerReady", request, grpc_context, self._service)

    async def ServerMetadata(self, request: bytes, grpc_context: Any) -> Any:  # noqa: D102, N802
        return await _answer("ServerMetadata", request, grpc_context, self._service)

    async def ModelReady(self, request: bytes, grpc_context: Any) -> Any:  # noqa: D102, N802
        return await _answer("ModelReady", request, grpc_context, self._service)

    async def ModelMetadata(self, request: bytes, grpc_context: Any) -> Any:  # noqa: D102, N802
        return await _answer("ModelMetadata", request, grpc_context, self._service)

    async def ModelInfer(self, request: bytes, grpc_context: Any) -> Any:  # noqa: D102, N802
        return await _answer("ModelInfer", request, grpc_context, self._service)


def add_GRPCInferenceServiceServicer_to_server(servicer: Any, server: Any) -> None:  # noqa: N802
    """Tell a gRPC server of the service; Ray is given this function by its path.

    Args:
        servicer: Has the methods; Ray puts its own in their place.
        server: Learns of them. It hands on the bytes of requests, and is given messages.
    """
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name), response_serializer=lambda message: message.SerializeToString()
        )
        for name in _METHODS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


async def _answer(name: str, data: bytes, context: Any, service: Service) -> Any:
    """Answer one request, and count it; what goes wrong is set on the context."""
    method, metrics = _METHODS[name], service.metrics
    started = time.monotonic()
    headers = {key.encode(): _as_bytes(value) for key, value in context.invocation_metadata()}
    given = headers.get(b"x-request-id", b"")
    request_id = given.decode() if REQUEST_ID.fullmatch(given) else os.urandom(8).hex()
    context.set_trailing_metadata([("x-request-id", request_id)])
    response = method.response()
    status, code = CLIENT_GONE, "cancelled"
    metrics.arrived()
    try:
        if method.guarded:
            service.authorize(Call(b"", headers, request_id=request_id))
        request = _decode(method, data, service.config.max_body_bytes)
        response = await method.handler(request, service, started + service.config.request_timeout_s)
        status, code = 200, ""
    except Exception as err:
        status, code, message = describe_error(err, request_id)
        if status == 500:
            service.failed(request_id, err)
        context.set_code(STATUS_CODES[status])
        context.set_details(_shorten(message))
    finally:
        seconds = time.monotonic() - started
        metrics.left(PROTOCOL, status, code, seconds)
        if service.config.access_log:
            # HAProxy says who it was that called it, and passes on no such header of a client.
            client = headers.get(b"x-forwarded-for", b"").decode("latin-1") or _host(context.peer())
            scope = {"client": (client, 0), "method": "POST", "path": f"/{SERVICE}/{name}"}
            service.access_log.write(scope, Reply(response.SerializeToString(), status, code=code), request_id, seconds)
    return response


def _decode(method: _Method, data: bytes, most: int) -> Any:
    if len(data) > most:
        raise RequestTooLargeError(f"received {len(data)} bytes, expected at most {most} in a request; send several")
    try:
        return method.request.FromString(data)
    except DecodeError as err:
        raise RequestError(
            f"body: received {shown(data[:_SHOWN_BYTES])}, expected the message {method.name}Request"
        ) from err


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _host(peer: str) -> str:
    """The address in ``ipv4:127.0.0.1:53124`` or ``ipv6:%5B::1%5D:53124``."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


def _shorten(message: str) -> str:
    """ASCII, since gRPC writes three bytes for each of other characters."""
    text = message.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= LONGEST_DETAILS else f"{text[:LONGEST_DETAILS]}..."
