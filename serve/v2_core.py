"""What REST and gRPC have in common in the Open Inference Protocol V2: the model's description, inference, errors."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

from mnist_core.errors import ImageError, ModelNotFoundError, RequestError
from serve.pixels import group_reasons
from serve.service import Answer, Service
from serve.v2_tensors import INPUT, OUTPUTS, Images, name_images, shown

SERVER: Final = "mnist-on-ray"
EXTENSIONS: Final = ("binary_tensor_data",)
PLATFORM: Final = "tensorflow_keras"

ANY_NUMBER: Final = -1
"""In a shape that is described."""

_REFUSED_PARAMETERS: Final = frozenset({"classification", "shared_memory_region"})
"""Of an output: who asks for these takes another answer for the one that was asked for."""


def describe_server() -> dict[str, Any]:
    """The server's metadata."""
    return {"name": SERVER, "version": _server_version(), "extensions": list(EXTENSIONS)}


async def describe_model(service: Service, version: str | None) -> dict[str, Any]:
    """The model's metadata: all versions have the same.

    Raises:
        ModelNotFoundError: There is no such version.
    """
    versions = await asyncio.to_thread(service.models.versions)
    if version is not None and version not in versions:
        known = ", ".join(versions[-20:])
        raise ModelNotFoundError(f"model {service.models.name!r} has no version {shown(version)}, but: {known}")
    return {
        "name": service.models.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [ANY_NUMBER, 28, 28]}],
        "outputs": [
            {"name": name, "datatype": output.datatype, "shape": [ANY_NUMBER, *output.shape]}
            for name, output in OUTPUTS.items()
        ],
    }


def check_model(service: Service, name: str) -> None:
    """Refuse another model than the one that is served.

    Raises:
        ModelNotFoundError: It is another.
    """
    if name != service.models.name:
        raise ModelNotFoundError(f"model: received {shown(name)}, expected {service.models.name!r}, which is served")


def check_input(names: Sequence[Any]) -> None:
    """Refuse other inputs than the one there is.

    Raises:
        RequestError: They are none, several, or of another name.
    """
    if len(names) != 1:
        raise RequestError(f"inputs: received {len(names)} tensors, expected one, {INPUT!r}")
    if names[0] != INPUT:
        raise RequestError(f"inputs[0].name: received {shown(names[0])}, expected {INPUT!r}")


def choose_outputs(requested: Sequence[tuple[Any, Iterable[str]]]) -> list[str]:
    """The outputs that are asked for, which are all if none are.

    Args:
        requested: Name and names of the parameters of each.

    Raises:
        RequestError: One is not known, is asked for twice, or in a way that is not offered.
    """
    chosen: list[str] = []
    for index, (name, parameters) in enumerate(requested):
        if not isinstance(name, str) or name not in OUTPUTS:
            raise RequestError(f"outputs[{index}].name: received {shown(name)}, expected one of {', '.join(OUTPUTS)}")
        if name in chosen:
            raise RequestError(f"outputs[{index}].name: received {name!r} again, expected each output once")
        if refused := _REFUSED_PARAMETERS.intersection(parameters):
            names = ", ".join(sorted(refused))
            raise RequestError(f"outputs[{index}].parameters: received {names}, which is not offered; leave it out")
        chosen.append(name)
    return chosen or list(OUTPUTS)


async def classify(service: Service, images: Images, version: str | None, deadline: float) -> Answer:
    """Have images classified, all or none: V2 has no error of a single image.

    Raises:
        ImageError: Some are bad; all of them are named.
        MnistError: As ``Service.classify_pixels`` and ``Service.classify_files``.
    """
    if isinstance(images, list):
        answer = await service.classify_files(images, version, deadline)
    else:
        answer = await service.classify_pixels(images, version, deadline)
    if answer.errors:
        raise ImageError(_describe_bad(answer.errors, len(answer.pixels)))
    return answer


def _describe_bad(errors: dict[int, ImageError], count: int) -> str:
    reasons = "; ".join(f"{name_images(each)}: {reason}" for reason, each in group_reasons(errors).items())
    good = count - len(errors)
    return f"{reasons}; send the other {good} without {'it' if len(errors) == 1 else 'them'}" if good else reasons


@cache
def _server_version() -> str:
    return importlib.metadata.version(SERVER)
