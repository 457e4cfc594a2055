"""What the endpoint says of itself: an OpenAPI 3.1 document, made of what every route says of its operation.

A route's ``docs`` are parts of an OpenAPI operation object in which a schema may be a pydantic model; the document
refers to it and holds its schema once. Those parts are here for all protocols.
"""

from __future__ import annotations

import base64
import importlib.metadata
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mnist_core.artifact import VERSION
from mnist_core.config_serve import ServeConfig
from mnist_core.images import decode_image
from serve import schemas, v2_schemas
from serve.lane import TIMEOUT_HEADER
from serve.routing import MODEL_IN_PATH, VERSION_IN_PATH, Route

EXAMPLE_FILE: Final = (files("serve") / "page" / "docs.png").read_bytes()
"""A written five: a PNG of 28x28 grey pixels."""

EXAMPLE_LINE: Final = (files("serve") / "page" / "line.png").read_bytes()
"""90210, written on a line."""

EXAMPLE_BASE64: Final = base64.b64encode(EXAMPLE_FILE).decode()
EXAMPLE_PIXELS: Final[list[list[int]]] = decode_image(EXAMPLE_FILE).pixels.tolist()

IMAGE_KINDS: Final = ("png", "jpeg", "bmp", "gif", "webp", "tiff")

REASONS: Final = {
    400: "The request, or an image in it, is wrong: the message says what was received and what is expected",
    401: "No valid API key",
    404: "The model has no such version",
    413: "Too many bytes or images, or an image that is too large",
    415: "A content type that is not read",
    503: "As many images wait as may; ask again",
    504: "The time was over before the answer was computed",
}

TAGS: Final = {
    "predict": ("Predict", "One request for one image or many."),
    "v2": ("Open Inference Protocol V2", "As KServe and Triton speak it."),
    "tfs": ("TensorFlow Serving", "Its REST protocol."),
    "web": ("Pages", "For people."),
}

_KEY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "an API key"},
}

_TIMEOUT: Final = {
    "name": TIMEOUT_HEADER.decode().title(),
    "in": "header",
    "description": "Seconds after which the answer is of no use; the endpoint has a limit of its own.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
    "example": 10,
}


def _body(*kinds: Any, **examples: Any) -> dict[str, Any]:
    """A JSON body of one of these schemas."""
    values = {name.replace("_", " "): {"value": value} for name, value in examples.items()}
    schema = kinds[0] if len(kinds) == 1 else {"oneOf": [*kinds]}
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": values}}}


def _answers(answer: Any, error: Any, *statuses: int) -> dict[str, Any]:
    """An answer with content of that schema, and errors with these statuses and that schema."""
    told = {"200": {"description": "The answer", "content": {"application/json": {"schema": answer}}}}
    for status in statuses:
        told[str(status)] = {"description": REASONS[status], "content": {"application/json": {"schema": error}}}
    headers = {"X-Request-Id": {"description": "Yours, or one of ours.", "schema": {"type": "string"}}}
    retry = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return {status: {**each, "headers": headers | (retry if status == "503" else {})} for status, each in told.items()}


_LIMITS: Final = (
    "At most {config.max_request_images} images and {config.max_body_bytes} bytes a request; of a picture "
    "that is to be split at most {config.max_digits} digits, which count as images. Every answer has the "
    "header X-Request-Id: yours, if you send one, else one of ours."
)

_FILE: Final = {"type": "string", "format": "binary"}
_INFERENCE: Final = (400, 401, 404, 413, 503, 504)

PREDICT_DOCS: Final[dict[str, Any]] = {
    "description": "An image of 28x28 pixels is taken as it is; in any other, the digit is looked for. Ink may be dark "
    "on light or light on dark. A bad image among several has an error in its place; one that comes alone is the "
    "request's error. Of several frames or pages the first is read, and a remark says so. With split=true an image is "
    "a picture of several digits; 784 bytes of pixels are none.",
    "parameters": [
        {
            "name": "split",
            "in": "query",
            "description": "1, true or yes: read all digits of each image, line by line, each with its box.",
            "schema": {"type": "string"},
        },
        {
            "name": "pixels",
            "in": "query",
            "description": "1, true or yes: answer with what the model saw, too.",
            "schema": {"type": "string"},
        },
    ],
    "requestBody": {
        "required": True,
        "content": {
            **_body(
                schemas.EncodedImages,
                a_five={"images": [EXAMPLE_BASE64]},
                a_line_to_split={"images": [base64.b64encode(EXAMPLE_LINE).decode()]},
            )["content"],
            **{f"image/{kind}": {"schema": _FILE} for kind in IMAGE_KINDS},
            "application/octet-stream": {"schema": {**_FILE, "description": "784 grey bytes an image, or one file"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"images": {"type": "array", "items": _FILE, "minItems": 1}},
                    "additionalProperties": {**_FILE, "description": "names mean nothing"},
                    "minProperties": 1,
                }
            },
        },
    },
    "responses": _answers(
        {"anyOf": [schemas.Predictions, schemas.SplitPredictions]}, schemas.Failure, *_INFERENCE, 415
    ),
}
"""Of ``POST /predict``."""

_TFS_INFER: Final[dict[str, Any]] = {
    "requestBody": _body(
        schemas.TfsInstances,
        schemas.TfsInputs,
        a_five_in_pixels={"instances": [EXAMPLE_PIXELS]},
        a_five_as_a_file={"instances": [{"b64": EXAMPLE_BASE64}]},
        by_column={"inputs": {"image": [EXAMPLE_PIXELS]}},
    ),
    "responses": _answers({"anyOf": [schemas.TfsPredictions, schemas.TfsOutputs]}, schemas.FailureLine, *_INFERENCE),
}
_V2_INFER: Final[dict[str, Any]] = {
    "description": "With the extension for binary tensor data, the JSON is as long as the header "
    "Inference-Header-Content-Length says, and pixels follow it.",
    "requestBody": _body(
        v2_schemas.V2Request,
        a_five_in_pixels={
            "inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": [EXAMPLE_PIXELS]}]
        },
        a_five_as_a_file={
            "inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [EXAMPLE_BASE64]}],
            "outputs": [{"name": "digit"}],
        },
    ),
    "responses": _answers(v2_schemas.V2Reply, schemas.FailureLine, *_INFERENCE, 415),
}
_V2_INFER["responses"]["200"]["content"]["application/octet-stream"] = {
    "schema": {**_FILE, "description": "where binary outputs were asked for"}
}


def _both(path: str, docs: dict[str, Any], method: str = "GET") -> dict[tuple[str, str], dict[str, Any]]:
    """The operation of that path, and the same for a version that is named."""
    versioned = path.replace(MODEL_IN_PATH, f"{MODEL_IN_PATH}/versions/{VERSION_IN_PATH}")
    return {(method, path): docs, (method, versioned): docs}


def _found(answer: Any, *statuses: int) -> dict[str, Any]:
    return {"responses": _answers(answer, schemas.FailureLine, *statuses)}


TFS_DOCS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    **_both("/v1/models/{model}:predict", _TFS_INFER, "POST"),
    **_both("/v1/models/{model}", _found(schemas.TfsStatus, 401, 404)),
    **_both("/v1/models/{model}/metadata", _found(schemas.TfsMetadata, 401, 404)),
}
"""Of TensorFlow Serving's REST protocol, by method and path."""

V2_DOCS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("GET", "/v2"): _found(v2_schemas.V2Server, 401),
    ("GET", "/v2/health/live"): _found(v2_schemas.V2Live),
    ("GET", "/v2/health/ready"): _found(v2_schemas.V2Ready),
    **_both("/v2/models/{model}", _found(v2_schemas.V2Model, 401, 404)),
    **_both("/v2/models/{model}/ready", _found(v2_schemas.V2ModelReady, 401, 404)),
    **_both("/v2/models/{model}/infer", _V2_INFER, "POST"),
}
"""Of the Open Inference Protocol V2, by method and path."""


def build_openapi(routes: Sequence[Route], config: ServeConfig, model_name: str, version: str = "1") -> dict[str, Any]:
    """Describe the endpoint.

    Args:
        routes: Those without ``docs`` are left out.
        config: What is served; says whether API keys are asked for.
        model_name: Takes the place of ``{model}``.
        version: One that is there, for the examples.

    Returns:
        An OpenAPI 3.1 document.
    """
    keys = config.api_key_file is not None
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.docs:
            operations = paths.setdefault(route.path.replace(MODEL_IN_PATH, model_name), {})
            operations[route.method.lower()] = _describe(route, keys, version)
    used = {route.protocol for route in routes if route.docs}
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Digits",
            "version": importlib.metadata.version("mnist-on-ray"),
            "description": f"Reads digits from images, with the model {model_name!r}. {_LIMITS.format(config=config)}",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": text} for key, (name, text) in TAGS.items() if key in used],
        "paths": paths,
        "components": {"securitySchemes": _KEY_SCHEMES} if keys else {},
    }
    return _with_schemas(document)


def _describe(route: Route, keys: bool, version: str) -> dict[str, Any]:
    """One operation: what its docs say, and what follows from its route."""
    asks = keys and route.guarded
    parameters = [*route.docs.get("parameters", [])]
    if VERSION_IN_PATH in route.path:
        schema = {"type": "string", "pattern": f"^{VERSION}$"}
        parameters.append({"name": "version", "in": "path", "required": True, "schema": schema, "example": version})
    if route.method == "POST":
        parameters.append(_TIMEOUT)
    never = {"401": not asks, "404": VERSION_IN_PATH not in route.path}
    responses = {status: each for status, each in route.docs["responses"].items() if not never.get(status)}
    return {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()} {route.path}").strip("_"),
        "summary": route.summary,
        "tags": [TAGS[route.protocol][0]],
        **route.docs,
        "parameters": parameters,
        "responses": responses,
        **({"security": [{name: []} for name in _KEY_SCHEMES]} if asks else {}),
    }


def _with_schemas(document: dict[str, Any]) -> dict[str, Any]:
    """Put references in the place of models, and their schemas into the document."""
    models = sorted(set(_models(document)), key=lambda model: model.__name__)
    references, found = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    whole: dict[str, Any] = _refer(document, {model: schema for (model, _), schema in references.items()})
    whole["components"]["schemas"] = found.get("$defs", {})
    return whole


def _models(value: Any) -> Iterator[type[BaseModel]]:
    if isinstance(value, type):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _models(each)


def _refer(value: Any, references: Mapping[Any, Any]) -> Any:
    if isinstance(value, type):
        return references[value]
    if isinstance(value, Mapping):
        return {name: _refer(each, references) for name, each in value.items()}
    return [_refer(each, references) for each in value] if isinstance(value, list) else value
