"""What a worker gets of a cluster, and what is said when there is too little."""

from __future__ import annotations

import pytest

from jobs.cluster import WorkerShape, find_places, places, shape_workers
from mnist_core.cluster_address import refuse_dead
from mnist_core.config import TrainConfig
from mnist_core.errors import ResourcesError


def node(cpus, gpus=0):
    return {"CPU": float(cpus), "memory": 1e9, **({"GPU": float(gpus)} if gpus else {})}


class StandIn:
    """Tells the nodes as the ``ray`` module does; a cluster that is hopelessly small is asked for nothing else."""

    def __init__(self, *nodes, dead=()):
        self._nodes = [{"Alive": True, "Resources": one} for one in nodes]
        self._nodes += [{"Alive": False, "Resources": one} for one in dead]

    def nodes(self):
        return self._nodes

    def available_resources(self):
        alive = [one["Resources"] for one in self._nodes if one["Alive"]]
        return {name: sum(one.get(name, 0) for one in alive) for name in ("CPU", "GPU")}


@pytest.mark.parametrize(
    ("options", "nodes", "expected"),
    [
        ({}, [node(1)], WorkerShape(1, 1, 0)),
        ({}, [node(8)], WorkerShape(8, 8, 0)),
        ({"workers": 2}, [node(2)], WorkerShape(1, 1, 0)),
        ({"workers": 2}, [node(8)], WorkerShape(4, 4, 0)),
        ({"workers": 3}, [node(8)], WorkerShape(2, 2, 0)),
        ({"workers": 2}, [node(8), node(4)], WorkerShape(4, 4, 0)),
        ({"workers": 3}, [node(8), node(4)], WorkerShape(4, 4, 0)),
        ({"workers": 4}, [node(8), node(3)], WorkerShape(2, 2, 0)),
        ({"workers": "1:4"}, [node(8)], WorkerShape(2, 2, 0)),
        ({"workers": 9, "batch_size": 999}, [node(8)], WorkerShape(1, 1, 0)),
        ({"workers": 2}, [], WorkerShape(1, 1, 0)),
        ({"workers": 2}, [{"memory": 1e9}], WorkerShape(1, 1, 0)),
        ({"workers": 2, "threads_per_worker": 3}, [node(8)], WorkerShape(3, 3, 0)),
        ({"workers": 2, "cpus_per_worker": 0.5}, [node(2)], WorkerShape(1, 0.5, 0)),
        ({"threads_per_worker": 4, "cpus_per_worker": 0.5}, [node(2)], WorkerShape(4, 0.5, 0)),
        ({"gpu": True}, [node(16, 1)], WorkerShape(16, 16, 1)),
        ({"gpu": True, "workers": 2}, [node(16, 2), node(64)], WorkerShape(8, 8, 1)),
        ({"gpu": True, "workers": 2}, [node(16, 1), node(4, 1)], WorkerShape(4, 4, 1)),
        ({"gpu": True, "workers": 2}, [node(16)], WorkerShape(1, 1, 1)),
    ],
)
def test_workers_share_the_cpus_out_and_all_of_them_fit(options, nodes, expected):
    assert shape_workers(TrainConfig(recipe="notebook", **options), nodes) == expected


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "expected"),
    [
        ([], 1, 0, 0),
        ([node(4)], 1, 0, 4),
        ([node(4)], 3, 0, 1),
        ([node(2), node(2)], 3, 0, 0),  # a worker never spans nodes
        ([node(3), node(3)], 2, 0, 2),
        ([node(2)], 0.5, 0, 4),
        ([node(1)], 0.1, 0, 10),  # binary fractions say 9
        ([node(0.3)], 0.1, 0, 3),
        ([node(8, 1), node(8, 4), node(8)], 4, 1, 3),
    ],
)
def test_places_are_counted_node_by_node(nodes, cpus, gpus, expected):
    assert places(nodes, cpus, gpus) == expected


@pytest.mark.parametrize(
    ("options", "cluster_now", "message"),
    [
        (
            {"workers": 3},
            StandIn(node(2)),
            "asked for 3 workers of 1 CPUs and 0 GPUs each; the nodes have 2 CPUs and 0 GPUs, "
            "of which 2 CPUs and 0 GPUs are free: ",
        ),
        ({"workers": 1, "threads_per_worker": 3}, StandIn(node(2), node(2)), "have 2 CPUs and 0 GPUs; 2 CPUs and"),
        ({"workers": 2, "gpu": True}, StandIn(node(8, 1)), "asked for 2 workers of 1 CPUs and 1 GPUs each"),
        ({"workers": 2}, StandIn(node(1), dead=[node(8)]), "nodes have 1 CPUs and 0 GPUs, of which"),
        ({"workers": 2}, StandIn(), "the nodes have none, of which"),
        ({"workers": "3:4"}, StandIn(node(2)), "asked for 3 workers"),
    ],
)
def test_too_small_a_cluster_is_refused_with_what_was_asked_and_what_there_is(options, cluster_now, message):
    with pytest.raises(ResourcesError) as caught:
        find_places(cluster_now, TrainConfig(recipe="notebook", **options))
    assert message in str(caught.value)
    assert str(caught.value).endswith(
        "ask for fewer --workers or a smaller --cpus-per-worker, or let an autoscaling cluster grow (--resource-wait-s)"
    )


def test_the_address_of_a_dashboard_is_told_from_that_of_a_cluster():
    with pytest.raises(ResourcesError, match=r"expected that of the head as HOST:6379; .* --address http://head:8265"):
        refuse_dead("http://head:8265")
