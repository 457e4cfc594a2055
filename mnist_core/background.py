"""Write the newest of something in a thread, so that who produces it never waits for the storage."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


class NewestWriter(Generic[Item]):
    """Hands items to ``write``, one at a time, in a thread of its own.

    If writing is slower than items come, the newest waiting one replaces the older: only the last matters. A write
    that fails, for whatever reason, is a warning while there may be a next one, and an error at ``close``.

    Args:
        what: What an item is, for the warning.
        write: Writes one item.
        pause_s: Least time between two writes.
    """

    def __init__(self, what: str, write: Callable[[Item], None], pause_s: float = 0.0) -> None:
        self._what = what
        self._write = write
        self._pause_s = pause_s
        self._waiting: Item | None = None
        self._closing = False
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"{what}-writer", daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> None:
        """Hand an item over, which must not change any more; returns at once."""
        with self._changed:
            self._waiting = item
            self._changed.notify()

    def close(self) -> None:
        """Wait until the last item is written.

        Raises:
            Exception: What ``write`` raised, if it could not be written; StorageError when the storage refused it.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closing)
                item, self._waiting = self._waiting, None
            if item is None:
                return
            try:
                self._write(item)
                self._failure = None
            except Exception as err:  # a thread that died would drop every later item in silence
                self._failure = err
                logger.warning("a %s could not be written: %s", self._what, err)
            with self._changed:
                self._changed.wait_for(lambda: self._closing, self._pause_s)
