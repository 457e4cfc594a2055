"""Untrained models that are really published, for tests that compare answers and do not ask whether they are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mnist_core.artifact import publish_artifact
from mnist_core.registry import promote
from mnist_core.storage import Storage, open_storage


def publish_untrained(storage: Storage, seed: int = 1) -> str:
    """Publish the notebook's network with its first weights as a version of ``mnist``; returns the version."""
    from mnist_core.export import export_model
    from mnist_core.model import build_training_network

    files = export_model(build_training_network("convnet", dropout=0.5, precision="float32", seed=seed))
    about: dict[str, Any] = {"config": {}, "dataset": {}, "metrics": {}, "libraries": {}}
    return publish_artifact(storage, "mnist", files, run_id=f"run{seed}", **about).version


def untrained_storage(folder: Path) -> str:
    """A new storage whose current model is ``mnist/1``; returns its URI."""
    storage = open_storage(str(folder))
    promote(storage, "mnist", publish_untrained(storage))
    return storage.uri
