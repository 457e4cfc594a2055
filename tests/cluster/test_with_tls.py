"""Nodes on several hosts that speak TLS with each other, with certificates of an authority of the test's own."""

from __future__ import annotations

import numpy as np
import pytest
from authority import speaks_tls, tls_variables
from conftest import restarted
from requests_to import PIXELS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_nodes_of_several_hosts_speak_tls(cluster, tmp_path):
    addresses = [host.address for host in [cluster.head, *cluster.workers]]
    variables = tls_variables(tmp_path, addresses)
    images = cluster.storage / "images-by-tls.npy"
    np.save(images, PIXELS)
    with restarted(cluster, tmp_path, variables):
        for address, port in [(addresses[0], 6379), *((address, 8077) for address in addresses)]:
            assert speaks_tls(f"{address}:{port}", variables)
        two_nodes = ["--workers", "2", "--cpus-per-worker", "1.5"]
        output = str(cluster.storage / "scored-by-tls")
        result = cluster.result("score", "--storage", str(cluster.storage), *two_nodes, str(images), output)
        assert result["items"] == len(PIXELS)
