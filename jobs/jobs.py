"""``mnist jobs``: what runs and has run on a Ray cluster; logs, states, and a way to stop."""

from __future__ import annotations

import time
from typing import Any

from jobs.cluster_client import ClusterClient
from mnist_core.config_cluster import JobsConfig


def run(config: JobsConfig) -> dict[str, Any]:
    """Carry the command out.

    Args:
        config: Its configuration.

    Returns:
        A JSON object: ``jobs`` (each with ``job``, ``status``, ``command``, ``started`` and ``seconds``); for logs also
        ``log``, for stop also ``stopped``, which is false where the job had ended before.

    Raises:
        ConfigError: The file with the token is missing, empty, or open to others.
        JobNotFoundError: There is no such job.
        ResourcesError: No cluster answers.
        UnauthorizedError: The cluster does not take the token.
    """
    client = ClusterClient(config)
    if config.job is None:
        return {"jobs": [_describe(info) for info in client.list()]}
    more: dict[str, Any] = {}
    if config.action == "logs":
        more["log"] = client.log(config.job)
    if config.action == "stop":
        more["stopped"] = client.stop(config.job)
    return {"jobs": [_describe(client.info(config.job))], **more}


def render(result: dict[str, Any]) -> str:
    """Put a result of ``run`` in words for a terminal."""
    if "log" in result:
        return str(result["log"])
    if "stopped" in result:
        job = result["jobs"][0]
        return (
            f"{job['job']} is being stopped" if result["stopped"] else f"{job['job']} has ended before: {job['status']}"
        )
    lines = [
        f"{job['job']}  {job['status']:<9}  {job['started']}  {job['seconds']:>7,} s  {job['command']}"
        for job in result["jobs"]
    ]
    return "\n".join(lines) or "no jobs"


def _describe(info: Any) -> dict[str, Any]:
    """One job; Ray's times are milliseconds since 1970."""
    started, ended = (info.start_time or 0) / 1000, (info.end_time or 0) / 1000
    return {
        "job": info.submission_id,
        "status": info.status.value,
        "command": (info.metadata or {}).get("command") or info.entrypoint,
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started)),
        "seconds": round((ended or time.time()) - started) if started else 0,
        "exit_code": info.driver_exit_code,
    }
