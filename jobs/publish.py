"""The end of a run: calibrate, export, measure on the test set, publish, record. Runs once, on the first worker."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
from dataclasses import asdict
from typing import Any

from jobs.train_worker import peak_memory_bytes
from mnist_core.artifact import Manifest, publish_artifact
from mnist_core.checkpoints import Checkpoint
from mnist_core.config import TrainConfig
from mnist_core.datasets import Split
from mnist_core.evaluation import evaluate_model
from mnist_core.export import export_calibrated
from mnist_core.predictor import load_predictor
from mnist_core.registry import promote_once
from mnist_core.report import evaluation_files
from mnist_core.runs import Run, StatusBoard
from mnist_core.trainer import Trainer
from mnist_core.training import Progress

LIBRARIES = ("ai-edge-litert", "keras", "numpy", "ray", "tensorflow")


def publish_run(
    payload: dict[str, Any],
    config: TrainConfig,
    run: Run,
    trainer: Trainer,
    final: Checkpoint,
    splits: dict[str, Split],
    board: StatusBoard,
) -> None:
    """Publish what a run has learned.

    The test set is read here, once, by the published form of the model through the Predictor that will serve it. Doing
    all of this again after a crash publishes nothing twice, since a run has one artifact, and promotes nothing twice: a
    version that was replaced since stays replaced.

    Args:
        payload: What the worker was given.
        config: The run's configuration.
        run: Where the result is recorded.
        trainer: Holds the network.
        final: The finished progress, and the weights to publish as ``selected``.
        splits: The training, validation and test split, by name.
        board: Where to say how it goes.
    """
    board.enter("publishing")
    network, threads, test = trainer.load_network(final.arrays["selected"]), payload["threads"], splits["test"]
    model, calibrated = export_calibrated(
        network, splits["train"], splits["validation"], seed=config.seed, threads=threads
    )
    predictor = load_predictor(model, device="cpu", threads=threads)
    evaluation, predictions = evaluate_model(predictor, test.images, test.labels)
    published = final.progress.selected(config.select)
    measured = {
        "validation": {"accuracy": published.validation_accuracy, "loss": published.validation_loss},
        "test": {"accuracy": evaluation.accuracy, "loss": evaluation.loss, "count": evaluation.count},
        **calibrated,
    }
    settings = {**config.identity(), "run": run.name}
    libraries = {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in LIBRARIES}}
    files = evaluation_files(
        evaluation,
        test.images,
        test.labels,
        predictions.probabilities,
        model=config.model,
        dataset={**payload["dataset"], "split": "test"},
        tables={"Configuration": settings, "Dataset": payload["dataset"], "Libraries": libraries},
        command=_command(config),
        history=[asdict(report) for report in final.progress.history],
        best_epoch=published.epoch,
    )
    manifest = publish_artifact(
        run.storage,
        config.model,
        {**model, **files},
        run_id=payload["run_id"],
        config=settings,
        dataset=payload["dataset"],
        metrics={**measured, "expected_calibration_error": evaluation.ece},
        libraries=libraries,
    )
    promoted = config.promote and promote_once(run.storage, config.model, manifest.version)
    result = _result(payload, config, run, final.progress, manifest, trainer.share.world_size, board)
    run.write_result({**result, "promoted": promoted, **measured})
    board.enter("done")


def _result(
    payload: dict[str, Any],
    config: TrainConfig,
    run: Run,
    progress: Progress,
    manifest: Manifest,
    world_size: int,
    board: StatusBoard,
) -> dict[str, Any]:
    """What a run came to, but for what was measured of its model."""
    marks = board.marks
    seconds = sum(report.seconds for report in progress.history)
    return {
        "model": config.model,
        "version": manifest.version,
        "artifact": run.storage.path(f"models/{manifest.reference}"),
        "run": run.name,
        "workers": world_size,
        "epochs": config.epochs,
        "dataset": payload["dataset"],
        "train_seconds": round(seconds, 3),
        "startup_seconds": round(marks["first_step"] - marks["command"], 3),
        "marks": marks,
        "images_per_second": round(payload["dataset"]["train"] * config.epochs / seconds, 1),
        "peak_memory_bytes": peak_memory_bytes(),
        "best_epoch": progress.best.epoch,
        "published_epoch": progress.selected(config.select).epoch,
    }


def _command(config: TrainConfig) -> str:
    """The shortest command line that trains this model again."""
    default = TrainConfig(recipe=config.recipe)
    words = ["mnist", "train", "--recipe", config.recipe]
    for name, value in config.identity().items():
        if name != "recipe" and value != getattr(default, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
