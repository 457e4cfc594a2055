"""Short time slices, as Linux itself reports them."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve import slices
from serve.slices import ATTRIBUTES, SLICE_NS, ask_for_short_slices

GETATTR = {"x86_64": 315, "aarch64": 275}
RELEASE = tuple(map(int, platform.release().split("-")[0].split(".")[:2])) if sys.platform == "linux" else (0, 0)


def attributes() -> tuple[int, ...]:
    """Of this thread: size, policy, flags, nice, priority, slice, deadline, period."""
    buffer = ctypes.create_string_buffer(ATTRIBUTES.size)
    assert ctypes.CDLL(None).syscall(GETATTR[platform.machine()], 0, buffer, ATTRIBUTES.size, 0) == 0
    return ATTRIBUTES.unpack(buffer.raw)


@pytest.mark.skipif(RELEASE < (6, 12), reason="Linux grants slices from 6.12 on")
def test_a_thread_gets_short_slices_and_keeps_all_else():
    def ask():
        os.setpriority(os.PRIO_PROCESS, 0, 7)  # of this thread alone, which ends with the test
        before = attributes()
        return before, ask_for_short_slices(), attributes()

    with ThreadPoolExecutor(1) as pool:
        before, granted, after = pool.submit(ask).result()
    assert granted
    assert before[5] > after[5] == SLICE_NS
    assert (before[1:5], before[3]) == (after[1:5], 7)


def test_elsewhere_nothing_is_asked_for(monkeypatch):
    monkeypatch.setattr(slices.platform, "machine", lambda: "an-abacus")
    assert not ask_for_short_slices()
