"""Which versions of a model stay loaded in a replica."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mnist_core.artifact import publish_artifact
from mnist_core.registry import open_model, promote
from mnist_core.storage import open_storage
from serve.models import OLD_VERSIONS, ServedModels


@pytest.fixture
def storage(model_storage: str, tmp_path: Path) -> str:
    """One with versions 1 to 7, all of the same files; 1 is current."""
    storage = open_storage(str(shutil.copytree(model_storage, tmp_path / "storage")))
    files = open_model(storage, "mnist").files
    for version in range(2, OLD_VERSIONS + 4):
        published = publish_artifact(
            storage, "mnist", files, run_id=f"run{version}", config={}, dataset={}, metrics={}, libraries={}
        )
        assert published.version == str(version)
    return storage.uri


def test_a_version_that_is_asked_for_stays_loaded_and_the_one_that_was_not_for_longest_does_not(storage: str):
    models = ServedModels(storage, "mnist", device="cpu", precision="float32", threads=1)
    loaded = {version: models.open(version) for version in "2345"}
    assert models.loaded("2") is loaded["2"]  # as every request for it asks
    assert models.open("3") is loaded["3"]
    models.open("6")
    assert models.loaded("4") is None
    assert all(models.loaded(version) is loaded[version] for version in "235")
    promote(open_storage(storage), "mnist", "7")
    assert models.refresh()
    assert models.current.version == models.loaded(None).version == "7"
    assert models.loaded("6") is None  # in its place is the one that was current
    assert models.loaded("1").version == "1"
    assert all(models.loaded(version) is loaded[version] for version in "235")
