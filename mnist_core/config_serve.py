"""The configuration of the endpoint."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, PositiveInt, model_validator

from mnist_core.config_cluster import SubmitFields
from mnist_core.config_fields import LocalPath, PredictorFields


class ServeConfig(PredictorFields, SubmitFields):
    """Serve a published model over HTTP and gRPC, from replicas that scale with the load."""

    command: ClassVar[str] = "serve"
    package: ClassVar[str] = "serve"

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 opens the endpoint to the network")
    port: int = Field(8000, ge=0, le=65535, description="HTTP port; 0 takes a free one")
    grpc_port: int = Field(9000, ge=0, le=65535, description="gRPC port; 0 takes a free one")
    api_key_file: LocalPath | None = Field(
        None, description="file with the keys that open the endpoint, one a line; read again when it changes"
    )
    tls_cert_file: LocalPath | None = Field(None, description="PEM file with certificate and key: TLS for both")
    cors_origins: list[str] = Field([], description="web pages of these origins may ask from a browser")
    access_log: LocalPath | None = Field(None, description="file that gets one JSON object a request")

    min_replicas: PositiveInt = Field(1, description="replicas that are always there")
    max_replicas: PositiveInt = Field(4, description="replicas there are at most")
    target_requests: float = Field(
        24.0, gt=0, description="requests in work for which one replica is right; more replicas above, fewer below"
    )
    upscale_delay_s: float = Field(2.0, ge=0, description="seconds of more load before replicas are added")
    downscale_delay_s: float = Field(60.0, ge=0, description="seconds of less load before replicas are taken away")
    cpus_per_replica: float = Field(1.0, gt=0, description="CPUs that Ray reserves for a replica")
    threads: PositiveInt = Field(1, description="threads of a replica's engine")

    max_batch_size: PositiveInt = Field(256, description="images an engine gets at once, whosesoever they are")
    max_queue_images: PositiveInt = Field(4096, description="images that may wait in a replica; more get 503 at once")
    max_request_images: PositiveInt = Field(2048, description="images one request may have")
    max_digits: PositiveInt = Field(64, description="digits a picture may have that is to be split")
    max_body_bytes: PositiveInt = Field(32 * 2**20, description="bytes one request may have")
    request_timeout_s: float = Field(30.0, gt=0, description="seconds after which a request is not computed any more")
    body_timeout_s: float = Field(20.0, gt=0, description="seconds a client may take to send a request")

    @model_validator(mode="after")
    def _check_replicas(self) -> ServeConfig:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"--max-replicas {self.max_replicas}: expected at least --min-replicas {self.min_replicas}"
            )
        return self
