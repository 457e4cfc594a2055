"""The three commands on three hosts, by ``--address``."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_up(cluster):
    assert len(cluster.nodes()) == 3
