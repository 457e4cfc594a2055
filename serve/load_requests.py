"""Requests with digits, as the bytes that each protocol sends."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
from PIL import Image, ImageDraw, ImageFont

from mnist_core.splits import IMAGE_SIZE

MOST_DIFFERENT: Final = 64
"""Requests that are made at most; then they come again."""

MOST_IMAGES: Final = 4096
"""Images that they hold together at most, unless one request has more."""

GRPC_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
INPUT: Final = {"name": "images", "datatype": "UINT8"}

Images = npt.NDArray[np.uint8]


def make_requests(
    protocol: str, model: str, host: str, num_images: int, api_key: str | None, digits: Images
) -> Iterator[bytes]:
    """Make requests and hand them out again and again.

    Args:
        protocol: ``predict``, ``v2``, ``v2-binary``, ``tfs`` or ``grpc``.
        model: The served model's name.
        host: For the ``Host`` header, with the port.
        num_images: In one request.
        api_key: Goes with each; in gRPC that is metadata, which is not part of the bytes.
        digits: uint8 (N, 28, 28), any number; they come again where more are needed.

    Returns:
        HTTP/1.1 requests, or for ``grpc`` serialized messages.
    """
    count = max(1, min(MOST_DIFFERENT, MOST_IMAGES // num_images))
    parts = [digits[np.arange(num_images * n, num_images * (n + 1)) % len(digits)] for n in range(count)]
    if protocol == "grpc":
        return cycle([grpc_message(model, images) for images in parts])
    keys = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return cycle([_post(host, *_content(protocol, model, images), keys) for images in parts])


def draw_digits() -> Images:
    """Digits drawn with a font, in many places and sizes: uint8 (300, 28, 28), white on black.

    Drawn, since they are there at once; the embedded ones take three seconds of a core that others measure.
    """
    places = [
        (size, dx, dy)
        for size in (18, 20, 22, 24, 26)
        for dx, dy in ((0, 0), (-2, 1), (2, -1), (1, 2), (-1, -2), (3, 0))
    ]
    drawn = []
    for size, dx, dy in places:
        font = ImageFont.load_default(size)
        for digit in "0123456789":
            image = Image.new("L", IMAGE_SIZE)
            ImageDraw.Draw(image).text((14 + dx, 14 + dy), digit, 255, font, anchor="mm")
            drawn.append(np.asarray(image))
    return np.stack(drawn)


def _content(protocol: str, model: str, images: Images) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body."""
    json_type = {"Content-Type": "application/json"}
    if protocol == "tfs":
        return f"/v1/models/{model}:predict", json_type, _json({"instances": images})
    path = f"/v2/models/{model}/infer"
    tensor: dict[str, Any] = {**INPUT, "shape": images.shape}
    if protocol == "v2":
        return path, json_type, _json({"inputs": [{**tensor, "data": images.reshape(-1)}]})
    pixels = images.tobytes()
    binary_type = {"Content-Type": "application/octet-stream"}
    if protocol == "v2-binary":
        tensor["parameters"] = {"binary_data_size": len(pixels)}
        head = _json({"inputs": [tensor], "parameters": {"binary_data_output": True}})
        return path, {**binary_type, "Inference-Header-Content-Length": str(len(head))}, head + pixels
    return "/predict", binary_type, pixels


def _post(host: str, path: str, headers: dict[str, str], body: bytes, more: dict[str, str]) -> bytes:
    headers = {"Host": host, **headers, **more, "Content-Length": str(len(body))}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def grpc_message(model: str, images: Images) -> bytes:
    """A ``ModelInferRequest`` of the Open Inference Protocol, with its pixels in ``raw_input_contents``."""
    from serve.protos import inference_pb2

    messages: Any = inference_pb2
    tensor = messages.ModelInferRequest.InferInputTensor(**INPUT, shape=images.shape)
    request = messages.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[images.tobytes()])
    return bytes(request.SerializeToString())
