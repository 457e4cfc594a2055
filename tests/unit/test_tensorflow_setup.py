"""How a training process is set up."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mnist_core import tensorflow_setup
from mnist_core.tensorflow_setup import keep_to_own_cores

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")


def cores_after(*words: int) -> tuple[set[int], set[int]]:
    """Cores of a thread that kept to its own, and those of a thread that it started then."""

    def started() -> set[int]:
        with ThreadPoolExecutor(1) as inner:
            return inner.submit(os.sched_getaffinity, 0).result()

    def kept() -> tuple[set[int], set[int]]:
        keep_to_own_cores(*words)
        return os.sched_getaffinity(0), started()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(kept).result()


def test_workers_that_take_all_cores_share_them_out():
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("needs two cores")
    shares = [cores_after(rank, len(cores), 1) for rank in range(len(cores))]
    assert all(own == started and len(own) == 1 for own, started in shares)
    assert set().union(*(own for own, _ in shares)) == cores == os.sched_getaffinity(0)


def test_threads_of_a_worker_have_neighbouring_cores(monkeypatch: pytest.MonkeyPatch):
    kept: list[Any] = []
    monkeypatch.setattr(tensorflow_setup.os, "sched_getaffinity", lambda _: {8, 9, 2, 3})
    monkeypatch.setattr(tensorflow_setup.os, "sched_setaffinity", lambda _, cores: kept.append(cores))
    keep_to_own_cores(0, 2, 2)
    keep_to_own_cores(1, 2, 2)
    assert kept == [[2, 3], [8, 9]]


@pytest.mark.parametrize(("workers", "threads"), [(1, "all"), (2, "all"), (1, 1)])
def test_where_cores_are_left_over_or_wanted_twice_the_system_chooses(workers: int, threads: int | str):
    cores = os.sched_getaffinity(0)
    count = len(cores) if threads == "all" else int(threads)
    assert cores_after(0, workers, count) == (cores, cores)
