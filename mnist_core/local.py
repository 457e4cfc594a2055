"""Train in this process, without Ray: for a notebook. ``jobs.train`` does the same on a cluster, to the same bits.

Nothing is written anywhere, and nothing resumes. TensorFlow and Keras are loaded by the functions, not by the import.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_core.batches import Share
from mnist_core.config import TrainConfig
from mnist_core.engines import usable_cpus
from mnist_core.native_output import native_stderr
from mnist_core.predictor import Predictor, load_predictor
from mnist_core.tensorflow_setup import prepare_tensorflow, training_environment
from mnist_core.training import EpochReport, Progress, load_training_data, train

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training came to, wherever it ran.

    Attributes:
        files: The model as it is published, by file name: ``model.keras``, ``model.tflite`` and, where nothing is lost
            by it, ``model.int8.tflite``.
        history: One mapping an epoch, with the fields of ``EpochReport``.
        epoch: The epoch whose weights these are, from 1.
    """

    files: Mapping[str, bytes]
    history: Sequence[Mapping[str, Any]]
    epoch: int

    @cached_property
    def predictor(self) -> Predictor:
        """The model, ready to be asked: as evaluation, scoring and the endpoint ask it."""
        with native_stderr(shown=False):
            return load_predictor(self.files, device="cpu")

    @cached_property
    def model(self) -> keras.Model:
        """The model as Keras has it: uint8 (N, 28, 28) to ``probabilities`` and ``strangeness``, see ``export``."""
        _load_tensorflow(verbose=False)
        import keras

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.keras")
            path.write_bytes(self.files[path.name])
            return keras.saving.load_model(path, compile=False)


def build_network(config: TrainConfig) -> keras.Model:
    """Build the network that is trained, with the weights that training starts from.

    Args:
        config: ``network``, ``ensemble``, ``dropout``, ``precision`` and ``seed`` decide it.

    Returns:
        A model from [images 0..255 (N, 28, 28, members), keys uint32 (N, members)] to logits float32 (N, 10), a list
        of them for an ensemble. The keys decide which units each image's dropout drops.
    """
    _prepare(config)
    from mnist_core.model import build_training_network
    from mnist_core.weights import WeightLayout

    network = build_training_network(
        config.network,
        dropout=config.dropout,
        precision=config.precision,
        seed=config.seed,
        members=config.ensemble,
    )
    layout = WeightLayout(network)
    layout.load(network, layout.initial)
    return network


def train_here(config: TrainConfig, on_epoch: Callable[[EpochReport], object] | None = None) -> Trained:
    """Train with all CPUs of this process; the test split is not looked at.

    Args:
        config: What to train. What it says of storage, runs, workers and failures does not matter here.
        on_epoch: Told of every epoch when it is over.

    Returns:
        The trained model, calibrated; the same configuration gives the same weights bit for bit, here and on Ray.

    Raises:
        DatasetError: The dataset is missing or wrong.
        DivergedError: The loss is not finite.
    """
    splits, _ = load_training_data(config)
    threads = _prepare(config)
    import tensorflow as tf

    from mnist_core.export import export_calibrated
    from mnist_core.trainer import Trainer

    trainer = Trainer(config, tf.distribute.get_strategy(), Share())
    progress, weights = Progress(), trainer.result_weights()
    for reached in train(trainer, splits["train"], splits["validation"], progress, lambda _: None):
        progress = reached
        report = progress.history[-1]
        if progress.selected(config.select) is report:
            weights = trainer.result_weights()
        if on_epoch:
            on_epoch(report)
    network = trainer.load_network(weights)
    with native_stderr(shown=config.verbose):
        files, _ = export_calibrated(network, splits["train"], splits["validation"], seed=config.seed, threads=threads)
    return Trained(files, [asdict(report) for report in progress.history], progress.selected(config.select).epoch)


def _prepare(config: TrainConfig) -> int:
    """Load and set up TensorFlow; returns how many threads it may use."""
    threads = config.threads_per_worker or usable_cpus()
    _load_tensorflow(verbose=config.verbose)
    prepare_tensorflow(config, threads)
    return threads


def _load_tensorflow(*, verbose: bool) -> None:
    os.environ.update(training_environment(verbose=verbose))
    with native_stderr(shown=verbose):
        importlib.import_module("tensorflow")
