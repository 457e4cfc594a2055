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
    trust = f" --cacert {config.tls_cert_file}" if config.tls_cert_file else ""
    key = ' -H "Authorization: Bearer $MNIST_API_KEY"' if config.api_key_file else ""
    get, ask = f"curl -s{trust}", f"curl -s{trust}{key}"
    name = result["model_version"].partition("/")[0]
    picture = f"{get} {http}/docs/five.png"
    return "\n".join(
        [
            f"serving {result['model_version']}; Ctrl-C stops",
            f"  page   {http}/",
            f"  docs   {http}/docs",
            f"  gRPC   {result['grpc']}",
            "",
            "ask it; put --data-binary @FILE for a picture of your own:",
            f"  {picture} | {ask} {http}/predict -H 'content-type: image/png' --data-binary @-",
            f'  (printf \'{{"instances":[{{"b64":"\'; {picture} | base64 -w0; printf \'"}}]}}\')'
            f" | {ask} {http}/v1/models/{name}:predict --data-binary @-",
            f"  {ask} {http}/v2/models/{name}",
        ]
    )
