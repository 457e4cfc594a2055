"""Shows how a scoring job is doing, on stderr: a live bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from mnist_core.inputs.plan import Unit
from mnist_core.scoring import Tally

LINE_EVERY_S: Final = 5.0


class ScoreProgress:
    """A job's progress; a context manager. Units may be counted from several threads.

    Args:
        units: All work of the job.
        done: Tallies of what an earlier command has done.
        skipped: Files that were left out, by reason.
    """

    def __init__(self, units: Sequence[Unit], done: Iterable[Tally], skipped: dict[str, int]) -> None:
        self._earlier = list(done)
        self._num_units = len(units)
        self._units_done = len(self._earlier)
        self._items = sum(tally.items for tally in self._earlier)
        self._errors = sum(tally.num_errors for tally in self._earlier)
        counts = [unit.num_items for unit in units]
        self._total = None if None in counts else sum(filter(None, counts))
        self._skipped = skipped
        self._new_items = 0
        self._first_at: float | None = None
        self._lock = threading.Lock()
        self._counted: set[int] = set()
        self._spoken_at = time.monotonic()
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
        self._bar = Progress(*columns, console=self._console, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task("scoring", total=len(units), completed=self._units_done, figures="")

    def __enter__(self) -> Self:
        """Say what there is to do."""
        images = f"{self._total:,} images" if self._total is not None else "images"
        self._say(f"scoring {images} in {_count_units(self._num_units)}")
        if self._units_done:
            self._say(f"resumed: {self._items:,} images in {_count_units(self._units_done)}: done already")
        if self._skipped:
            left_out = ", ".join(f"{reason} {count:,}" for reason, count in self._skipped.items())
            self._say(f"skipped {sum(self._skipped.values()):,} files: {left_out}")
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the terminal back."""
        self._bar.stop()

    def advance(self, index: int, tally: Tally) -> None:
        """Count a unit that is done; one that was counted before counts no more."""
        with self._lock:
            if index not in self._counted:
                self._counted.add(index)
                self._advance(tally, time.monotonic())

    def _advance(self, tally: Tally, now: float) -> None:
        if self._first_at is None:
            self._first_at = now  # what came before was start-up; the rate is that of the work
        else:
            self._new_items += tally.items
        self._units_done += 1
        self._items += tally.items
        self._errors += tally.num_errors
        figures = self._figures(now - self._first_at)
        self._bar.update(self._task, completed=self._units_done, figures=figures)
        if self._bar.disable and now - self._spoken_at > LINE_EVERY_S:
            self._say(figures)

    def _figures(self, seconds: float) -> str:
        of_total = f" of {self._total:,}" if self._total is not None else ""
        words = [f"{self._items:,}{of_total} images"]
        if self._new_items and seconds > 0:
            rate = self._new_items / seconds
            words.append(f"{rate:,.0f} img/s")
            if self._total is not None:
                left = int((self._total - self._items) / rate)
                words.append(f"{left // 60}:{left % 60:02d} left")
        if self._errors:
            words.append(f"{self._errors:,} errors")
        return "  ".join(words)

    def _say(self, text: str) -> None:
        self._spoken_at = time.monotonic()
        self._console.print(text, markup=False)


def _count_units(number: int) -> str:
    return f"{number:,} {'unit' if number == 1 else 'units'} of work"
