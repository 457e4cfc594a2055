"""The Ray Serve application: replicas that load a published model and answer for it.

``build`` is what ``serve/config.yaml`` and ``mnist serve`` deploy. A replica is ready when its model is loaded,
verified and warm: Ray sends nobody to it before its constructor has returned.
"""

from __future__ import annotations

import gc
import math
from typing import Any, Final

from ray import serve as ray_serve
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from mnist_core.config_serve import ServeConfig
from serve.grpc_v2 import InferenceMethods
from serve.lane import App, answer, open_lane
from serve.service import Service
from serve.web import build_app

NAME: Final = "mnist"
IN_WORK: Final = "in_work"

METRICS_INTERVAL_S: Final = 0.5
LOOK_BACK_S: Final = 3.0
"""Ray's own 10 and 30 s are for requests that take seconds."""

GRACE_S: Final = 20.0
"""Seconds in which a replica that is taken away finishes what it has, at least."""

SPARE_GRACE_S: Final = 5.0
"""Seconds that it has beyond the longest request; of these, it is still reachable for 2 (``serve.front``)."""


def long_way() -> App:
    """What Ray calls in a replica for requests that have not taken the lane, and when it begins and ends."""
    return answer


@ray_serve.ingress(long_way)
class Replica(InferenceMethods):
    """One replica.

    Args:
        settings: A ``ServeConfig`` as JSON.
    """

    async def __init__(self, settings: str) -> None:  # type: ignore[misc]
        # Parsing thousands of numbers makes objects and no garbage; of 1 s, 0.7 s was the search for some.
        gc.set_threshold(100_000, 50, 1000)
        self._service = Service(ServeConfig.model_validate_json(settings))
        open_lane(build_app(self._service))
        # What is there now stays. Ray has a worker collect now and then: 80 ms in which nobody was answered, now 1.
        gc.collect()
        gc.freeze()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Say how many requests are in work; Ray asks now and then."""
        return {IN_WORK: self._service.metrics.average_in_flight()}

    async def check_health(self) -> None:
        """Nothing to check that would not show: an endpoint that does not answer is noticed by HAProxy."""

    async def __del__(self) -> None:
        open_lane(None)
        await self._service.close()


def count_replicas(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Decide on the number of replicas: requests in work, over as many as one replica should have.

    Bounds and delays are applied by Ray.
    """
    metrics = context.aggregated_metrics or {}
    in_work = sum(metrics.get(IN_WORK, {}).values())
    target = context.config.get_target_ongoing_requests()
    return max(in_work / target, math.ulp(0.0)), {}


def build(arguments: dict[str, Any]) -> ray_serve.Application:
    """The application for ``serve/config.yaml``, whose ``args`` are the options of ``mnist serve``.

    Raises:
        ValidationError: There is no such option, or no such value.
    """
    return deployment(ServeConfig.model_validate(arguments))


def deployment(config: ServeConfig) -> ray_serve.Application:
    """The application for a configuration."""
    scaling = AutoscalingConfig(
        min_replicas=config.min_replicas,
        max_replicas=config.max_replicas,
        initial_replicas=config.min_replicas,
        target_ongoing_requests=config.target_requests,
        metrics_interval_s=METRICS_INTERVAL_S,
        look_back_period_s=LOOK_BACK_S,
        upscale_delay_s=config.upscale_delay_s,
        downscale_delay_s=config.downscale_delay_s,
        policy=AutoscalingPolicy(policy_function="serve.app:count_replicas"),
    )
    settings = config.model_dump_json()
    return (
        ray_serve.deployment(Replica)
        .options(
            name=NAME,
            autoscaling_config=scaling,
            max_ongoing_requests=config.max_queue_images,
            graceful_shutdown_timeout_s=max(GRACE_S, config.request_timeout_s + SPARE_GRACE_S),
            logging_config={"enable_access_log": False},  # --access-log is ours
            ray_actor_options={"num_cpus": config.cpus_per_replica, "num_gpus": int(config.device == "gpu")},
        )
        .bind(settings)
    )
