"""The Ray cluster a command runs on: join or start it, and find out whether it has what the command needs."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_core.cluster_address import LOCAL, choose_address, refuse_dead, starting
from mnist_core.config import TrainConfig
from mnist_core.errors import ResourcesError

RESERVE_S = 10.0
"""Seconds in which a cluster that has enough free gives it; on one machine it takes a tenth of a second."""


@dataclass(frozen=True)
class RaySession:
    """Ray, connected.

    Attributes:
        ray: The module.
        alone: Ray was started for this command: it is this machine, serves nobody else, and ends with the command.
    """

    ray: Any
    alone: bool


@contextmanager
def ray_session(*, verbose: bool) -> Iterator[RaySession]:
    """Use the Ray that this process is connected to, else the one at RAY_ADDRESS, else one of our own for a while.

    Args:
        verbose: Let Ray say what it has to say.

    Yields:
        Ray, connected.

    Raises:
        ResourcesError: No cluster answers at RAY_ADDRESS, or none of our own starts.
    """
    address = choose_address()
    import ray

    if ray.is_initialized():
        yield RaySession(ray, alone=False)
        return
    refuse_dead(address)
    with starting(address), warnings.catch_warnings():
        warnings.simplefilter("default" if verbose else "ignore")
        level = "info" if verbose else "error"
        # Ray starts workers at nice 15, and one that waits for its CPU keeps all the others waiting.
        own = {"_system_config": {"worker_niceness": 0}} if address == LOCAL else {}
        ray.init(address=address, include_dashboard=False, log_to_driver=verbose, logging_level=level, **own)
    try:
        with ExitStack() as stack:
            # Ray prints news of lost workers on stdout, which is for results.
            elsewhere = sys.stderr if verbose else stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(redirect_stdout(elsewhere))
            yield RaySession(ray, alone=address == LOCAL)
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class WorkerShape:
    """What one training worker gets: TensorFlow threads, and the CPUs and GPUs that Ray reserves."""

    threads: int
    cpus: float
    gpus: int


def shape_workers(config: TrainConfig, nodes: Sequence[dict[str, float]]) -> WorkerShape:
    """Decide what each worker gets.

    Args:
        config: What was asked for; without ``--threads-per-worker`` the CPUs are shared out.
        nodes: Resources of each node, such as ``{"CPU": 8.0, "GPU": 1.0}``.

    Returns:
        The shape; without ``--threads-per-worker`` the largest with which all workers fit, at least one thread.
    """
    threads = config.threads_per_worker
    if threads is None:
        sizes = range(int(max((node.get("CPU", 0) for node in nodes), default=0)), 1, -1)
        fitting = (size for size in sizes if places(nodes, size, config.gpu) >= config.max_workers)
        threads = next(fitting, 1)
    return WorkerShape(threads, config.cpus_per_worker or threads, int(config.gpu))


def places(nodes: Sequence[dict[str, float]], cpus: float, gpus: int) -> int:
    """How many workers of a size the nodes can hold; a worker never spans nodes."""
    needed = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    # A little more, since 0.3 / 0.1 is a little less than 3.
    return sum(int(min(node.get(kind, 0) / amount for kind, amount in needed.items()) + 1e-6) for node in nodes)


def find_places(ray: Any, config: TrainConfig) -> WorkerShape:
    """Make sure that the cluster can hold the workers now, or after ``--resource-wait-s``.

    Returns:
        What each worker gets.

    Raises:
        ResourcesError: It cannot; says what was asked and what there is.
    """
    shape = shape_workers(config, node_sizes(ray))
    hopeless = places(node_sizes(ray), shape.cpus, shape.gpus) < config.min_workers and not config.resource_wait_s
    bundle = {"CPU": shape.cpus, **({"GPU": shape.gpus} if shape.gpus else {})}
    if not hopeless and can_reserve(ray, [bundle] * config.min_workers, config.resource_wait_s):
        return shape_workers(config, node_sizes(ray))
    free = ray.available_resources()
    sizes = [f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in node_sizes(ray)]
    raise ResourcesError(
        f"asked for {config.min_workers} workers of {shape.cpus:g} CPUs and {shape.gpus} GPUs each; the nodes have "
        f"{'; '.join(sizes) or 'none'}, of which {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs are free: "
        "ask for fewer --workers or a smaller --cpus-per-worker, or let an autoscaling cluster grow (--resource-wait-s)"
    )


def node_sizes(ray: Any) -> list[dict[str, float]]:
    """Resources of each node that is alive, such as ``{"CPU": 8.0, "GPU": 1.0}``."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def can_reserve(ray: Any, bundles: list[dict[str, float]], wait_s: float = 0) -> bool:
    """Try it: only Ray knows what is free on each node, and an autoscaler sees what a pending reservation needs.

    Args:
        ray: Ray, connected.
        bundles: Resources, each of which has to be free on one node.
        wait_s: For so long they may become free; RESERVE_S at least.
    """
    group = ray.util.placement_group(bundles)
    try:
        return bool(group.wait(max(wait_s, RESERVE_S)))
    finally:
        ray.util.remove_placement_group(group)
