"""Keeps from people what C++ libraries write to stderr past Python: TensorFlow and LiteRT have no switch for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def native_stderr(*, shown: bool) -> Iterator[None]:
    """Send what is written to the descriptor of stderr nowhere for a while, unless it is to be shown.

    The whole process is meant: nothing that another thread writes there meanwhile is seen either.
    """
    if shown:
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
