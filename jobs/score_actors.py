"""Scoring on Ray Data: actors take one work unit after the other; dead ones are replaced and their units done again.

Rows never pass through Ray: the actors write them (``jobs.score_output``), and only tallies come back.
"""

from __future__ import annotations

import importlib
import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from jobs.cluster import node_sizes, places
from jobs.score_worker import UnitScorer
from mnist_core.config import ScoreConfig
from mnist_core.errors import MnistError, ResourcesError, ScoringFailedError
from mnist_core.inputs.plan import Unit
from mnist_core.scoring import Tally

MAX_BLOCKS: Final = 2000
"""Blocks that Ray Data keeps account of; with more units than these, a block holds several."""

UNITS_PER_ACTOR: Final = 2
"""Units that are handed to an actor ahead, so that it never waits for the next."""


def load_ray_data() -> None:
    """Import Ray Data in a thread, a second that otherwise comes after Ray has started."""
    threading.Thread(target=importlib.import_module, args=["ray.data"], name="load-ray-data", daemon=True).start()


def score_on_ray(
    ray: Any, config: ScoreConfig, pending: Sequence[tuple[int, Unit]], on_unit: Callable[[int, Tally], None]
) -> dict[int, Tally]:
    """Let actors score units; returns the tally of each.

    Args:
        ray: The ``ray`` module, connected.
        config: The job's configuration; its model with a version.
        pending: The units, with their index in the plan; at least one.
        on_unit: Told when a unit is done: its index and tally.

    Raises:
        ResourcesError: There is no room for the actors.
        ScoringFailedError: They failed for a reason that is not in an image.
    """
    from ray.data import ActorPoolStrategy, DataContext, from_items

    if not config.verbose:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a unit takes as long as it takes
    workers = count_actors(ray, config, len(pending))
    items = [{"index": index, "unit": json.dumps(asdict(unit))} for index, unit in pending]
    tallies = from_items(items, override_num_blocks=min(len(items), MAX_BLOCKS)).map_batches(
        UnitScorer,
        fn_constructor_args=(config,),
        batch_size=1,
        compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=UNITS_PER_ACTOR),
        num_cpus=config.cpus_per_worker,
        num_gpus=1 if config.device == "gpu" else 0,
    )
    done = {}
    try:
        for batch in tallies.iter_batches(batch_size=None, prefetch_batches=0):
            for index, tally in zip(batch["index"], batch["tally"], strict=True):
                done[int(index)] = Tally.from_dict(json.loads(tally))
                on_unit(int(index), done[int(index)])
    except ray.exceptions.RayError as err:
        raise _explain(err) from err
    return done


def count_actors(ray: Any, config: ScoreConfig, num_units: int) -> int:
    """As many actors as the nodes have room for, and as there is work for.

    Raises:
        ResourcesError: There is room for none, or for fewer than were asked for.
    """
    num_gpus = int(config.device == "gpu")
    room = places(node_sizes(ray), config.cpus_per_worker, num_gpus)
    if room < (config.workers or 1):
        raise ResourcesError(
            f"asked for {config.workers or 1} workers of {config.cpus_per_worker:g} CPUs and {num_gpus} GPUs; "
            f"the nodes have room for {room}: "
            "ask for fewer --workers or a smaller --cpus-per-worker"
        )
    return min(config.workers or room, num_units)


def _explain(err: Exception) -> MnistError:
    """Find our own error in what Ray raises, else say its first lines."""
    cause: BaseException | None = err
    while cause is not None:
        if isinstance(cause, MnistError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return ScoringFailedError(
        f"the actors failed: {' '.join(str(err).split())[:500]}; what is done stays: finish with --resume"
    )
