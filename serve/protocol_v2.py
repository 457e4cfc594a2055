"""The Open Inference Protocol V2 over REST, with its extension for binary tensor data.

    POST /v2/models/mnist/infer
    {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0, ...]}]}

Pixels are UINT8 or FP32; encoded files are BYTES, which is base64 in JSON. In binary form the body is the JSON, as long
as the header ``Inference-Header-Content-Length`` says, and then the contents of the input; a length of 0 says that the
body is nothing but UINT8 pixels.
"""

from __future__ import annotations

import re
from typing import Any, Final

from mnist_core.errors import (
    MnistError,
    ModelNotFoundError,
    PathNotFoundError,
    RequestError,
    UnsupportedMediaError,
)
from serve import calls, v2_core
from serve.calls import Call, Reply, json_reply
from serve.http_errors import plain_error_reply
from serve.openapi import V2_DOCS
from serve.pixels import PIXELS
from serve.routing import Handler, Route
from serve.service import Answer, Service
from serve.v2_tensors import INPUT, OUTPUTS, Images, count_images, read_binary, read_json, shown

PREFIX: Final = "/v2"
JSON_LENGTH: Final = b"inference-header-content-length"
OCTETS: Final = b"application/octet-stream"

_LONGEST_NUMBER: Final = 12
_MODEL_PATH: Final = re.compile(r"/v2/models/(?P<model>[^/]+)(/.*)?")
_EXPECTED: Final = (
    f'expected {{"inputs": [{{"name": "{INPUT}", "datatype": ..., "shape": ..., "data": ...}}]}}, with binary data '
    "after it only where Inference-Header-Content-Length says how long this JSON is"
)


async def infer(call: Call, service: Service) -> Reply:
    """Answer for the images of one request.

    Raises:
        MnistError: It cannot be answered; ``serve.http_errors`` says with which status.
    """
    if call.header(b"content-encoding") not in (b"", b"identity"):
        encoding = call.header(b"content-encoding").decode("latin-1")
        raise UnsupportedMediaError(f"content-encoding: received {shown(encoding)}, expected none; send it as it is")
    request, binary = _split_body(call, service.config.max_request_images)
    identifier = request.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise RequestError(f"id: received {shown(identifier)}, expected a string")
    outputs = _read_outputs(request)
    images = _read_input(request, binary, service)
    answer = await v2_core.classify(service, images, call.version, call.deadline)
    return _reply(answer, identifier, outputs)


async def describe_model(call: Call, service: Service) -> Reply:
    """Answer with the model's metadata."""
    return json_reply(await v2_core.describe_model(service, call.version))


async def describe_server(_: Call, __: Service) -> Reply:
    """Answer with the server's metadata."""
    return json_reply(v2_core.describe_server())


async def live(_: Call, __: Service) -> Reply:
    """A replica that answers is live."""
    return json_reply({"live": True})


async def ready(_: Call, __: Service) -> Reply:
    """A replica answers when its model is loaded, verified and warm, and not before."""
    return json_reply({"ready": True})


async def model_ready(call: Call, service: Service) -> Reply:
    """Answer for one version when it is loaded, verified and warm, which is done now if need be."""
    model = await service.model(call.version)
    return json_reply({"name": model.name, "ready": True})


def no_such_path(path: str, service: Service) -> MnistError:
    """What to answer to a path below ``PREFIX`` that has no route: most often, the model is another."""
    found = _MODEL_PATH.fullmatch(path)
    try:
        if found:
            v2_core.check_model(service, found["model"])
    except ModelNotFoundError as err:
        return err
    return PathNotFoundError(f"path {shown(path)}: V2 has none such; GET /v2/models/{service.models.name} is one")


def _split_body(call: Call, most_images: int) -> tuple[dict[str, Any], memoryview]:
    """The request's JSON, and what follows it."""
    body = memoryview(call.body)
    text = call.header(JSON_LENGTH)
    length = len(body)
    if text:
        if not text.isdigit() or len(text) > _LONGEST_NUMBER or int(text) > length:
            received = shown(text.decode("latin-1"))
            raise RequestError(
                f"Inference-Header-Content-Length: received {received}, expected the JSON's length, at most {length}"
            )
        length = int(text)
        if not length:
            return _bare_pixels(len(body)), body
    try:
        request = calls.read_json(call.body[:length], most_images)
    except ValueError as err:
        raise RequestError(f"body: received no JSON ({err}), {_EXPECTED}") from err
    if not isinstance(request, dict):
        raise RequestError(f"body: received {shown(request)}, {_EXPECTED}")
    return request, body[length:]


def _bare_pixels(size: int) -> dict[str, Any]:
    """The request that a body of pixels only stands for."""
    if size % PIXELS:
        raise RequestError(f"body: received {size} bytes, expected {PIXELS} UINT8 an image and nothing else")
    shape, parameters = [size // PIXELS, PIXELS], {"binary_data_size": size}
    tensor = {"name": INPUT, "datatype": "UINT8", "shape": shape, "parameters": parameters}
    return {"inputs": [tensor], "parameters": {"binary_data_output": True}}


def _read_input(request: dict[str, Any], binary: memoryview, service: Service) -> Images:
    tensors = _objects(request, "inputs")
    v2_core.check_input([tensor.get("name") for tensor in tensors])
    tensor, where = tensors[0], "inputs[0]"
    datatype: Any = tensor.get("datatype")
    shape: Any = tensor.get("shape")
    count = count_images(datatype, shape, where)
    service.check_count(count)
    size = _parameters(tensor, where).get("binary_data_size")
    if size is None:
        if len(binary):
            raise RequestError(f"body: received {len(binary)} bytes after the JSON, expected no input's data there")
        if "data" not in tensor:
            raise RequestError(f"{where}: received no data, expected data or parameters.binary_data_size")
        return read_json(datatype, shape, tensor["data"], f"{where}.data")
    if "data" in tensor:
        raise RequestError(f"{where}: received both data and parameters.binary_data_size, expected one of them")
    if type(size) is not int or size != len(binary):
        raise RequestError(
            f"{where}.parameters.binary_data_size: received {shown(size)}, but {len(binary)} bytes after the JSON; "
            "expected the same, and Inference-Header-Content-Length to be the JSON's length"
        )
    return read_binary(datatype, count, binary, f"{where} (binary data)")


def _read_outputs(request: dict[str, Any]) -> list[tuple[str, bool]]:
    """The outputs to answer with, and whether in binary form."""
    by_default = _flag(_parameters(request, ""), "binary_data_output", False, "parameters")
    requested = _objects(request, "outputs")
    parameters = [_parameters(output, f"outputs[{index}]") for index, output in enumerate(requested)]
    chosen = v2_core.choose_outputs(
        [(output.get("name"), given) for output, given in zip(requested, parameters, strict=True)]
    )
    if not requested:
        return [(name, by_default) for name in chosen]
    return [
        (name, _flag(given, "binary_data", by_default, f"outputs[{index}].parameters"))
        for index, (name, given) in enumerate(zip(chosen, parameters, strict=True))
    ]


def _objects(request: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects; empty if there is none."""
    value = request.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise RequestError(f"{name}: received {shown(value)}, expected a list of objects")
    return value


def _parameters(holder: dict[str, Any], where: str) -> dict[str, Any]:
    value = holder.get("parameters")
    if value is None:
        return {}
    if not isinstance(value, dict):
        path = f"{where}.parameters".lstrip(".")
        raise RequestError(f"{path}: received {shown(value)}, expected an object")
    return value


def _flag(parameters: dict[str, Any], name: str, default: bool, where: str) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"{where}.{name}: received {shown(value)}, expected true or false")
    return value


def _reply(answer: Answer, identifier: str | None, outputs: list[tuple[str, bool]]) -> Reply:
    described: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, binary in outputs:
        values = OUTPUTS[name].compute(answer.predictions)
        tensor: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name].datatype, "shape": values.shape}
        if binary:
            blobs.append(values.tobytes())
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = values.ravel()
        described.append(tensor)
    header: dict[str, Any] = {"model_name": answer.model.name, "model_version": answer.model.version}
    if identifier is not None:
        header["id"] = identifier
    reply = json_reply({**header, "outputs": described})
    if not blobs:
        return reply
    length = str(len(reply.body)).encode()
    return Reply(b"".join([reply.body, *blobs]), 200, OCTETS, ((JSON_LENGTH, length),))


def _route(method: str, path: str, handler: Handler, summary: str, guarded: bool = True) -> Route:
    path = PREFIX + path
    return Route(method, path, handler, "v2", summary, plain_error_reply, guarded, V2_DOCS[method, path])


ROUTES: Final = (
    _route("GET", "", describe_server, "V2: what the server is"),
    _route("GET", "/health/live", live, "V2: whether the server is alive", guarded=False),
    _route("GET", "/health/ready", ready, "V2: whether the server is ready", guarded=False),
    _route("GET", "/models/{model}", describe_model, "V2: what the model takes and gives"),
    _route("GET", "/models/{model}/versions/{version}", describe_model, "V2: the same of one version"),
    _route("GET", "/models/{model}/ready", model_ready, "V2: whether the model is ready"),
    _route("GET", "/models/{model}/versions/{version}/ready", model_ready, "V2: the same of one version"),
    _route("POST", "/models/{model}/infer", infer, "V2: the digits of images"),
    _route("POST", "/models/{model}/versions/{version}/infer", infer, "V2: the same by one version"),
)
