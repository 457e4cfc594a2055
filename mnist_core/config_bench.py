"""The configuration of the load on an endpoint."""

from __future__ import annotations

from typing import ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, PositiveInt, model_validator
from pydantic_settings import CliPositionalArg

from mnist_core.config_fields import CommandConfig, LocalPath, Slug


class BenchEndpointConfig(CommandConfig):
    """Put load on an endpoint and measure it: requests a second, latencies, errors by code."""

    command: ClassVar[str] = "bench-endpoint"
    package: ClassVar[str] = "serve"

    url: CliPositionalArg[str] = Field(description="http://HOST:PORT or https://HOST:PORT; for gRPC also HOST:PORT")
    protocol: Literal["predict", "v2", "v2-binary", "tfs", "grpc"] = Field(
        "predict",
        description="predict: raw pixels to /predict; v2, v2-binary and grpc: the Open Inference Protocol as JSON, as "
        "binary tensors and over gRPC; tfs: TensorFlow Serving's JSON",
    )
    model: Slug = Field("mnist", description="name the model is served under")
    connections: PositiveInt = Field(32, description="connections, each with one request at a time")
    seconds: float = Field(10.0, gt=0, description="of measuring")
    warmup_s: float = Field(2.0, ge=0, description="seconds of load before that")
    images: PositiveInt = Field(1, description="images in one request")
    rate: float | None = Field(
        None,
        gt=0,
        description="requests a second to send, whether answers come or not; None: each connection's next request "
        "follows its answer",
    )
    timeout_s: float = Field(10.0, gt=0, description="seconds after which an answer is not waited for any more")
    api_key_file: LocalPath | None = Field(None, description="file whose first key goes with each request")

    @model_validator(mode="after")
    def _check_url(self) -> BenchEndpointConfig:
        expected = "http://HOST:PORT or https://HOST:PORT" + (", or HOST:PORT" if self.protocol == "grpc" else "")
        parts = self.address
        try:
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # the port is no number or too high
            usable = False
        if not usable or parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
            raise ValueError(f"URL: received {self.url!r}, expected {expected} and nothing behind it")
        return self

    @property
    def address(self) -> SplitResult:
        """The URL's parts; without a scheme it is plain HTTP's."""
        bare = self.protocol == "grpc" and "://" not in self.url
        return urlsplit(f"http://{self.url}" if bare else self.url)
