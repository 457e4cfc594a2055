"""Scoring in the command's own process, while Ray starts and instead of it where that would take longer than the work.

Ray needs nine seconds on two cores until its actors score, and most of that time a core is idle.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Event, Thread
from types import TracebackType
from typing import Self

from jobs.score_worker import UnitScorer
from mnist_core.config import ScoreConfig
from mnist_core.engines import usable_cpus
from mnist_core.inputs.plan import Unit
from mnist_core.scoring import Tally

Pending = Sequence[tuple[int, Unit]]


class HeadStart:
    """Scores units in a thread, the last first, until there are none left or it is told to stop.

    Whoever begins at the front meanwhile finds the records of what is done here (``UnitScorer``). A context manager:
    when the block is left, the thread has ended, with the unit that it was at.

    Args:
        config: The job's configuration; its model with a version.
        pending: The units to score, with their index in the plan; at least one.
        on_unit: Told, in the thread, when a unit is done: its index and tally.
    """

    def __init__(self, config: ScoreConfig, pending: Pending, on_unit: Callable[[int, Tally], None]) -> None:
        self._config = config
        self._pending = deque(pending)
        self._on_unit = on_unit
        self._done: dict[int, Tally] = {}
        self._failure: BaseException | None = None
        self._under_way = Event()
        self._num_items = 0
        self._seconds = 0.0
        self._thread = Thread(target=self._run, name="head-start", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and wait until the unit at hand is done."""
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        """Take no more units; returns at once."""
        self._pending.clear()

    def left(self) -> Pending:
        """The units that nobody has begun here, in their order."""
        return list(self._pending)

    def wait_for_rate(self, timeout_s: float) -> None:
        """Wait until it is known how fast this is: a unit after the first, which warms up, is done; or all ended."""
        self._under_way.wait(timeout_s)

    def finish(self) -> dict[int, Tally]:
        """Wait until no unit is left or the last one is done; returns the tally of each that was done here.

        Raises:
            Exception: What a unit failed with.
        """
        self._thread.join()
        if self._failure:
            raise self._failure
        return self._done

    def seconds_left(self) -> float:
        """How long this alone would take for the rest, going by what is done; infinite where nobody can know."""
        left = [unit.num_items for _, unit in self.left()]
        if not left:
            return 0.0
        if None in left or not self._num_items:
            return float("inf")
        return sum(filter(None, left)) / self._num_items * self._seconds

    def _run(self) -> None:
        try:
            scorer = UnitScorer(self._config, usable_cpus())
            while self._pending:
                try:
                    index, unit = self._pending.pop()
                except IndexError:  # told to stop this moment
                    return
                started = time.monotonic()
                tally = scorer.score(index, unit)
                if self._done:
                    self._seconds += time.monotonic() - started
                    self._num_items += tally.items
                    self._under_way.set()
                self._done[index] = tally
                self._on_unit(index, tally)
        except BaseException as err:  # whatever it is, who waits for the results raises it
            self._failure = err
            self._pending.clear()
        finally:
            self._under_way.set()
