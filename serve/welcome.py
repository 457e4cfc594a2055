"""What ``mnist serve`` says when it is ready: the addresses, and lines to paste."""

from __future__ import annotations

from typing import Any

from mnist_core.config_serve import ServeConfig


def describe(config: ServeConfig, result: dict[str, Any]) -> str:
    """Addresses and ready-made commands.

    Args:
        config: What is served.
        result: ``http``, ``grpc`` and ``model_version``.
    """
    http = result["http"]
    key = ' -H "Authorization: Bearer $MNIST_API_KEY"' if config.api_key_file else ""
    trust = f" --cacert {config.tls_cert_file}" if config.tls_cert_file else ""
    curl = f"curl -s{trust}{key}"
    name = result["model_version"].partition("/")[0]
    return "\n".join(
        [
            f"serving {result['model_version']}; Ctrl-C stops",
            f"  page   {http}/",
            f"  docs   {http}/docs",
            f"  gRPC   {result['grpc']}",
            "",
            "ask it (a picture of a digit, or 784 grey bytes):",
            f"  {curl} {http}/predict -H 'content-type: image/png' --data-binary @digit.png",
            f"  head -c 784 /dev/zero | tr '\\0' '\\200' | {curl} {http}/predict "
            "-H 'content-type: application/octet-stream' --data-binary @-",
            f"  {curl} {http}/v2/models/{name}",
            f"  {curl} {http}/v1/models/{name}",
        ]
    )
