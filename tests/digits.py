"""Networks and real digits for the tests of what is published: nothing trained, nothing downloaded."""

from __future__ import annotations

from functools import cache

import numpy as np

from mnist_core.datasets import load_dataset
from mnist_core.splits import Split

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (101, 28, 28), dtype=np.uint8)


@cache
def splits() -> tuple[Split, Split]:
    """Training and validation digits, 500 and 200."""
    train, test = load_dataset("uci-digits").train, load_dataset("uci-digits").test
    return Split(train.images[:500], train.labels[:500]), Split(test.images[:200], test.labels[:200])


@cache
def exported(name: str):
    """Files and measurements of that network, calibrated; made once for all tests."""
    from mnist_core.export import export_calibrated

    return export_calibrated(make_network(name), *splits(), seed=0)


@cache
def make_network(name: str):
    """A network whose weights have all left their initial values, biases and scales too.

    Args:
        name: Of a network, or ``convnet x 3``: an ensemble of three.
    """
    from mnist_core.model import build_training_network

    rng = np.random.default_rng(1)
    alone, _, members = name.partition(" x ")
    network = build_training_network(alone, dropout=0.5, precision="float32", seed=3, members=int(members or 1))
    network.set_weights([weight + 0.1 * rng.normal(size=weight.shape) for weight in network.get_weights()])
    return network
