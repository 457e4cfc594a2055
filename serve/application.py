"""Our application on Ray Serve: deployed, waited for, watched and taken down."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mnist_core.config_serve import ServeConfig
from mnist_core.errors import ResourcesError, ServingFailedError

if TYPE_CHECKING:
    from ray.serve.schema import ApplicationStatusOverview

APPLICATION: Final = "mnist"
GRPC_SERVICE: Final = "serve.grpc_v2:add_GRPCInferenceServiceServicer_to_server"

START_TIMEOUT_S: Final = 600.0
"""A cluster's autoscaler may have to start machines first, which takes minutes."""

START_CHECK_S: Final = 0.2
CHECK_S: Final = 2.0
"""How often the application's state is looked at while it starts, and while it serves."""

logger = logging.getLogger(__name__)


@contextmanager
def application(config: ServeConfig, http_host: str, *, alone: bool) -> Iterator[None]:
    """Our application, deployed and perhaps not running yet, for as long as the block lasts.

    Args:
        config: What is served.
        http_host: Where Ray Serve is to listen.
        alone: Ray is this machine alone, so that what it has not, it will not get.

    Raises:
        ResourcesError: This machine is too small.
        ServingFailedError: Ray Serve does not start, or serves something else already.
    """
    import ray
    from ray import serve as ray_serve
    from ray.exceptions import RayError
    from ray.serve.config import HTTPOptions, gRPCOptions

    from serve.app import deployment

    there = ray.cluster_resources()
    if alone and any(there.get(kind, 0) < amount for kind, amount in _needs(config).items()):
        raise _too_few(config, "the endpoint does not fit")
    _refuse_others(config)
    try:
        try:
            ray_serve.start(
                http_options=HTTPOptions(host=http_host, port=config.port),
                grpc_options=gRPCOptions(port=config.grpc_port, grpc_servicer_functions=[GRPC_SERVICE]),
            )
            # Ray itself would wait for the replicas for ever, and heed no signal meanwhile.
            target = ray_serve.RunTarget(deployment(config), name=APPLICATION, route_prefix="/")
            ray_serve.run_many(
                [target], wait_for_applications_running=False, wait_for_ingress_deployment_creation=False
            )
        except (RuntimeError, TimeoutError, RayError) as err:
            raise _failed(str(err)) from err
        yield
    finally:
        _take_down()


def wait_until_running(config: ServeConfig, stop: threading.Event) -> None:
    """Wait until all replicas that are always there are there and every node knows them, or until told to stop.

    Raises:
        ResourcesError: They are not after ``START_TIMEOUT_S``.
        ServingFailedError: They fail.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while not stop.wait(START_CHECK_S):
        state = _state()
        if state and state.status == "RUNNING":
            _wait_for_fronts()
            return
        if state and state.status == "DEPLOY_FAILED":
            raise _failed("\n".join([state.message, *(each.message for each in state.deployments.values())]))
        if time.monotonic() > deadline:
            raise _too_few(config, f"the endpoint did not start in {START_TIMEOUT_S:.0f} s")


def _wait_for_fronts() -> None:
    """Each node's HAProxy learns of the replicas by itself; before, it answers 503."""
    from ray.serve.context import _get_global_client

    try:
        _get_global_client().wait_for_proxies_serving()
    except TimeoutError as err:
        raise _failed(str(err)) from err


def watch(stop: threading.Event) -> None:
    """Wait until told to stop; meanwhile say so when the application has failed."""
    while not stop.wait(CHECK_S):
        state = _state()
        if state and state.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            logger.warning("application %s: %s", state.status.lower(), state.message)


def _state() -> ApplicationStatusOverview | None:
    from ray import serve as ray_serve

    try:
        return ray_serve.status().applications.get(APPLICATION)
    except Exception:  # the controller is being restarted: Ray does that by itself
        logger.info("the controller does not answer", exc_info=True)
        return None


def _failed(reason: str) -> ServingFailedError:
    """Ray gives a traceback, of which the last line says what it was."""
    return ServingFailedError(f"the application did not start: {reason.strip().splitlines()[-1]}")


def _needs(config: ServeConfig) -> dict[str, float]:
    gpus = int(config.device == "gpu")
    return {"CPU": config.min_replicas * config.cpus_per_replica, "GPU": config.min_replicas * gpus}


def _too_few(config: ServeConfig, what: str) -> ResourcesError:
    import ray

    there, free = ray.cluster_resources(), ray.available_resources()
    needs = " and ".join(f"{amount:g} {kind}s" for kind, amount in _needs(config).items() if amount)
    has = ", ".join(f"{there.get(kind, 0):g} {kind}s ({free.get(kind, 0):g} of them free)" for kind in ("CPU", "GPU"))
    return ResourcesError(
        f"{what}: --min-replicas {config.min_replicas} with --cpus-per-replica {config.cpus_per_replica:g} "
        f"({needs} in all), and Ray has {has}; ask for less, or add machines"
    )


def _refuse_others(config: ServeConfig) -> None:
    """What a cluster serves already stays as it is: its ports, and an endpoint that another job has started."""
    from ray import serve as ray_serve
    from ray.serve.context import _get_global_client

    running = _get_global_client(raise_if_no_controller_running=False)
    if running is None:
        return
    port = running.http_config.port
    if port != config.port:
        raise ServingFailedError(f"Ray Serve runs on this cluster and listens on {port}: use --port {port}")
    if APPLICATION in ray_serve.status().applications:
        raise ServingFailedError(
            "this cluster has an endpoint already: mnist jobs stop its job, or serve shutdown; a new model needs "
            "neither, see mnist models promote"
        )


def _take_down() -> None:
    """End Ray Serve, or only our application where a cluster has others.

    Once told, Ray's controller does it by itself: this process may be killed three seconds after it was asked to stop.
    """
    from ray import serve as ray_serve

    if set(ray_serve.status().applications) - {APPLICATION}:
        ray_serve.delete(APPLICATION, _blocking=False)
    else:
        ray_serve.shutdown()
