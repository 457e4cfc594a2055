"""What a worker gets of a cluster, and what is said when there is too little."""

from __future__ import annotations

import pytest

from jobs import cluster
from jobs.cluster import WorkerShape, find_places, places, shape_workers
from mnist_core.config import TrainConfig
from mnist_core.errors import ResourcesError


def node(cpus, gpus=0):
    return {"CPU": float(cpus), "memory": 1e9, **({"GPU": float(gpus)} if gpus else {})}


class StandIn:
    """Answers like the ``ray`` module; a list of clusters is one that changes each time it is looked at."""

    def __init__(self, *nodes, free=None, dead=(), later=()):
        self._seen = [list(nodes), *later]
        self._free = free
        self._dead = list(dead)

    def nodes(self):
        alive = self._seen.pop(0) if len(self._seen) > 1 else self._seen[0]
        self._now = alive
        return [{"Alive": True, "Resources": one} for one in alive] + [
            {"Alive": False, "Resources": one} for one in self._dead
        ]

    def available_resources(self):
        if self._free is not None:
            return self._free
        return {name: sum(one.get(name, 0) for one in self._now) for name in ("CPU", "GPU")}


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
    ("options", "nodes"),
    [
        ({"workers": 2}, [node(2)]),
        ({"workers": 2}, [node(1), node(1)]),
        ({"workers": 2, "cpus_per_worker": 0.5}, [node(1)]),
        ({"workers": "1:8", "cpus_per_worker": 1}, [node(1)]),
        ({"workers": 2, "gpu": True}, [node(2, 1), node(2, 1)]),
    ],
)
def test_a_cluster_with_room_is_taken_at_once(options, nodes):
    config = TrainConfig(recipe="notebook", **options)
    assert find_places(StandIn(*nodes), config) == shape_workers(config, nodes)


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
        ({"workers": 2}, StandIn(node(2), free={"CPU": 1.0}), "of which 1 CPUs and 0 GPUs are free"),
        ({"workers": 1, "gpu": True}, StandIn(node(4, 1), free={"CPU": 4.0}), "of which 4 CPUs and 0 GPUs are free"),
        ({"workers": 2}, StandIn(node(1), dead=[node(8)]), "nodes have 1 CPUs and 0 GPUs, of which"),
        ({"workers": 2}, StandIn(), "nodes have none"),
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


def test_a_cluster_that_grows_in_time_is_waited_for_and_asked_to(monkeypatch):
    asked = []
    monkeypatch.setattr(cluster, "POLL_S", 0)
    monkeypatch.setattr(cluster, "_ask_for_nodes", lambda num_workers, shape: asked.append((num_workers, shape)))
    growing = StandIn(node(1), later=[[node(1)], [node(1), node(2)]])
    config = TrainConfig(recipe="notebook", workers=3, threads_per_worker=1, resource_wait_s=60)
    assert find_places(growing, config) == WorkerShape(1, 1, 0)
    assert asked == [(3, WorkerShape(1, 1, 0))] * 2 + [(0, WorkerShape(1, 1, 0))], "taken back at the end"
