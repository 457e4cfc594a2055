"""A small model that has learned to read digits: trained in this process in some seconds, and published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mnist_core.artifact import publish_artifact
from mnist_core.batches import Share
from mnist_core.config import TrainConfig
from mnist_core.datasets import load_dataset
from mnist_core.registry import promote
from mnist_core.splits import Split
from mnist_core.storage import open_storage
from mnist_core.training import Progress, hold_out, train


def publish_trained(folder: Path, data_dir: Path | None) -> str:
    """Train on real MNIST where there is some, else on the embedded digits; returns the storage that has ``mnist/1``.

    MNIST's model is calibrated. The other is not: it would take all that is drawn for no digit.
    """
    from mnist_core.export import export_calibrated, export_model

    if data_dir:
        network, training, validation = _train("mnist", data_dir, most=24_000, epochs=1)
        files = export_calibrated(network, training, validation, seed=0)[0]
    else:
        network, _, _ = _train("uci-digits", None, most=2_000, epochs=20, augment="affine")
        files = export_model(network)
    storage = open_storage(str(folder))
    manifest = publish_artifact(storage, "mnist", files, run_id="run", config={}, dataset={}, metrics={}, libraries={})
    promote(storage, "mnist", manifest.version)
    return storage.uri


def _train(dataset: str, data_dir: Path | None, most: int, **values: Any) -> tuple[Any, Split, Split]:
    import tensorflow as tf

    from mnist_core.trainer import Trainer

    data = load_dataset(dataset, data_dir, download=False).train
    training, validation = hold_out(Split(data.images[:most], data.labels[:most]), 0.1, seed=0)
    config = TrainConfig(recipe="notebook", schedule="one-cycle", learning_rate=4e-3, **values)
    trainer = Trainer(config, tf.distribute.get_strategy(), Share())
    for _ in train(trainer, training, validation, Progress(), lambda _: None):
        pass
    return trainer.load_network(trainer.result_weights()), training, validation
