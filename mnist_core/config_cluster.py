"""The configuration of what runs on a Ray cluster elsewhere, and of ``mnist jobs``."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import CliPositionalArg

from mnist_core.config_fields import CommandConfig, LocalPath


def _address(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@]+/?", value):
        raise ValueError("the address of a cluster's dashboard, such as http://127.0.0.1:8265")
    return value.rstrip("/")


class ClusterFields(CommandConfig):
    """Which cluster, shared by the commands that talk to one."""

    address: Annotated[str, AfterValidator(_address)] | None = Field(
        None, description="http://HOST:8265 of a Ray cluster's dashboard: carry the command out there, as a Ray job"
    )
    token_file: LocalPath | None = Field(
        None, description="file with that cluster's token, for its owner's eyes only; None looks where Ray does"
    )


class SubmitFields(ClusterFields):
    """Shared by the commands that can be carried out on a cluster."""

    detach: bool = Field(False, description="with --address: print the job's id and leave it running, see mnist jobs")


SUBMIT_FIELDS: Final = frozenset({"address", "token_file", "detach"})
"""They say where a command is carried out and are none of its own business."""


class JobsConfig(ClusterFields):
    """List the jobs of a Ray cluster, show one's log or state, or stop it."""

    command: ClassVar[str] = "jobs"

    action: CliPositionalArg[Literal["list", "logs", "status", "stop"]] = Field(
        description="list, logs, status or stop"
    )
    job: CliPositionalArg[str | None] = Field(None, description="id of a job; not for list")

    @model_validator(mode="after")
    def _check(self) -> JobsConfig:
        if self.address is None:
            raise ValueError("--address (or MNIST_ADDRESS): missing; the cluster's, such as http://127.0.0.1:8265")
        if (self.job is None) != (self.action == "list"):
            raise ValueError(f"JOB: received {self.job!r}, expected an id for logs, status and stop, none for list")
        return self
