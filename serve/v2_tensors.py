"""Tensors of the Open Inference Protocol V2: from what a request holds to images, and from predictions to outputs.

Contents come in three forms: bytes in the order of memory (REST's binary data, gRPC's raw contents), lists of JSON, and
gRPC's repeated fields. A shape is read first, and it is a promise only: it bounds what the contents may be, and nothing
is made in its size before the contents are known to have it.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mnist_core.errors import RequestError
from mnist_core.predictor import Predictions
from mnist_core.splits import IMAGE_SIZE, NUM_CLASSES
from serve.pixels import PIXELS, decode_base64, name_positions, scale_pixels, to_float32

INPUT: Final = "images"
"""The only input: pixels, or encoded files as BYTES."""

Images = npt.NDArray[np.uint8] | list[bytes]
"""uint8 (N, 28, 28), or N image files."""

_PIXEL_SHAPES: Final = ((*IMAGE_SIZE,), (*IMAGE_SIZE, 1), (PIXELS,))
_SHAPES: Final[dict[str, tuple[tuple[int, ...], ...]]] = {
    "UINT8": _PIXEL_SHAPES,
    "FP32": _PIXEL_SHAPES,
    "BYTES": ((), (1,)),
}
"""What may follow the number of images in a shape, by datatype."""

_DTYPES: Final[dict[str, np.dtype[Any]]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype("<f4")}
_JSON_TYPES: Final[dict[str, set[type]]] = {"UINT8": {int}, "FP32": {int, float}}
_LENGTH_BYTES: Final = 4


@dataclass(frozen=True)
class Output:
    """One output of the model.

    Attributes:
        datatype: In V2's words.
        shape: Of one image's part.
        compute: Takes it from the predictions: (N, *shape).
    """

    datatype: str
    shape: tuple[int, ...]
    compute: Callable[[Predictions], npt.NDArray[Any]]


OUTPUTS: Final[dict[str, Output]] = {
    "probabilities": Output("FP32", (NUM_CLASSES,), lambda found: found.probabilities),
    "digit": Output("INT64", (), lambda found: found.digits.astype(np.int64)),
    "confidence": Output("FP32", (), lambda found: found.confidences),
    "rejected": Output("BOOL", (), lambda found: found.rejected),
}
"""By name, in the order in which they are answered."""


class _Short(reprlib.Repr):
    def repr_dict(self, x: dict[Any, Any], level: int) -> str:  # noqa: ARG002
        return "{...}"  # reprlib would sort the keys, and there may be millions


shown: Final = _Short().repr
"""What was received, in few words: it may be of any size."""


def count_images(datatype: Any, shape: Any, where: str) -> int:
    """The number of images that a shape promises.

    Raises:
        RequestError: Datatype or shape are none that the model takes.
    """
    if not isinstance(datatype, str) or datatype not in _SHAPES:
        raise RequestError(f"{where}.datatype: received {shown(datatype)}, expected {' or '.join(_SHAPES)}")
    # A bool is an int to Python, and 1 to a comparison.
    if (
        not isinstance(shape, list)
        or not shape
        or any(type(size) is not int for size in shape)
        or shape[0] < 0
        or tuple(shape[1:]) not in _SHAPES[datatype]
    ):
        expected = " or ".join(str(["N", *tail]).replace("'", "") for tail in _SHAPES[datatype])
        raise RequestError(f"{where}.shape: received {shown(shape)}, expected {expected} for {datatype}, N from 0 up")
    return int(shape[0])


def read_binary(datatype: str, count: int, data: bytes | memoryview, where: str) -> Images:
    """Read images from bytes in the order of memory; UINT8 is not copied.

    Args:
        datatype: As checked by ``count_images``.
        count: Likewise, and not too many.
        data: Little-endian; BYTES have 4 bytes with the length before each element.
        where: Names the tensor in an error.

    Raises:
        RequestError: The bytes are not what the shape promises, or no pixels.
    """
    if datatype == "BYTES":
        return _split(count, data, where)
    dtype = _DTYPES[datatype]
    if len(data) != count * PIXELS * dtype.itemsize:
        raise RequestError(
            f"{where}: received {len(data)} bytes, expected {count * PIXELS * dtype.itemsize} for the shape: "
            f"{PIXELS} {datatype} an image"
        )
    pixels: npt.NDArray[Any] = np.frombuffer(data, dtype)
    if datatype == "FP32":
        pixels = _from_floats(pixels.reshape(count, PIXELS), where)
    return pixels.reshape(count, *IMAGE_SIZE)


def read_json(datatype: str, shape: list[int], data: Any, where: str) -> Images:
    """Read images from lists, flat or nested like the shape; BYTES are base64.

    Args:
        datatype: As checked by ``count_images``.
        shape: Likewise, and not of too many images.
        data: What JSON held.
        where: Names the tensor in an error.

    Raises:
        RequestError: The lists are not what the shape promises, or hold no pixels.
    """
    values = _flatten(data, shape, where)
    if datatype == "BYTES":
        return [decode_base64(text, f"{where}[{index}]") for index, text in enumerate(values)]
    if wrong := set(map(type, values)) - _JSON_TYPES[datatype]:
        names = ", ".join(sorted(each.__name__ for each in wrong))
        kind = "integers 0 to 255" if datatype == "UINT8" else "numbers"
        raise RequestError(f"{where}: received {names} among the pixels, expected {kind}")
    if datatype == "UINT8":
        try:
            pixels: npt.NDArray[np.uint8] = np.frombuffer(bytes(values), np.uint8)
        except (ValueError, OverflowError) as err:
            raise RequestError(f"{where}: received {_wrong_byte(values)}, expected integers 0 to 255") from err
    else:
        pixels = _from_floats(to_float32(values).reshape(-1, PIXELS), where)
    return pixels.reshape(-1, *IMAGE_SIZE)


def read_elements(datatype: str, count: int, elements: Sequence[Any], where: str) -> Images:
    """Read images from a repeated field of the datatype's own kind.

    Args:
        datatype: As checked by ``count_images``.
        count: Likewise, and not too many.
        elements: Unsigned integers of 32 bits, floats, or files.
        where: Names the tensor in an error.

    Raises:
        RequestError: They are not as many as the shape promises, or no pixels.
    """
    expected = count if datatype == "BYTES" else count * PIXELS
    if len(elements) != expected:
        raise RequestError(f"{where}: received {len(elements)} elements, expected {expected} for the shape")
    if datatype == "BYTES":
        return list(elements)
    if datatype == "FP32":
        pixels = _from_floats(np.array(elements, np.float32).reshape(count, PIXELS), where)
    else:
        numbers = np.array(elements, np.uint32)
        if count and numbers.max() > 255:
            raise RequestError(f"{where}: received {numbers.max()}, expected integers 0 to 255")
        pixels = numbers.astype(np.uint8)
    return pixels.reshape(count, *IMAGE_SIZE)


def _split(count: int, data: bytes | memoryview, where: str) -> list[bytes]:
    """Take elements apart that have their lengths before them."""
    files: list[bytes] = []
    position = 0
    while position < len(data) and len(files) < count:
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(data[position:start], "little")
        if start > len(data) or position > len(data):
            raise RequestError(
                f"{where}[{len(files)}]: is cut off by the end of the data; expected 4 bytes with the length "
                "(little-endian), then as many bytes"
            )
        files.append(bytes(data[start:position]))
    if len(files) != count or position != len(data):
        rest = f" and {len(data) - position} bytes" if position < len(data) else ""
        raise RequestError(f"{where}: received {len(files)} elements{rest}, expected {count} for the shape")
    return files


def _flatten(data: Any, shape: list[int], where: str) -> list[Any]:
    """The elements of nested lists, in the order of memory."""
    if not isinstance(data, list):
        raise RequestError(f"{where}: received {shown(data)}, expected a list, flat or nested like the shape")
    if not data or not isinstance(data[0], list):
        if len(data) != math.prod(shape):
            raise RequestError(f"{where}: received {len(data)} elements, expected {math.prod(shape)} for the shape")
        return data
    parts = [data]
    for size in shape:
        for part in parts:
            if not isinstance(part, list) or len(part) != size:
                found = f"a list of {len(part)}" if isinstance(part, list) else shown(part)
                raise RequestError(f"{where}: received {found} where the shape {shape} has a list of {size}")
        parts = list(chain.from_iterable(parts))
    return parts


def _wrong_byte(values: list[int]) -> int:
    return next(value for value in values if not 0 <= value <= 255)


def _from_floats(pixels: npt.NDArray[np.float32], where: str) -> npt.NDArray[np.uint8]:
    scaled, fits = scale_pixels(pixels)
    if not fits.all():
        bad = name_images(np.flatnonzero(~fits).tolist())
        raise RequestError(f"{where}: {bad}: received pixels that are not finite or not within 0 to 255")
    return scaled


def name_images(positions: Sequence[int]) -> str:
    """``image 3`` or ``images 0, 4-7``: positions, ascending."""
    return f"image{'s' if len(positions) > 1 else ''} {name_positions(positions)}"
