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
from mnist_core.inputs.plan import Unit
from mnist_core.scoring import Tally

Pending = Sequence[tuple[int, Unit]]


class HeadStart:
    """Scores units in a thread, one after the other, until there are none left or they are taken away.

    A context manager: when the block is left, the thread has ended, with the unit that it was at.

    Args:
        config: The job's configuration; its model with a version.
        pending: The units to score, with their index in the plan; at least one.
        on_unit: Told, in the thread, when a unit is done.
    """

    def __init__(self, config: ScoreConfig, pending: Pending, on_unit: Callable[[Tally], None]) -> None:
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
        """Finish the unit at hand and stop."""
        self._pending.clear()
        self._thread.join()

    def wait_for_first(self) -> None:
        """Wait until a unit is done, or failed."""
        self._under_way.wait()

    def finish(self) -> dict[int, Tally]:
        """Wait until no unit is left; returns the tally of each that was done here.

        Raises:
            Exception: What a unit failed with.
        """
        self._thread.join()
        if self._failure:
            raise self._failure
        return self._done

    def seconds_left(self) -> float:
        """How long this alone would take for the rest, going by what is done; infinite where nobody can know."""
        left = [unit.num_items for _, unit in list(self._pending)]
        if not left:
            return 0.0
        if None in left or not self._num_items:
            return float("inf")
        return sum(filter(None, left)) / self._num_items * self._seconds

    def give_away(self, keep_s: float) -> Pending:
        """Hand over the units at the end, all but about ``keep_s`` seconds of work."""
        given: list[tuple[int, Unit]] = []
        while self.seconds_left() > keep_s:
            try:
                given.append(self._pending.pop())
            except IndexError:  # the thread was faster
                break
        return given[::-1]

    def _run(self) -> None:
        try:
            scorer = UnitScorer(self._config)
            while self._pending:
                try:
                    index, unit = self._pending.popleft()
                except IndexError:  # given away this moment
                    return
                started = time.monotonic()
                tally = scorer.score(index, unit)
                self._seconds += time.monotonic() - started
                self._num_items += tally.items
                self._done[index] = tally
                self._on_unit(tally)
                self._under_way.set()
        except BaseException as err:  # whatever it is, who waits for the results raises it
            self._failure = err
            self._pending.clear()
        finally:
            self._under_way.set()
