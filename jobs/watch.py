"""Shows how a run is doing: a live bar on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from mnist_core.batches import steps_per_epoch
from mnist_core.config import TrainConfig
from mnist_core.errors import RunInterruptedError, StorageError
from mnist_core.runs import Run

POLL_S = 0.5
LINE_EVERY_S = 15.0
"""Seconds between plain lines within an epoch."""


class Watcher:
    """Follows one run by the status its first worker writes.

    Args:
        run: The run.
        config: Its configuration.
        facts: What is recorded of the dataset.
        started: When the command started: a status of an earlier command is not ours.
    """

    def __init__(self, run: Run, config: TrainConfig, facts: dict[str, Any], started: float) -> None:
        self._run = run
        self._config = config
        self._images = facts["train"]
        self._steps = steps_per_epoch(facts["train"], config.batch_size)
        self._started = started
        self._attempt = ""
        self._num_workers = 0
        self._num_notes = 0
        self._num_reports = 0
        self._spoken_at = time.monotonic()
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"), console=self._console,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=self._steps * config.epochs, figures="")

    def follow(self, done: Future[None]) -> None:
        """Show the run until it is done.

        Args:
            done: Ends with the run.

        Raises:
            RunInterruptedError: Ctrl-C.
            MnistError: Why the run failed.
        """
        self._say(f"run {self._run.name}: {self._images:,} training images, {self._config.epochs} epochs")
        try:
            with self._bar:
                while not _wait(done):
                    self._look()
                self._look()
        except KeyboardInterrupt as err:
            again = f"--run {self._run.name} --storage {self._config.storage} and the same options"
            raise RunInterruptedError(f"interrupted; go on with: mnist train {again}") from err
        done.result()

    def _look(self) -> None:
        try:
            status = self._run.status()
        except StorageError as err:
            self._say(f"warning: {err}")
            return
        if status is None or status["marks"].get("command") != self._started:
            return
        if status["attempt"] != self._attempt:
            if self._attempt and status["world_size"] > self._num_workers:
                self._say(f"goes on with {status['world_size']} workers instead of {self._num_workers}")
            elif self._attempt:
                self._say(f"warning: workers were lost; goes on with {status['world_size']}")
            self._attempt, self._num_workers, self._num_notes = status["attempt"], status["world_size"], 0
        for note in status["notes"][self._num_notes :]:
            self._say(note)
        self._num_notes = len(status["notes"])
        if "progress" in status:
            self._show(status["phase"], status["progress"])

    def _show(self, phase: str, progress: dict[str, Any]) -> None:
        reports = progress["history"]
        self._num_reports = min(self._num_reports, len(reports))  # a lost epoch is done again
        for report in reports[self._num_reports :]:
            self._say(
                f"epoch {report['epoch']:>{len(str(self._config.epochs))}}/{self._config.epochs}  "
                f"loss {report['train_loss']:.4f}  accuracy {report['train_accuracy']:.2%}  "
                f"validation {report['validation_loss']:.4f} {report['validation_accuracy']:.2%}  "
                f"{self._images / report['seconds']:,.0f} img/s  {report['seconds']:.0f} s"
            )
        self._num_reports = len(reports)
        steps = progress["epoch"] * self._steps + progress["step"]
        figures = self._figures(progress, steps)
        self._bar.update(self._task, completed=steps, description=self._where(phase, progress), figures=figures)
        if progress["step"] and time.monotonic() - self._spoken_at > LINE_EVERY_S and self._bar.disable:
            self._say(f"{self._where(phase, progress)}  {figures}")

    def _where(self, phase: str, progress: dict[str, Any]) -> str:
        if phase != "training" or progress["epoch"] >= self._config.epochs:
            return phase
        return f"epoch {progress['epoch'] + 1}/{self._config.epochs} step {progress['step']}/{self._steps}"

    def _figures(self, progress: dict[str, Any], steps: int) -> str:
        seconds = progress["seconds"] + sum(report["seconds"] for report in progress["history"])
        if not steps or not seconds:
            return ""
        left = seconds / steps * (self._steps * self._config.epochs - steps)
        images = min(progress["step"] * self._config.batch_size, self._images)
        loss = f"loss {progress['loss_sum'] / images:.4f}  " if images else ""
        rate = (progress["epoch"] * self._images + images) / seconds
        return f"{loss}{rate:,.0f} img/s  {int(left) // 60}:{int(left) % 60:02d} left"

    def _say(self, text: str) -> None:
        self._spoken_at = time.monotonic()
        self._console.print(text, markup=False)


def _wait(done: Future[None]) -> bool:
    try:
        done.exception(timeout=POLL_S)
    except StillRunning:
        return False
    return True
