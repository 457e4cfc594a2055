"""What runs on every training worker: connect, resume, train, and on the first worker also record and publish.

All workers hold the same weights after every step, so the first one alone writes checkpoints, says how the run is
doing and publishes. Nothing here decides a result: that is ``mnist_core``'s part.
"""

from __future__ import annotations

import ctypes
import logging
import resource
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import ray
from ray import train as ray_train
from ray.train.collective import broadcast_from_rank_zero

from jobs.tensorflow_trainer import load_keras
from mnist_core.batches import Share
from mnist_core.checkpoints import Checkpoint, checkpoint_writer, newest_checkpoint, read_checkpoint
from mnist_core.config import TrainConfig
from mnist_core.datasets import Split
from mnist_core.errors import DivergedError
from mnist_core.runs import Run, StatusBoard
from mnist_core.storage import open_storage
from mnist_core.training import Progress, train

if TYPE_CHECKING:
    from mnist_core.trainer import Trainer

logger = logging.getLogger(__name__)

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Names of settings in glibc's malloc.h."""

LARGEST_MMAP_THRESHOLD: Final = 32 << 20
"""Bytes; glibc takes no more on 64 bits, see mallopt(3)."""


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
    keep_freed_memory()
    load_keras()
    import tensorflow as tf

    from mnist_core.trainer import Trainer

    if not config.verbose:
        tf.get_logger().setLevel(logging.ERROR)
    # One thread an operation, so that its last bits do not depend on their number; the micro-batches run side by side.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    wire = tf.distribute.experimental.CommunicationImplementation.RING
    if config.gpu:
        wire = tf.distribute.experimental.CommunicationImplementation.NCCL
        for device in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)
        tf.config.experimental.enable_op_determinism()
    options = tf.distribute.experimental.CommunicationOptions(implementation=wire)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    return Trainer(config, strategy, share)


def keep_freed_memory() -> None:
    """Have the C library keep what a training step frees for the next step, which takes as much again.

    Else glibc gives every tensor of a megabyte back to the system, which clears each page of it anew: 2,000 page faults
    and 6 of the 29 ms of a step of 64 images.
    """
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


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
                if self._config.select == "last" or progress.best is report:
                    self._selected = {"selected": self._trainer.result_weights()}
                self._record(progress)
                ray_train.report(asdict(report))
        finally:
            if self._writer:
                self._writer.close()
        return Checkpoint(progress, self._selected)

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
