"""The thread that writes the newest of something: what it drops, what it never drops, and how it fails."""

from __future__ import annotations

import queue
import threading

import pytest

from mnist_core.background import NewestWriter
from mnist_core.errors import StorageError

WAIT_S = 30.0


class SlowStorage:
    """Tells which item it was given, keeps the writer waiting until it may go on, and fails for the items named."""

    def __init__(self, failures: dict[str, Exception] | None = None) -> None:
        self._failures = failures or {}
        self._given: queue.Queue[str] = queue.Queue()
        self._gate = threading.Semaphore(0)
        self.written: list[str] = []

    def write(self, item: str) -> None:
        self._given.put(item)
        assert self._gate.acquire(timeout=WAIT_S)
        if item in self._failures:
            raise self._failures[item]
        self.written.append(item)

    def next_given(self) -> str:
        return self._given.get(timeout=WAIT_S)

    def go_on(self, times: int = 1) -> None:
        self._gate.release(times)


def test_the_newest_waiting_item_replaces_the_older_ones_and_nobody_waits():
    storage = SlowStorage()
    writer = NewestWriter("checkpoint", storage.write)
    writer.submit("a")
    assert storage.next_given() == "a"
    for item in "bcd":
        writer.submit(item)  # returns, though the storage has not
    storage.go_on(2)
    writer.close()
    assert storage.written == ["a", "d"]


def test_items_that_come_slowly_are_all_written_in_order():
    storage = SlowStorage()
    writer = NewestWriter("checkpoint", storage.write)
    for item in "abc":
        writer.submit(item)
        assert storage.next_given() == item
        storage.go_on()
    writer.close()
    assert storage.written == ["a", "b", "c"]


def test_closing_a_writer_that_was_given_nothing_writes_nothing():
    storage = SlowStorage()
    NewestWriter("checkpoint", storage.write).close()
    assert storage.written == []


def test_a_failed_write_is_a_warning_if_a_later_one_succeeds(caplog):
    storage = SlowStorage({"a": StorageError("no room")})
    writer = NewestWriter("checkpoint", storage.write)
    storage.go_on(2)
    writer.submit("a")
    assert storage.next_given() == "a"
    writer.submit("b")
    writer.close()
    assert storage.written == ["b"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "checkpoint" in caplog.text
    assert "no room" in caplog.text


@pytest.mark.parametrize("failure", [StorageError("no room"), TypeError("a bug")], ids=["storage", "bug"])
def test_a_failed_last_write_is_raised_at_the_end(failure):
    storage = SlowStorage({"b": failure})
    writer = NewestWriter("checkpoint", storage.write)
    storage.go_on(2)
    writer.submit("a")
    assert storage.next_given() == "a"
    writer.submit("b")
    with pytest.raises(type(failure)) as caught:
        writer.close()
    assert caught.value is failure
    assert storage.written == ["a"]


def test_a_bug_while_writing_does_not_silence_the_writer():
    storage = SlowStorage({"a": TypeError("a bug")})
    writer = NewestWriter("status", storage.write)
    storage.go_on(2)
    writer.submit("a")
    assert storage.next_given() == "a"
    writer.submit("b")
    writer.close()
    assert storage.written == ["b"]


@pytest.mark.timeout(60)
def test_a_pause_holds_items_back_until_the_end_and_the_end_does_not_wait_for_it():
    storage = SlowStorage()
    writer = NewestWriter("status", storage.write, pause_s=1e6)
    storage.go_on(3)
    writer.submit("a")
    assert storage.next_given() == "a"
    writer.submit("b")
    with pytest.raises(queue.Empty):
        storage._given.get(timeout=0.2)
    writer.submit("c")
    writer.close()
    assert storage.written == ["a", "c"]
