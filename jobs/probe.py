"""What a machine has of what this package needs: Python, libraries, and the package's own code.

Stands alone, since its source is also sent to machines that have none of it: ``python -c SOURCE NAME...`` prints one
JSON object.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("mnist_core", "jobs", "serve")


def look(names: list[str]) -> dict[str, Any]:
    """Look at this machine.

    Args:
        names: Distributions whose versions are asked for.

    Returns:
        ``python`` and ``versions`` (None where a distribution is missing), and ``code``: a digest of the package's
        files, or None where it is not installed.
    """
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {"python": platform.python_version(), "versions": versions, "code": digest()}


def digest() -> str | None:
    """The digest of the package's files; None where one of its folders is missing."""
    found = hashlib.sha256()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.origin:
            return None
        folder = Path(spec.origin).parent
        for path in sorted(each for each in folder.rglob("*") if each.is_file() and each.suffix != ".pyc"):
            found.update(f"{package}/{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return found.hexdigest()


if __name__ == "__main__":
    print(json.dumps(look(sys.argv[1:])))  # noqa: T201
