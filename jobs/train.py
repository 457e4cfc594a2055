"""``mnist train``: load the dataset, start the workers, watch them, and say what the run came to.

The driver loads neither TensorFlow nor Keras. It may be killed at any moment: the same ``--run`` goes on from the last
checkpoint on the storage.
"""

from __future__ import annotations

import importlib
import json
import logging
import secrets
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

from jobs.cluster import WorkerShape, find_places, ray_session
from jobs.data import tell_downloads
from jobs.watch import Watcher
from mnist_core.artifact import load_artifact
from mnist_core.cluster_address import choose_address
from mnist_core.config import TrainConfig
from mnist_core.errors import MnistError, RunInterruptedError, TrainingFailedError
from mnist_core.runs import Run, refuse_unfinished
from mnist_core.storage import open_storage
from mnist_core.tensorflow_setup import training_environment
from mnist_core.training import load_training_data

if TYPE_CHECKING:
    from jobs.tensorflow_trainer import KerasTrainer
    from mnist_core.local import Trained

Value = TypeVar("Value")

GROUP_START_S = 60
"""For so long Ray Train waits for a group of workers to find room before it tries anew."""


def run(config: TrainConfig) -> dict[str, Any]:
    """Train, evaluate and publish; go on with a run that exists.

    Args:
        config: What to train, and how.

    Returns:
        The run's result, see ``jobs.publish``; ``already_finished`` tells that there was nothing left to do.

    Raises:
        DatasetError: The dataset is missing or wrong.
        RunConflictError: The run exists with another configuration.
        ResourcesError: The cluster is too small.
        DivergedError: The loss is not finite.
        RunInterruptedError: Ctrl-C; the run can be resumed.
        TrainingFailedError: Workers failed too often.
        StorageError: The storage cannot be read or written.
    """
    marks = {"command": time.time()}
    this_run = Run(open_storage(config.storage), config.run or _new_name(config))
    finished = this_run.result()
    choose_address()  # before a thread imports Ray
    # Both while Ray starts. A download is told in lines: a thread that is left alone would leave its bar behind.
    loading = _in_background(lambda: load_training_data(config, tell_downloads(Console(stderr=True))))
    _in_background(lambda: importlib.import_module("jobs.train_worker"))
    if finished is not None or this_run.exists():
        this_run.claim(_identity(config, loading.result()[1]))  # refuses another configuration, before Ray starts
    if finished is not None:
        return {**finished, "already_finished": True}
    with ray_session(verbose=config.verbose) as session:
        marks["ray"] = time.time()
        splits, facts = loading.result()
        shape = find_places(session.ray, config)
        payload = {
            "config": config.model_dump(mode="json"),
            "run": this_run.name,
            "run_id": this_run.claim(_identity(config, facts)),
            "threads": shape.threads,
            "dataset": facts,
            "splits": session.ray.put(splits),
            "marks": marks,
        }
        # Ray is to keep nothing: our checkpoints survive a driver that is killed while it writes. It wants a folder.
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            trainer = _trainer(payload, config, shape, folder, alone=session.alone)
            watcher = Watcher(this_run, config, facts, marks["command"])
            try:
                watcher.follow(_in_background(lambda: _fit(trainer, this_run)))
            except RunInterruptedError:
                if not session.alone:  # else Ray ends, and all with it
                    trainer.stop()
                raise
    result = this_run.result()
    if result is None:
        refuse_unfinished(this_run)
        raise TrainingFailedError(f"run {this_run.name} ended without a result; go on with --run {this_run.name}")
    return {**result, "already_finished": False}


def train_on_ray(config: TrainConfig) -> Trained:
    """Do what ``run`` does, and take what it published into memory.

    Args:
        config: As for ``run``.

    Returns:
        What ``mnist_core.local.train_here`` gives for this configuration, with the same weights bit for bit.

    Raises:
        MnistError: As ``run`` does; and ArtifactError if what it published is broken.
    """
    from mnist_core.local import Trained

    # In a notebook, what Ray imports asks for ipywidgets, in two ways; nothing here would use it.
    logging.getLogger("ray.widgets").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        result = run(config)
    files = load_artifact(open_storage(config.storage), result["model"], str(result["version"])).files
    return Trained(
        files={name: content for name, content in files.items() if name.startswith("model.")},
        history=json.loads(files["evaluation.json"])["history"],
        epoch=result["published_epoch"],
    )


def render(result: dict[str, Any]) -> str:
    """Put a result of ``run`` in words for a terminal."""
    test, validation, dataset = result["test"], result["validation"], result["dataset"]
    before = result["already_finished"]
    done = "was finished before, nothing done" if before else "is finished"
    return "\n".join(
        [
            f"run {result['run']} {done}: {result['model']}/{result['version']}"
            + (f" {'was made' if before else 'is'} the current model" if result["promoted"] else " is not promoted"),
            f"test        accuracy {test['accuracy']:.2%}, loss {test['loss']:.4f}, "
            f"{test['count']:,} images of {dataset['name']}",
            f"validation  accuracy {validation['accuracy']:.2%}, loss {validation['loss']:.4f}, "
            f"epoch {result['published_epoch']} of {result['epochs']} (best: {result['best_epoch']})",
            f"trained in  {result['train_seconds']:,.0f} s by {result['workers']} workers, "
            f"{result['images_per_second']:,.0f} img/s, first step after {result['startup_seconds']:.1f} s",
            f"report      {result['artifact']}/report.html",
        ]
    )


def _new_name(config: TrainConfig) -> str:
    return f"{config.recipe}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _identity(config: TrainConfig, facts: dict[str, Any]) -> dict[str, Any]:
    """All that decides the result: the dataset by its content, wherever it was found."""
    return {**config.identity(), "dataset": facts["sha256"]}


def _in_background(work: Callable[[], Value]) -> Future[Value]:
    """Do it in a thread that nobody waits for at the end: the main thread watches, and goes when it hears Ctrl-C."""
    done: Future[Value] = Future()

    def run_it() -> None:
        try:
            done.set_result(work())
        except BaseException as err:  # whatever it is, the thread that asks raises it
            done.set_exception(err)

    threading.Thread(target=run_it, daemon=True).start()
    return done


def _fit(trainer: KerasTrainer, this_run: Run) -> None:
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError as RayTrainingFailedError

    try:
        trainer.fit()
    except RayTrainingFailedError as err:
        if (reason := _explain(err, this_run)) is err:
            raise
        raise reason from err
    except RayError as err:  # the process that looks after the workers died
        raise TrainingFailedError(
            f"Ray lost the training: {_one_line(err)}; the checkpoints stay: go on with --run {this_run.name}"
        ) from err


def _trainer(
    payload: dict[str, Any], config: TrainConfig, shape: WorkerShape, folder: str, *, alone: bool
) -> KerasTrainer:
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from jobs.tensorflow_trainer import KerasTrainer
    from jobs.train_worker import train_worker

    workers = (config.min_workers, config.max_workers) if config.elastic else config.max_workers
    resources = {"CPU": shape.cpus, **({"GPU": shape.gpus} if shape.gpus else {})}
    return KerasTrainer(
        train_worker,
        payload,
        environment=training_environment(verbose=config.verbose),
        alone=alone,
        scaling=ScalingConfig(num_workers=workers, use_gpu=config.gpu, resources_per_worker=resources),
        run=RunConfig(
            name=payload["run"],
            storage_path=folder,
            failure_config=FailureConfig(config.max_failures, controller_failure_limit=_patience(config)),
        ),
    )


def _patience(config: TrainConfig) -> int:
    """How often a group of workers may wait a minute in vain: where a node is lost, Ray first counts on it still."""
    return config.max_failures + int(config.resource_wait_s / GROUP_START_S)


def _explain(err: Exception, this_run: Run) -> Exception:
    """Find the reason in what Ray raises.

    Returns:
        An error of ours as it is; else, where a worker met with a bug, Ray's own error, which holds its traceback;
        else the first worker's in one line.
    """
    failures = getattr(err, "worker_failures", {})
    causes = {rank: getattr(failure, "_base_exc", failure) for rank, failure in sorted(failures.items())}
    for cause in causes.values():
        if isinstance(cause, MnistError):
            return cause
    if any(_is_bug(cause) for cause in causes.values()):
        return err
    if causes:
        rank, cause = next(iter(causes.items()))
        reason = f"the workers failed more often than --max-failures allows, last worker {rank}: {_one_line(cause)}"
    else:
        reason = f"training on Ray failed: {_one_line(err)}"
    return TrainingFailedError(f"{reason}; the checkpoints stay: go on with --run {this_run.name}")


def _is_bug(cause: BaseException) -> bool:
    """Whether it is neither Ray's news of a lost process or machine, nor TensorFlow's, nor the system's."""
    from ray.exceptions import RayError

    outside = isinstance(cause, (RayError, OSError, MemoryError))
    return not outside and not type(cause).__module__.startswith(("tensorflow", "ray"))


def _one_line(err: BaseException) -> str:
    return " ".join(f"{type(err).__name__}: {err}".split())[:500]


if __name__ == "__main__":  # for `ray job submit -- python -m jobs.train ...`
    from jobs.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
