"""Small JSON documents that carry their own checksum: the manifest of a model and the pointer to the current one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mnist_core.errors import ArtifactError


def seal(fields: Mapping[str, Any]) -> bytes:
    """Encode fields as JSON in one canonical form, with the SHA-256 of that form as one more field.

    Raises:
        ArtifactError: A value cannot be written as JSON, such as a NaN.
    """
    return _canonical({**fields, "sha256": sha256(_canonical(fields))})


def unseal(data: bytes, where: str) -> dict[str, Any]:
    """Decode what `seal` made. Any byte that differs is found, white space too.

    Raises:
        ArtifactError: These are not the bytes that were sealed; ``where`` says which document they are.
    """
    try:
        fields: dict[str, Any] = json.loads(data)
        del fields["sha256"]
        intact = seal(fields) == data
    except (ValueError, TypeError, KeyError, RecursionError, ArtifactError):
        intact = False
    if not intact:
        raise ArtifactError(
            f"{where}: not what was written there, its checksum differs; restore it, or publish or promote again"
        )
    return fields


def sha256(data: bytes) -> str:
    """Compute the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _canonical(fields: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(fields, sort_keys=True, indent=2, allow_nan=False) + "\n").encode()
    except ValueError as err:
        raise ArtifactError(f"cannot be written as JSON: {err}; expected finite numbers only") from err
