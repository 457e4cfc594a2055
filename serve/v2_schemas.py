"""The shapes of what the Open Inference Protocol V2 reads and answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from serve.schemas import absent

Count = Annotated[int, Field(ge=0)]


class V2Server(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class V2Live(BaseModel):
    """The server is alive."""

    live: Literal[True]


class V2Ready(BaseModel):
    """The server is ready."""

    ready: Literal[True]


class V2ModelReady(V2Ready):
    """The model is ready."""

    name: str


class V2Described(BaseModel):
    """An input or output; -1 in a shape is the number of images."""

    name: str
    datatype: str
    shape: list[int]


class V2Model(BaseModel):
    """What the model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[V2Described]
    outputs: list[V2Described]


class V2InputParameters(BaseModel):
    """How an input comes."""

    binary_data_size: Count | None = Field(None, description="bytes after the JSON, if not data")


class V2Input(BaseModel):
    """What all forms of the model's input have."""

    name: Literal["images"]
    data: list[Any] = Field([], description="flat, or nested like the shape", json_schema_extra=absent)
    parameters: V2InputParameters | None = None


class V2Pixels(V2Input):
    """Pixels: 0 to 255, or 0 to 1 as FP32 where an image has nothing above 1."""

    datatype: Literal["UINT8", "FP32"]
    shape: (
        tuple[Count, Literal[28], Literal[28]]
        | tuple[Count, Literal[28], Literal[28], Literal[1]]
        | tuple[Count, Literal[784]]
    )


class V2Files(V2Input):
    """Image files, in base64."""

    datatype: Literal["BYTES"]
    shape: tuple[Count] | tuple[Count, Literal[1]]


class V2WantedParameters(BaseModel):
    """How an output is wanted."""

    binary_data: bool = False


class V2Wanted(BaseModel):
    """An output that is asked for."""

    name: Literal["probabilities", "digit", "confidence", "rejected"]
    parameters: V2WantedParameters | None = None


class V2RequestParameters(BaseModel):
    """How all outputs are wanted."""

    binary_data_output: bool = False


class V2Request(BaseModel):
    """Images to classify."""

    id: str | None = Field(None, description="comes back with the answer")
    parameters: V2RequestParameters | None = None
    inputs: list[V2Pixels | V2Files] = Field(min_length=1, max_length=1)
    outputs: list[V2Wanted] | None = Field(None, description="all of them, if none is named")


class V2Output(BaseModel):
    """One output, flat."""

    name: str
    datatype: Literal["FP32", "INT64", "BOOL"]
    shape: list[int]
    data: list[bool | int | float] = Field([], description="not there in binary form", json_schema_extra=absent)
    parameters: dict[str, int] = Field({}, json_schema_extra=absent)


class V2Reply(BaseModel):
    """What the model says of the images."""

    model_name: str
    model_version: str
    id: str | SkipJsonSchema[None] = Field(None, json_schema_extra=absent)
    outputs: list[V2Output]
