"""Ray's ``TensorflowTrainer`` without what it loads for nothing.

Importing ``ray.train.tensorflow`` imports TensorFlow and Keras, and it is imported by the driver, by the controller
and by every worker before it may do anything else. None of the first two needs TensorFlow: this trainer is Ray's own
class with a backend that lives here. What the backend does is what Ray's does, describe the cluster in ``TF_CONFIG``,
less the switch to Keras 2 (``TF_USE_LEGACY_KERAS``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import ray
from ray.train import BackendConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.tensorflow.tensorflow_trainer import TensorflowTrainer
from ray.util import get_node_ip_address


class KerasTrainer(TensorflowTrainer):  # type: ignore[misc]
    """Runs a function on every worker of a TensorFlow cluster.

    Args:
        worker: Runs on every worker, with ``payload``.
        payload: The worker's argument; large values as object references.
        scaling: Number of workers and what each reserves.
        run: Name, storage and failure handling.
    """

    def __init__(
        self,
        worker: Callable[[dict[str, Any]], None],
        payload: dict[str, Any],
        *,
        scaling: ScalingConfig,
        run: RunConfig,
    ) -> None:
        # Not super().__init__: TensorflowTrainer's imports TensorFlow, and adds nothing but its backend.
        DataParallelTrainer.__init__(
            self,
            worker,
            train_loop_config=payload,
            backend_config=KerasBackendConfig(),
            scaling_config=scaling,
            run_config=run,
        )


class KerasBackendConfig(BackendConfig):  # type: ignore[misc]
    """Chooses the backend below."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The class that prepares the workers."""
        return KerasBackend


class KerasBackend(Backend):  # type: ignore[misc]
    """Tells every worker who the others are."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Collect the workers' addresses and describe the cluster to each."""
        del backend_config
        addresses = worker_group.execute(free_address)
        ray.get(
            [
                worker_group.execute_single_async(rank, describe_cluster, addresses, rank)
                for rank in range(len(worker_group))
            ]
        )


def free_address() -> str:
    """Find an address of this worker that is free for TensorFlow's server: ``host:port``."""
    import socket

    host = get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def describe_cluster(addresses: list[str], rank: int) -> None:
    """Set ``TF_CONFIG``, from which TensorFlow learns who the workers are and which of them this is."""
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}})
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
