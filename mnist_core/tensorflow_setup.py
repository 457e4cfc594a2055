"""How TensorFlow is set up in a process that trains, before it computes anything: the same wherever that is."""

from __future__ import annotations

import ctypes
import logging
import os
import warnings
from contextlib import suppress
from typing import Final

from mnist_core.config import TrainConfig

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Names of settings in glibc's malloc.h."""

LARGEST_MMAP_THRESHOLD: Final = 32 << 20
"""Bytes; glibc takes no more on 64 bits, see mallopt(3)."""


def training_environment(*, verbose: bool) -> dict[str, str]:
    """What is set in the environment of a process that trains before TensorFlow and Keras are imported there."""
    return {"KERAS_BACKEND": "tensorflow", **({} if verbose else {"TF_CPP_MIN_LOG_LEVEL": "3"})}


def prepare_tensorflow(config: TrainConfig, threads: int) -> None:
    """Make this process one whose results do not depend on its number of threads.

    It may be called again with the same values. Where TensorFlow has computed something already with other ones, they
    stay as they are, with a warning.

    Args:
        config: What is trained; ``gpu`` and ``verbose`` matter here.
        threads: How many micro-batches are computed side by side.
    """
    keep_freed_memory()
    import tensorflow as tf

    if not config.verbose:
        tf.get_logger().setLevel(logging.ERROR)
        logging.getLogger("absl").setLevel(logging.ERROR)  # of what the converter to LiteRT finds deprecated
    try:
        # One thread an operation, so that its last bits do not depend on their number; the micro-batches run side by
        # side.
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        warnings.warn(
            "TensorFlow has been used in this process before, with other threads: the last bits of the weights may "
            "differ from those of other runs; start a new process (restart the notebook's kernel) to have the same",
            stacklevel=4,
        )
    if config.gpu:
        for device in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)
        tf.config.experimental.enable_op_determinism()


def keep_to_own_cores(local_rank: int, local_workers: int, threads: int) -> None:
    """Keep the calling thread, and those it starts from here on, to this worker's share of the machine's cores.

    Only where the workers take all cores of the machine together: there is nothing to evade to then, and a worker that
    is moved onto another's core makes all wait, each step. On two cores, two workers so take 0.86 x the time. Where
    cores are left over, others may be at work on any of them, and Linux knows better.

    Args:
        local_rank: This worker's rank among those on this machine.
        local_workers: How many they are.
        threads: Threads of each.
    """
    if not hasattr(os, "sched_setaffinity"):  # not Linux
        return
    cores = sorted(os.sched_getaffinity(0))
    if local_workers > 1 and local_workers * threads == len(cores):
        os.sched_setaffinity(0, cores[local_rank * threads : (local_rank + 1) * threads])


def keep_freed_memory() -> None:
    """Have the C library keep what a training step frees for the next step, which takes as much again.

    Else glibc gives every tensor of a megabyte back to the system, which clears each page of it anew: 2,000 page faults
    and 6 of the 29 ms of a step of 64 images.
    """
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
