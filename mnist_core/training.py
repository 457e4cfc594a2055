"""The training loop: epochs, validation, what is kept; it yields one report per epoch and can start anywhere.

All that the rest of a run depends on is a ``Progress`` and the trainer's state. The loop knows nothing of Ray, of
checkpoints or of terminals: whoever drives it passes ``on_call`` and is told after every TensorFlow call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mnist_core.batches import epoch_steps, steps_per_epoch
from mnist_core.config import TrainConfig
from mnist_core.datasets import Progress as DownloadProgress
from mnist_core.datasets import Split, load_dataset
from mnist_core.errors import DatasetError, DivergedError
from mnist_core.sampling import Purpose, permutation
from mnist_core.schedule import learning_rates

if TYPE_CHECKING:  # so that a driver, which only watches, does not load TensorFlow
    from mnist_core.trainer import Trainer

TEST_FRACTION: Final = 1 / 6
"""Share held out as a test set from a dataset that has one split only."""


@dataclass(frozen=True)
class EpochReport:
    """What one epoch came to: ``epoch`` counts from 1, losses are means over the samples, ``seconds`` of training.

    In training the members of an ensemble answer each for itself, in validation together.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch:>2}  loss {self.train_loss:.4f}  accuracy {self.train_accuracy:.2%}  "
            f"validation {self.validation_loss:.4f} {self.validation_accuracy:.2%}  {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        epoch: Epoch in progress, from 0.
        step: Steps of that epoch that are done.
        loss_sum: Loss summed over the samples of those steps.
        correct: Right answers among them, of all members of an ensemble together.
        seconds: Seconds spent on those steps, over all attempts.
        history: Reports of the finished epochs.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    history: tuple[EpochReport, ...] = field(default=())

    @property
    def best(self) -> EpochReport:
        """The finished epoch with the highest validation accuracy; the first of them if there are several."""
        return max(self.history, key=lambda report: report.validation_accuracy)

    def selected(self, select: str) -> EpochReport:
        """The finished epoch whose weights are published, if no other follows: the ``best`` one, or the ``last``."""
        return self.best if select == "best" else self.history[-1]

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """Undo ``to_dict``."""
        return cls(**{**values, "history": tuple(EpochReport(**report) for report in values["history"])})


def load_training_data(
    config: TrainConfig, download_progress: DownloadProgress | None = None
) -> tuple[dict[str, Split], dict[str, Any]]:
    """Load what a configuration trains on, wherever it does so.

    Args:
        config: The configuration.
        download_progress: Told how a download is doing, if there has to be one.

    Returns:
        The splits ``train``, ``validation`` and ``test``; and what is to be recorded of them: ``name``, ``source``,
        ``sha256`` and the number of images in each split.

    Raises:
        DatasetError: The dataset is missing, wrong or too small.
    """
    dataset = load_dataset(config.dataset, config.data_dir, progress=download_progress)
    training, test = dataset.train, dataset.test
    if not len(test):
        training, test = hold_out(training, TEST_FRACTION, config.seed, draw=1)
    training, validation = hold_out(training, config.validation_fraction, config.seed)
    if not len(training):
        raise DatasetError(
            f"{dataset.source}: {len(dataset.train)} images are too few to train on; expected at least 3"
        )
    splits = {"train": training, "validation": validation, "test": test}
    counts = {name: len(split) for name, split in splits.items()}
    return splits, {"name": dataset.name, "source": dataset.source, "sha256": dataset.sha256, **counts}


def hold_out(data: Split, fraction: float, seed: int, draw: int = 0) -> tuple[Split, Split]:
    """Hold out a random share of a split, at least one sample and never all of several: (the rest, the share).

    Args:
        data: The split.
        fraction: Size of the share.
        seed: Decides what is held out.
        draw: Makes several draws of one seed independent.
    """
    order = permutation(seed, Purpose.SPLIT, draw, len(data))
    num_held = max(1, min(round(len(data) * fraction), len(data) - 1))
    rest, held = np.sort(order[num_held:]), np.sort(order[:num_held])
    return Split(data.images[rest], data.labels[rest]), Split(data.images[held], data.labels[held])


def train(
    trainer: Trainer,
    training: Split,
    validation: Split,
    progress: Progress,
    on_call: Callable[[Progress], None],
) -> Iterator[Progress]:
    """Train from ``progress`` to the last epoch of the trainer's configuration.

    Args:
        trainer: Holds weights and optimizer, in the state that belongs to ``progress``.
        training: The training split; the same on every worker, in the same order.
        validation: What is evaluated after every epoch.
        progress: Where to start.
        on_call: Told after every call that was not an epoch's last; the trainer's state belongs to what it is told.

    Yields:
        The progress after each finished epoch, the epoch's report last in its history.

    Raises:
        DivergedError: The loss of a step, or of the validation, is not a finite number. Nobody was told of that state.
    """
    config = trainer.config
    per_epoch = steps_per_epoch(len(training), config.batch_size)
    while progress.epoch < config.epochs:
        for reached in _train_epoch(trainer, training, progress, per_epoch):
            progress = reached
            if progress.step < per_epoch:
                on_call(progress)
        progress = _finish_epoch(trainer, len(training), validation, progress, per_epoch)
        yield progress


def _train_epoch(trainer: Trainer, training: Split, progress: Progress, per_epoch: int) -> Iterator[Progress]:
    config = trainer.config
    calls = epoch_steps(training, config, trainer.share, epoch=progress.epoch, first_step=progress.step)
    started = time.perf_counter()
    for steps in calls:
        first_step = progress.epoch * per_epoch + progress.step
        rates = _rates(config, first_step, len(steps.sizes), per_epoch)
        metrics = trainer.run(steps, rates, first_step)
        _refuse_not_finite(metrics[:, 0], progress)
        progress = replace(
            progress,
            step=progress.step + len(metrics),
            # Added up one step after the other, so that it does not matter how steps are grouped into calls.
            loss_sum=_add_in_order(progress.loss_sum, metrics[:, 0].astype(np.float64) * steps.sizes),
            correct=progress.correct + round(float(metrics[:, 1].astype(np.float64).sum())),
            seconds=progress.seconds + time.perf_counter() - started,
        )
        yield progress
        started = time.perf_counter()


def _finish_epoch(
    trainer: Trainer, num_samples: int, validation: Split, progress: Progress, per_epoch: int
) -> Progress:
    correct, loss = trainer.evaluate(validation)
    if not math.isfinite(loss):
        raise DivergedError(
            f"the validation loss is {loss} after epoch {progress.epoch + 1}; expected a finite number: "
            "lower --learning-rate"
        )
    last_step = (progress.epoch + 1) * per_epoch - 1
    report = EpochReport(
        epoch=progress.epoch + 1,
        train_loss=progress.loss_sum / num_samples,
        train_accuracy=progress.correct / (num_samples * trainer.config.ensemble),
        validation_loss=loss / len(validation),
        validation_accuracy=correct / len(validation),
        learning_rate=float(_rates(trainer.config, last_step, 1, per_epoch)[0]),
        seconds=progress.seconds,
    )
    return Progress(epoch=progress.epoch + 1, history=(*progress.history, report))


def _rates(config: TrainConfig, first_step: int, count: int, per_epoch: int) -> npt.NDArray[np.float32]:
    steps = np.arange(first_step, first_step + count)
    return learning_rates(config.schedule, config.learning_rate, steps, config.epochs * per_epoch)


def _add_in_order(total: float, values: npt.NDArray[np.float64]) -> float:
    for value in values:
        total += float(value)
    return total


def _refuse_not_finite(losses: npt.NDArray[np.float32], progress: Progress) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise DivergedError(
            f"the loss is {losses[bad[0]]} at epoch {progress.epoch + 1}, step {progress.step + int(bad[0]) + 1}; "
            "expected a finite number: lower --learning-rate"
        )
