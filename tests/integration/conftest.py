"""A small model that is really published, for the commands that use one."""

from __future__ import annotations

import pytest

from mnist_core.artifact import publish_artifact
from mnist_core.registry import promote
from mnist_core.storage import open_storage


@pytest.fixture(scope="session")
def model_storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage with the model ``mnist/1``: the notebook's network with its first weights, which are good enough for
    tests that compare answers and do not ask whether they are right."""
    from mnist_core.export import export_model
    from mnist_core.model import build_training_network

    storage = open_storage(str(tmp_path_factory.mktemp("models")))
    network = build_training_network("convnet", dropout=0.5, precision="float32", seed=1)
    manifest = publish_artifact(
        storage, "mnist", export_model(network), run_id="run", config={}, dataset={}, metrics={}, libraries={}
    )
    promote(storage, "mnist", manifest.version)
    return storage.uri
