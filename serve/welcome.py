"""What ``mnist serve`` says when it is ready: the addresses, and lines to paste."""

from __future__ import annotations

from typing import Any

from mnist_core.config_serve import ServeConfig


def lines_to_paste(config: ServeConfig, http: str, name: str) -> list[str]:
    """Ready-made commands.

    Args:
        config: What is served.
        http: The endpoint's address.
        name: Of the model.
    """
    trust = f" --cacert {config.tls_cert_file}" if config.tls_cert_file else ""
    key = ' -H "Authorization: Bearer $API_KEY"' if config.api_key_file else ""
    get, ask = f"curl -s{trust}", f"curl -s{trust}{key}"
    picture = f"{get} {http}/docs/five.png"
    return [
        f"{picture} | {ask} {http}/predict -H 'content-type: image/png' --data-binary @-",
        f'(printf \'{{"instances":[{{"b64":"\'; {picture} | base64 -w0; printf \'"}}]}}\')'
        f" | {ask} {http}/v1/models/{name}:predict --data-binary @-",
        f"{ask} {http}/v2/models/{name}",
    ]


def describe(result: dict[str, Any]) -> str:
    """The same in words.

    Args:
        result: ``http``, ``grpc``, ``model_version`` and ``try`` (the ready-made commands).
    """
    http = result["http"]
    return "\n".join(
        [
            f"serving {result['model_version']}; Ctrl-C stops",
            f"  page   {http}/",
            f"  docs   {http}/docs",
            f"  gRPC   {result['grpc']}",
            "",
            "lines to paste; --data-binary @photo.jpg in place of @- asks for a picture of yours:",
            *(f"  {line}" for line in result["try"]),
        ]
    )
