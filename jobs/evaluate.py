"""``mnist evaluate``: a published model on a labelled dataset, in this process or spread over Ray tasks.

The tasks send counts, which add up to the same result whatever the number of tasks.
"""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.cluster import can_reserve, node_sizes, ray_session
from jobs.data import download_progress
from mnist_core.artifact import Manifest
from mnist_core.config import EvaluateConfig
from mnist_core.datasets import Dataset, Split, load_dataset
from mnist_core.errors import ConfigError, MnistError, ResourcesError, StorageError
from mnist_core.evaluation import Counts, Evaluation, count_predictions
from mnist_core.native_output import native_stderr
from mnist_core.predictor import MODEL_FILES, Predictions, load_predictor
from mnist_core.registry import open_model
from mnist_core.report import evaluation_files
from mnist_core.storage import open_storage

Part = tuple[Counts, Predictions]


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Carry the command out.

    Args:
        config: Its configuration.

    Returns:
        A JSON object: ``model``, ``version``, ``dataset`` (``name``, ``split``, ``sha256``), all of
        ``Evaluation.to_dict``, ``rejected`` (``count`` and ``fraction`` of the images, which the metrics hold too),
        ``seconds`` from images to predictions (of Ray tasks with the start of their processes), ``images_per_second``
        and ``output`` (a folder, or None).

    Raises:
        ConfigError: The output folder is in use.
        ArtifactError: The model is broken.
        ModelNotFoundError: There is no such model.
        DatasetError: The dataset is missing or wrong.
        ResourcesError: Ray cannot be reached, or has no machine with as many CPUs as ``--threads``.
        StorageError: The storage cannot be read, or the output cannot be written.
    """
    if config.output:
        _refuse_used(config.output)
    artifact = open_model(open_storage(config.storage), config.model)
    with download_progress() as progress:
        dataset = load_dataset(config.dataset, config.data_dir, progress=progress)
    split, data = _choose_split(dataset, config.split)
    model = {name: content for name, content in artifact.files.items() if name == MODEL_FILES["float32"]}
    evaluate = _evaluate_on_ray if config.workers > 1 else _evaluate_here
    parts, seconds = evaluate(model, data, config)
    evaluation = sum((counts for counts, _ in parts), start=Counts()).evaluate()
    probabilities = np.concatenate([predictions.probabilities for _, predictions in parts])
    num_rejected = sum(int(predictions.rejected.sum()) for _, predictions in parts)
    facts = {"name": dataset.name, "split": split, "sha256": dataset.sha256}
    if config.output:
        files = _make_files(config, artifact.manifest, facts, data, evaluation, probabilities)
        _write_folder(config.output, files)
    return {
        "model": artifact.manifest.name,
        "version": artifact.manifest.version,
        "dataset": facts,
        **evaluation.to_dict(),
        "rejected": {"count": num_rejected, "fraction": num_rejected / evaluation.count},
        "seconds": round(seconds, 3),
        "images_per_second": round(evaluation.count / seconds),
        "output": str(config.output) if config.output else None,
    }


def render(result: dict[str, Any]) -> str:
    """Put a result of ``run`` in words for a terminal."""
    dataset = result["dataset"]
    lines = [
        f"{result['model']}/{result['version']} on {dataset['name']} ({dataset['split']})",
        f"accuracy {result['accuracy']:.2%} ({result['correct']:,} of {result['count']:,} right), "
        f"loss {result['loss']:.4f}, calibration error {result['ece']:.2%}",
        f"rejected as no digit: {result['rejected']['count']:,} ({result['rejected']['fraction']:.2%})",
        "",
        "digit  images  precision   recall       F1   most often taken for",
    ]
    lines += [
        f"{row['digit']:>5}  {row['support']:>6,}  {row['precision']:>9.2%}  {row['recall']:>7.2%}  {row['f1']:>7.2%}"
        f"   {_describe_mistakes(row['digit'], result['confusion'][row['digit']])}".rstrip()
        for row in result["per_class"]
    ]
    lines += ["", f"{result['seconds']:.2f} s, {result['images_per_second']:,} images/s"]
    if result["output"]:
        lines.append(f"report: {result['output']}/report.html")
    return "\n".join(lines)


def evaluate_shard(
    model: Mapping[str, bytes], images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], threads: int | None
) -> Part:
    """Evaluate a share of the images; runs as a Ray task.

    Args:
        model: The files of the model.
        images: uint8 (N, 28, 28); N may be 0.
        labels: uint8 (N,).
        threads: Threads of the engine; None takes all cores.

    Returns:
        The counts, and the predictions.
    """
    predictions = load_predictor(model, device="cpu", threads=threads).predict(images)
    return count_predictions(predictions.probabilities, labels), predictions


def _choose_split(dataset: Dataset, split: str) -> tuple[str, Split]:
    """The split asked for and its name; a dataset that has but one is used whole."""
    train, test = dataset.train, dataset.test
    if split == "all" or not len(test):
        images, labels = np.concatenate([train.images, test.images]), np.concatenate([train.labels, test.labels])
        return "all", Split(images, labels)
    return split, train if split == "train" else test


def _evaluate_here(model: Mapping[str, bytes], data: Split, config: EvaluateConfig) -> tuple[list[Part], float]:
    with native_stderr(shown=config.verbose):
        started = time.perf_counter()
        part = evaluate_shard(model, data.images, data.labels, config.threads)
        return [part], time.perf_counter() - started


def _evaluate_on_ray(model: Mapping[str, bytes], data: Split, config: EvaluateConfig) -> tuple[list[Part], float]:
    threads = config.threads or 1
    shards = zip(np.array_split(data.images, config.workers), np.array_split(data.labels, config.workers), strict=True)
    with ray_session(verbose=config.verbose) as session:
        ray = session.ray
        widest = max((node.get("CPU", 0) for node in node_sizes(ray)), default=0)
        if threads > widest:
            raise ResourcesError(f"--threads {threads}: the largest machine of the cluster has {widest:g} CPUs")
        if not can_reserve(ray, [{"CPU": threads}]):
            free = ray.available_resources().get("CPU", 0)
            raise ResourcesError(
                f"asked for a task of {threads} CPUs; the cluster has {free:g} that are free: "
                "wait until others are done, or leave --workers out to evaluate here"
            )
        started = time.perf_counter()
        task, reference = ray.remote(evaluate_shard).options(num_cpus=threads), ray.put(model)
        try:
            parts = ray.get([task.remote(reference, images, labels, threads) for images, labels in shards])
        except ray.exceptions.RayTaskError as err:
            if isinstance(err.cause, MnistError):
                raise err.cause from err  # one line, where Ray's own text holds a traceback
            raise
        except ray.exceptions.RayError as err:  # its process or its machine died
            raise ResourcesError(f"a task was lost: {' '.join(str(err).split())[:500]}; try again") from err
        return parts, time.perf_counter() - started


def _make_files(
    config: EvaluateConfig,
    manifest: Manifest,
    facts: Mapping[str, Any],
    data: Split,
    evaluation: Evaluation,
    probabilities: npt.NDArray[np.float32],
) -> dict[str, bytes]:
    model = manifest.reference
    tables = {
        "Model": {"name": model, "published": manifest.created_at, "run": manifest.run_id},
        "Evaluated on": facts,
        "Trained on": manifest.dataset,
        "Training configuration": manifest.config,
        "Libraries at training": manifest.libraries,
    }
    return evaluation_files(
        evaluation,
        data.images,
        data.labels,
        probabilities,
        model=model,
        dataset=facts,
        tables=tables,
        command=_command(config),
    )


def _command(config: EvaluateConfig) -> str:
    words = ["mnist", "evaluate", config.model, "--storage", config.storage, "--dataset", config.dataset]
    words += ["--split", config.split] + (["--data-dir", str(config.data_dir)] if config.data_dir else [])
    return shlex.join(words)


def _describe_mistakes(digit: int, row: list[int]) -> str:
    mistakes = Counter({guess: count for guess, count in enumerate(row) if count and guess != digit})
    return ", ".join(f"{guess} ({count})" for guess, count in mistakes.most_common(3))


def _refuse_used(folder: Path) -> None:
    try:
        free = not any(folder.iterdir()) if folder.is_dir() else not folder.exists()
    except OSError as err:
        raise StorageError(f"--output {folder}: cannot be looked at ({err.strerror}); name another folder") from err
    if not free:
        raise ConfigError(f"--output {folder}: exists and is not an empty folder; name a new one")


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files aside and then move them into place: a new folder in one step, the report last into an old one.

    An old one may be a mount, which no other folder can take the place of.
    """
    _refuse_used(folder)  # again: somebody may have taken it meanwhile
    old = folder.is_dir()
    aside = (folder if old else folder.parent) / f".{folder.name}.{os.getpid()}.partial"
    try:
        for name, content in files.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (aside / name).write_bytes(content)
        if old:
            for part in sorted(aside.iterdir(), key=lambda part: part.name == "report.html"):
                part.rename(folder / part.name)
        else:
            aside.rename(folder)
    except OSError as err:
        raise StorageError(f"--output {folder}: cannot be written ({err.strerror}); name another folder") from err
    finally:
        shutil.rmtree(aside, ignore_errors=True)
