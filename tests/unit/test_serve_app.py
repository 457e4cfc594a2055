"""What Ray Serve is told about the deployment."""

from __future__ import annotations

import pytest

from mnist_core.config_serve import ServeConfig
from serve.app import GRACE_S, deployment


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")  # of Ray, about itself
@pytest.mark.parametrize(("timeout_s", "grace_s"), [(1.0, GRACE_S), (30.0, 35.0), (300.0, 305.0)])
def test_a_replica_that_leaves_has_time_for_the_longest_request_it_may_have(timeout_s: float, grace_s: float):
    application = deployment(ServeConfig(request_timeout_s=timeout_s))
    assert application._bound_deployment._deployment_config.graceful_shutdown_timeout_s == grace_s
