"""What runs on every training worker: connect, resume, train, and on the first worker also record and publish.

All workers hold the same weights after every step, so the first one alone writes checkpoints, says how the run is
doing and publishes. Nothing here decides a result: that is ``mnist_core``'s part.
"""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import ray
from ray import train as ray_train
from ray.train.collective import broadcast_from_rank_zero

from jobs.tensorflow_trainer import load_keras, wait_for_first_worker
from mnist_core.batches import Share
from mnist_core.checkpoints import Checkpoint, checkpoint_writer, newest_checkpoint, read_checkpoint
from mnist_core.config import TrainConfig
from mnist_core.datasets import Split
from mnist_core.errors import DivergedError, MnistError
from mnist_core.runs import Run, StatusBoard
from mnist_core.storage import open_storage
from mnist_core.tensorflow_setup import keep_to_own_cores, prepare_tensorflow
from mnist_core.training import Progress, train

if TYPE_CHECKING:
    from mnist_core.trainer import Trainer


def train_worker(payload: dict[str, Any]) -> None:
    """Do one worker's part of a run.

    Args:
        payload: ``config`` (of a TrainConfig), ``run`` (name), ``run_id``, ``threads``, ``dataset`` (what to say of
            it) and ``splits`` (an object reference to the training, validation and test splits).
    """
    entered = time.time()
    config = TrainConfig(**payload["config"])
    context = ray_train.get_context()
    share = Share(context.get_world_rank(), context.get_world_size())
    run = Run(open_storage(config.storage), payload["run"])
    board = StatusBoard(run, share.world_size, payload["marks"]) if share.rank == 0 else None
    if board:
        board.mark("worker", entered)
    if not config.gpu:  # else it is not the cores that all wait for
        keep_to_own_cores(context.get_local_rank(), context.get_local_world_size(), payload["threads"])
    trainer = connect(config, share, payload["threads"])
    if board:
        board.mark("tensorflow", time.time())
    splits: dict[str, Split] = ray.get(payload["splits"])
    checkpoint = resume(run, trainer, share)
    try:
        selected = WorkerLoop(config, run, trainer, board).train(checkpoint, splits["train"], splits["validation"])
    except DivergedError as err:
        # Every worker sees the same loss. Not raised: Ray would start again from the last checkpoint, in vain.
        if board:
            board.fail(err)
        return
    if board:
        from jobs.publish import publish_run

        publish_run(payload, config, run, trainer, selected, splits, board)
        board.close()


def connect(config: TrainConfig, share: Share, threads: int) -> Trainer:
    """Load TensorFlow, join the other workers, and build network and optimizer."""
    load_keras()
    prepare_tensorflow(config, threads)
    import tensorflow as tf

    from mnist_core.trainer import Trainer

    wire = tf.distribute.experimental.CommunicationImplementation.RING
    if config.gpu:
        wire = tf.distribute.experimental.CommunicationImplementation.NCCL
    options = tf.distribute.experimental.CommunicationOptions(implementation=wire)
    wait_for_first_worker()
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    return Trainer(config, strategy, share)


def resume(run: Run, trainer: Trainer, share: Share) -> Checkpoint:
    """Take over the newest whole checkpoint, the same one on every worker; a new run's first state if there is none."""
    found = newest_checkpoint(run.storage, run.checkpoints) if share.rank == 0 else None
    key = broadcast_from_rank_zero(found[0] if found else None)
    if key is None:
        return Checkpoint(Progress(), trainer.state())
    checkpoint = found[1] if found else read_checkpoint(run.storage, key)
    trainer.load_state(checkpoint.arrays)
    return checkpoint


class WorkerLoop:
    """The training loop with what the first worker does beside it.

    Args:
        config: The run's configuration.
        run: Where checkpoints go.
        trainer: In the state to start from.
        board: Where the first worker says how the run is doing; None on all others.
    """

    def __init__(self, config: TrainConfig, run: Run, trainer: Trainer, board: StatusBoard | None) -> None:
        self._config = config
        self._trainer = trainer
        self._board = board
        self._writer = checkpoint_writer(run.storage, run.checkpoints, config.keep_checkpoints) if board else None
        self._selected: dict[str, Any] = {}
        self._saved_at = time.monotonic()

    def train(self, start: Checkpoint, training: Split, validation: Split) -> Checkpoint:
        """Train to the end; returns the last checkpoint, ``selected`` in its arrays: the weights to publish."""
        if "selected" in start.arrays:
            self._selected = {"selected": start.arrays["selected"]}
        progress = start.progress
        if self._board:
            self._board.start(progress)
        try:
            for reached in train(self._trainer, training, validation, progress, self._record):
                progress = reached
                report = progress.history[-1]
                if progress.selected(self._config.select) is report:
                    self._selected = {"selected": self._trainer.result_weights()}
                self._record(progress)
                ray_train.report(asdict(report))
        except BaseException:
            with suppress(MnistError):  # what went wrong first is what is to be told
                self._close()
            raise
        self._close()
        return Checkpoint(progress, self._selected)

    def _close(self) -> None:
        if self._writer:
            self._writer.close()

    def _record(self, progress: Progress) -> None:
        """Say where the run stands, and save it at the end of an epoch and when the last time is long enough ago."""
        if not self._board or not self._writer:
            return
        self._board.update(progress)
        if progress.step == 0 or time.monotonic() - self._saved_at >= self._config.checkpoint_every_s:
            self._writer.submit(Checkpoint(progress, {**self._trainer.state(), **self._selected}))
            self._saved_at = time.monotonic()


def peak_memory_bytes() -> int:
    """The most memory this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
