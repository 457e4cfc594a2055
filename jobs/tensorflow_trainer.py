"""Ray's ``TensorflowTrainer`` without what it loads for nothing.

Importing ``ray.train.tensorflow`` imports TensorFlow and Keras, and it is imported by the driver, by the controller
and by every worker before it may do anything else. None of the first two needs TensorFlow: this trainer is Ray's own
class with a backend that lives here. What the backend does is what Ray's does, describe the cluster in ``TF_CONFIG``,
less the switch to Keras 2 (``TF_USE_LEGACY_KERAS``). And on a Ray that was started for this training alone, it starts
none of the processes that Ray Train has for clusters: on two cores they take a quarter of the start-up.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.train import BackendConfig, Result, RunConfig, ScalingConfig
from ray.train.backend import Backend
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.callbacks.preemption_callback import PreemptionCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.tensorflow.tensorflow_trainer import TensorflowTrainer
from ray.util import get_node_ip_address

from mnist_core.ports import held_ports

OPTIONAL_FOR_KERAS = ("matplotlib", "sklearn")
"""What Keras imports if it is there, for plots and for wrappers that nothing here uses: 1.1 of 3.7 s."""

FIRST_WORKER_S = 30.0
"""For so long the others wait for the first worker's server, before TensorFlow waits for it in its own way."""

STOP_S = 30.0
"""For so long a training that is stopped may take to end its workers."""

_loading = threading.Lock()
_until_exit = ExitStack()
"""Holds the port of TensorFlow's server, which starts seconds after all have been told of it."""


class KerasTrainer(TensorflowTrainer):  # type: ignore[misc]
    """Runs a function on every worker of a TensorFlow cluster.

    Args:
        worker: Runs on every worker, with ``payload``.
        payload: The worker's argument; large values as object references.
        scaling: Number of workers and what each reserves.
        run: Name, storage and failure handling.
        environment: Set in every worker before TensorFlow is imported there.
        alone: Ray is this machine, serves nobody else and ends with this process.
    """

    def __init__(
        self,
        worker: Callable[[dict[str, Any]], None],
        payload: dict[str, Any],
        *,
        scaling: ScalingConfig,
        run: RunConfig,
        environment: dict[str, str],
        alone: bool,
    ) -> None:
        self._alone = alone
        self._controller: Any = None
        self._stopped = False
        # Not super().__init__: TensorflowTrainer's imports TensorFlow, and adds nothing but its backend.
        DataParallelTrainer.__init__(
            self,
            worker,
            train_loop_config=payload,
            backend_config=KerasBackendConfig(environment),
            scaling_config=scaling,
            run_config=run,
        )

    def _create_default_callbacks(self) -> list[Any]:
        """Ray's, less those that start a process for nothing: for datasets of Ray Data, and to tidy a Ray that ends."""
        needless = (DatasetsCallback, PlacementGroupCleanerCallback) if self._alone else (DatasetsCallback,)
        return [each for each in super()._create_default_callbacks() if not isinstance(each, needless)]

    def _initialize_and_run_controller(self, **settings: Any) -> Result:
        """Start Ray's controller as Ray does, but in a process that is already there if that is possible.

        Ray gives it a runtime environment with one variable, which the workers inherit. None of the processes that
        Ray has started ahead may then be used, and new ones start in two steps: 5 of 22 s on two cores.
        """
        if self._alone and type(settings["scaling_policy"]) is FixedScalingPolicy:
            settings["scaling_policy"] = FixedOnFixedCluster(self.scaling_config)
        here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        variables = get_env_vars_to_propagate()
        environment = {"runtime_env": {"env_vars": variables}} if variables else {}
        kind = ControllerWithoutPreemption if self._alone else TrainController
        self._controller = ray.remote(num_cpus=0, label_selector=here, **environment)(kind).remote(**settings)
        if self._stopped:  # while this was under way
            self.stop()
        ray.get(self._controller.run.remote())
        return ray.get(self._controller.get_result.remote())

    def stop(self) -> None:
        """End the workers, wherever ``fit`` is: for a Ray that goes on when this process is done with it."""
        self._stopped = True
        if self._controller is not None:
            with suppress(ray.exceptions.RayError):  # it ends while it answers, or has ended before
                ray.get(self._controller.abort.remote(), timeout=STOP_S)


class ControllerWithoutPreemption(TrainController):  # type: ignore[misc]
    """Does not watch for its only node being taken away: it would go too. Watching takes a process."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        callbacks: list[Any] = self._worker_group_callbacks_to_propagate
        callbacks[:] = [each for each in callbacks if not isinstance(each, PreemptionCallback)]


class FixedOnFixedCluster(FixedScalingPolicy):  # type: ignore[misc]
    """A fixed number of workers on a cluster that cannot grow, so that nobody is asked to make it grow.

    Whom Ray would ask is a process of its own, for which the controller waits before it starts workers.
    """

    def after_controller_start(self, _: Any) -> None:
        """Ask nobody."""

    def _maybe_send_resource_request(self) -> None:
        pass


@dataclass
class KerasBackendConfig(BackendConfig):  # type: ignore[misc]
    """Chooses the backend below.

    Attributes:
        environment: Set in every worker before TensorFlow is imported there.
    """

    environment: dict[str, str]

    @property
    def backend_cls(self) -> type[Backend]:
        """The class that prepares the workers."""
        return KerasBackend


class KerasBackend(Backend):  # type: ignore[misc]
    """Tells every worker who the others are."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Collect the workers' addresses and describe the cluster to each."""
        addresses = worker_group.execute(first_contact, backend_config.environment)
        ray.get(
            [
                worker_group.execute_single_async(rank, describe_cluster, addresses, rank)
                for rank in range(len(worker_group))
            ]
        )


def first_contact(environment: dict[str, str]) -> str:
    """Start to load Keras, and find an address that is free for TensorFlow's server: ``host:port``.

    This is the first code of ours that runs in a worker; loading goes on while Ray prepares the rest.
    """
    os.environ.update(environment)
    threading.Thread(target=load_keras, name="load-keras", daemon=True).start()
    host = get_node_ip_address()
    (port,) = _until_exit.enter_context(held_ports(1, "::" if ":" in host else "0.0.0.0"))  # noqa: S104 - not to listen
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def describe_cluster(addresses: list[str], rank: int) -> None:
    """Set ``TF_CONFIG``, from which TensorFlow learns who the workers are and which of them this is."""
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}})


def wait_for_first_worker() -> None:
    """Come back when the first worker's server listens.

    TensorFlow asks it once, and then not again for a second.
    """
    place = json.loads(os.environ["TF_CONFIG"])
    host, _, port = place["cluster"]["worker"][0].rpartition(":")
    deadline = time.monotonic() + FIRST_WORKER_S
    while place["task"]["index"] != 0 and time.monotonic() < deadline:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
            return
        except OSError:
            time.sleep(0.01)


def load_keras() -> None:
    """Import TensorFlow and Keras, once, without what they would load for nothing."""
    with _loading, _hidden(OPTIONAL_FOR_KERAS):
        gc.disable()  # an import makes hundreds of thousands of objects and hardly any garbage
        import keras  # noqa: F401

        gc.enable()


@contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Let imports of modules fail that nobody has loaded yet."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
