"""The storages that the contract tests run against: a folder, and a bucket behind a real S3 API on loopback."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from mnist_core.storage import Storage, open_storage


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty storage, once of each kind."""
    if request.param == "folder":
        return open_storage(str(tmp_path / "storage"))
    return open_storage(f"{request.getfixturevalue('s3_bucket')}/{uuid.uuid4().hex}")
