"""TensorFlow Serving's REST protocol: ``:predict`` by row (``instances``) or by column (``inputs``), status, metadata.

As there, the content type means nothing, and a request is answered whole or not at all: one bad image among several
makes it an error, which names all that are bad.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mnist_core.errors import (
    ImageError,
    MnistError,
    ModelNotFoundError,
    PathNotFoundError,
    RequestError,
)
from mnist_core.splits import IMAGE_SIZE, NUM_CLASSES
from serve.calls import Call, Reply, json_reply, read_json
from serve.http_errors import plain_error_reply
from serve.openapi import TFS_DOCS
from serve.pixels import PIXELS, decode_base64, group_reasons, name_positions, scale_pixels, to_float32
from serve.routing import Route
from serve.service import Service

PREFIX: Final = "/v1"
SIGNATURE: Final = "serving_default"
INPUT: Final = "image"
"""The only input."""

EXPECTED: Final = (
    f"{IMAGE_SIZE[0]} rows of {IMAGE_SIZE[1]} numbers, {PIXELS} numbers, "
    f'{{"b64": "an image file"}} or {{"{INPUT}": one of these}}'
)
_ROWS, _COLUMNS = IMAGE_SIZE
_MOST_REASONS: Final = 3
_LONGEST_KEY: Final = 40
_OUTPUTS: Final[dict[str, tuple[str, *tuple[int, ...]]]] = {
    "digit": ("DT_UINT8",),
    "confidence": ("DT_FLOAT",),
    "probabilities": ("DT_FLOAT", NUM_CLASSES),
    "rejected": ("DT_BOOL",),
}
"""In the order in which answers have them: data type, and the shape of one image's part."""
_JSON_NAMES: Final = {bool: "a boolean", str: "a string", list: "a list", dict: "an object", type(None): "null"}


async def predict(call: Call, service: Service) -> Reply:
    """Classify the images of one request.

    Raises:
        ImageError: Some are bad.
        RequestError: The request is not as TensorFlow Serving has it.
        MnistError: It cannot be answered.
    """
    name, images = _find_images(call.body, service.config.max_request_images)
    service.check_count(len(images))
    await service.model(call.version)
    pixels, files = _read_images(images, name)
    if files:
        await _decode(files, pixels, name, service, call.deadline)
    answer = await service.classify_pixels(pixels, call.version, call.deadline)
    if answer.errors:
        raise ImageError(_name_bad(answer.errors, name))
    found = answer.predictions
    parts: list[npt.NDArray[Any]] = [found.digits, found.confidences, found.probabilities, found.rejected]
    columns = dict(zip(_OUTPUTS, parts, strict=True))
    return json_reply({"outputs": columns} if name == "inputs" else {"predictions": _rows(columns)})


async def status(call: Call, service: Service) -> Reply:
    """Say that a version is there.

    Raises:
        ModelNotFoundError: It is not.
    """
    model = await service.model(call.version)
    fine = {"error_code": "OK", "error_message": ""}
    return json_reply({"model_version_status": [{"version": model.version, "state": "AVAILABLE", "status": fine}]})


async def metadata(call: Call, service: Service) -> Reply:
    """Say what the model takes and gives.

    Raises:
        ModelNotFoundError: There is no such version.
    """
    model = await service.model(call.version)
    return json_reply(
        {
            "model_spec": {"name": model.name, "signature_name": "", "version": model.version},
            "metadata": {"signature_def": {"signature_def": {SIGNATURE: _SIGNATURE_DEF}}},
        }
    )


def no_such_path(path: str, service: Service) -> MnistError:
    """What to answer to a path below ``PREFIX`` that has no route: most often, the model is another."""
    name = service.models.name
    if (match := re.match(r"/v1/models/([^/:]+)", path)) and match[1] != name:
        return ModelNotFoundError(f"model: received {_short(match[1])}, expected {name!r}, the one served here")
    return PathNotFoundError(f"path {_short(path)}: there is none, /v1/models/{name}:predict is one")


def _find_images(body: bytes, most_images: int) -> tuple[str, list[Any]]:
    """The list of images in a body, and the name it has there: ``instances`` or ``inputs``."""
    try:
        request = read_json(body, most_images)
    except ValueError as err:
        raise RequestError(f'body: received no JSON ({err}), expected {{"instances": [image, ...]}}') from err
    names = [name for name in ("instances", "inputs") if name in request] if isinstance(request, dict) else []
    if len(names) != 1:
        received = " and ".join(names) or "neither"
        raise RequestError(f'body: received {received}, expected one of "instances" (by row) and "inputs" (by column)')
    signature = request.get("signature_name", SIGNATURE)
    if signature not in (SIGNATURE, ""):
        raise RequestError(f"signature_name: received {_short(signature)}, expected {SIGNATURE!r}; leave it out")
    images, where = request[names[0]], names[0]
    if where == "inputs" and isinstance(images, dict):
        if images.keys() != {INPUT}:
            raise RequestError(f"inputs: received {_short(images)}, expected the one input {INPUT!r}")
        images, where = images[INPUT], f"inputs.{INPUT}"
    if not isinstance(images, list) or not images:
        received = "an empty list" if images == [] else _short(images)
        raise RequestError(f"{where}: received {received}, expected a list with one image at least")
    return names[0], images


def _read_images(images: list[Any], name: str) -> tuple[npt.NDArray[np.uint8], dict[int, bytes]]:
    """Pixels, uint8 (N, 28, 28), zeros where an image came as a file; and the files by position."""
    pixels = np.zeros((len(images), PIXELS), np.uint8)
    files: dict[int, bytes] = {}
    errors: dict[int, str] = {}  # an exception would keep this frame, and that its errors, in a circle
    for index, image in enumerate(images):
        try:
            if name == "instances" and type(image) is dict and image.keys() == {INPUT}:
                image = image[INPUT]
            if type(image) is dict and image.keys() == {"b64"}:
                files[index] = decode_base64(image["b64"], "b64")
            else:
                pixels[index] = read_pixels(image)
        except RequestError as err:
            errors[index] = str(err)
    if errors:
        raise RequestError(_name_bad(errors, name))
    return pixels.reshape(-1, *IMAGE_SIZE), files


def read_pixels(value: Any) -> npt.NDArray[np.uint8]:
    """Read one image of numbers from JSON: uint8 (784,).

    Args:
        value: 784 numbers, 28 rows of 28, or those with each number in a list of its own. All are 0 to 255; if none is
            above 1, they are taken as 0 to 1.

    Raises:
        RequestError: It is none of these.
    """
    numbers = _flatten(value)
    kinds = set(map(type, numbers))
    if not kinds <= {int, float}:  # a bool is none, though Python says so
        received = " and ".join(sorted(_JSON_NAMES[kind] for kind in kinds - {int, float}))
        raise RequestError(f"received {received} among the pixels, expected numbers")
    pixels, fits = scale_pixels(to_float32(numbers)[None])
    if not fits[0]:
        raise RequestError(f"received pixels of {min(numbers):g} to {max(numbers):g}, expected 0 to 255, or 0 to 1")
    return np.asarray(pixels[0])


def _flatten(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise RequestError(f"received {_short(value)}, expected {EXPECTED}")
    if len(value) == PIXELS:
        return value
    if len(value) != _ROWS:
        raise RequestError(f"received a list of {len(value)}, expected {EXPECTED}")
    for index, row in enumerate(value):
        if not isinstance(row, list) or len(row) != _COLUMNS:
            received = f"a list of {len(row)}" if isinstance(row, list) else _short(row)
            raise RequestError(f"received {received} as row {index}, expected {_ROWS} rows of {_COLUMNS} numbers")
    numbers = list(chain.from_iterable(value))
    if isinstance(numbers[0], list):
        if not all(isinstance(number, list) and len(number) == 1 for number in numbers):
            raise RequestError(f"received rows of lists, expected {_ROWS}x{_COLUMNS}x1: each with one number")
        numbers = list(chain.from_iterable(numbers))
    return numbers


async def _decode(
    files: dict[int, bytes], pixels: npt.NDArray[np.uint8], name: str, service: Service, deadline: float
) -> None:
    """Put what is in files among the pixels."""
    decoded, found = await service.decode(list(files.values()), deadline)
    positions = list(files)
    if found:
        raise ImageError(_name_bad({positions[index]: err for index, err in found.items()}, name))
    pixels[positions] = decoded


def _name_bad(errors: Mapping[int, Exception | str], name: str) -> str:
    """Name all images that are bad, and the first few reasons."""
    positions = group_reasons(errors)
    told = [f"{name}[{name_positions(each)}]: {reason}" for reason, each in [*positions.items()][:_MOST_REASONS]]
    if rest := sorted(chain.from_iterable([*positions.values()][_MOST_REASONS:])):
        told.append(f"{name}[{name_positions(rest)}]: bad for other reasons")
    return "; ".join(told)


def _short(value: Any) -> str:
    """Say what a value is, whatever its size, in one line."""
    if isinstance(value, dict):
        keys = ", ".join(repr(key[:_LONGEST_KEY]) for key in [*value][:_MOST_REASONS])
        return f"an object with {keys}" if value else "an empty object"
    if isinstance(value, str):
        return repr(value[:_LONGEST_KEY])
    return _JSON_NAMES.get(type(value), "a number")


def _rows(columns: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
    parts = [column.tolist() if column.dtype != np.float32 else column for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*parts, strict=True)]


def _tensor(name: str, dtype: str, *sizes: int) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in (-1, *sizes)]
    return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": f"{SIGNATURE}_{name}:0"}


_SIGNATURE_DEF: Final = {
    "inputs": {INPUT: _tensor(INPUT, "DT_FLOAT", *IMAGE_SIZE)},
    "outputs": {name: _tensor(name, *kind) for name, kind in _OUTPUTS.items()},
    "method_name": "tensorflow/serving/predict",
}

_OPERATIONS: Final = (
    ("POST", "/v1/models/{model}:predict", predict, "The digits of images"),
    ("POST", "/v1/models/{model}/versions/{version}:predict", predict, "The digits of images, by this version"),
    ("GET", "/v1/models/{model}", status, "The current version"),
    ("GET", "/v1/models/{model}/versions/{version}", status, "Whether this version is there"),
    ("GET", "/v1/models/{model}/metadata", metadata, "The model's inputs and outputs"),
    ("GET", "/v1/models/{model}/versions/{version}/metadata", metadata, "This version's inputs and outputs"),
)

ROUTES: Final = tuple(
    Route(method, path, handler, "tfs", summary, plain_error_reply, docs=TFS_DOCS[method, path])
    for method, path, handler, summary in _OPERATIONS
)
