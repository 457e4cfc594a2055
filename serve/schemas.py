"""The shapes of what the endpoint reads and answers, for its OpenAPI document.

Requests are not read with these models: a list of 2,048 images would take them a second.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema


def absent(schema: dict[str, Any]) -> None:
    """An optional field is left out, it is not null."""
    schema.pop("default")


Probability = Annotated[float, Field(ge=0, le=1)]
Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
Grey = Annotated[float, Field(ge=0, le=255)]
Row = Annotated[list[Grey], Field(min_length=28, max_length=28)]
Rows = Annotated[list[Row], Field(min_length=28, max_length=28)]
DeepRow = Annotated[list[Annotated[list[Grey], Field(min_length=1, max_length=1)]], Field(min_length=28, max_length=28)]
DeepRows = Annotated[list[DeepRow], Field(min_length=28, max_length=28)]
Flat = Annotated[list[Grey], Field(min_length=784, max_length=784)]


class Digit(BaseModel):
    """What the model says of one image."""

    digit: int = Field(ge=0, le=9, description="the most probable digit")
    confidence: Probability = Field(description="its probability, calibrated")
    probabilities: list[Probability] = Field(min_length=10, max_length=10, description="of the digits 0 to 9")
    rejected: bool = Field(description="the image does not look like a digit at all")


class Remark(BaseModel):
    """What is to be known of an image though it has a digit."""

    code: str = Field(description="for programs", examples=["first_frame_only"])
    message: str = Field(description="for people: received, expected, what was done")


class Remarked(BaseModel):
    """What may be told of an image."""

    remark: Remark | SkipJsonSchema[None] = Field(
        None, description="of an image of several frames or pages: only the first was read", json_schema_extra=absent
    )


class SeenDigit(Digit):
    """What the model says of a digit, and what it saw if that was asked for."""

    pixels: Base64 | SkipJsonSchema[None] = Field(
        None,
        description="with pixels=1: the 784 grey pixels that the model saw, row by row, white on black",
        json_schema_extra=absent,
    )


class Prediction(SeenDigit, Remarked):
    """What the model says of one image."""


class Box(BaseModel):
    """Where a digit is in the upright picture, in its pixels."""

    x: int = Field(ge=0, description="left")
    y: int = Field(ge=0, description="top")
    w: int = Field(ge=1, description="width")
    h: int = Field(ge=1, description="height")


class CutDigit(SeenDigit):
    """One digit of a picture of several."""

    line: int = Field(ge=0, description="which line it is in, from the top")
    box: Box


class Line(Remarked):
    """All digits of a picture, line by line, from left to right."""

    text: str = Field(
        description="all of them, with a line break between two lines; ? for one that is rejected", examples=["90210"]
    )
    digits: list[CutDigit] = Field(min_length=1)


class Problem(BaseModel):
    """What is wrong."""

    code: str = Field(description="for programs", examples=["bad_request"])
    message: str = Field(description="for people: received, expected, how to fix it")


class BadImage(BaseModel):
    """One image among several that is none; the others have their predictions."""

    error: Problem


class Predictions(BaseModel):
    """One prediction an image, in their order."""

    predictions: list[Prediction | BadImage] = Field(min_length=1)
    model_version: str = Field(description="the model that computed all of it", examples=["mnist/1"])


class SplitPredictions(BaseModel):
    """With split=true: one prediction a picture, in their order."""

    predictions: list[Line | BadImage] = Field(min_length=1)
    model_version: str = Field(description="the model that computed all of it", examples=["mnist/1"])


class RequestProblem(Problem):
    """What is wrong with a request."""

    request_id: str = Field(description="also in the header X-Request-Id, and in the logs")


class Failure(BaseModel):
    """The answer to a request that failed."""

    error: RequestProblem


class FailureLine(BaseModel):
    """The answer to a request that failed, as other protocols have it."""

    error: str = Field(description="received, expected, how to fix it")


class EncodedImages(BaseModel):
    """Image files in base64."""

    images: list[Base64] = Field(min_length=1)


class TfsFile(BaseModel):
    """An image file."""

    model_config = ConfigDict(extra="forbid")

    b64: Base64 = Field(description="PNG, JPEG, BMP, GIF, WebP or TIFF")


TfsPixels = Rows | DeepRows | Flat


class TfsNamed(BaseModel):
    """An image under the name of the model's input."""

    model_config = ConfigDict(extra="forbid")

    image: TfsFile | TfsPixels


class TfsRequest(BaseModel):
    """What both formats have."""

    signature_name: Literal["serving_default", ""] = "serving_default"


class TfsInstances(TfsRequest):
    """Images by row; pixels are 0 to 255, or 0 to 1 where an image has nothing above 1."""

    instances: list[TfsFile | TfsNamed | TfsPixels] = Field(min_length=1)


class TfsImageColumn(BaseModel):
    """The model's only input."""

    model_config = ConfigDict(extra="forbid")

    image: list[TfsFile | TfsPixels] = Field(min_length=1)


class TfsInputs(TfsRequest):
    """Images by column; pixels are 0 to 255, or 0 to 1 where an image has nothing above 1."""

    inputs: TfsImageColumn | Annotated[list[TfsFile | TfsPixels], Field(min_length=1)]


class TfsPredictions(BaseModel):
    """One prediction an instance."""

    predictions: list[Digit]


class TfsColumns(BaseModel):
    """One element of every column an image."""

    digit: list[Annotated[int, Field(ge=0, le=9)]]
    confidence: list[Probability]
    probabilities: list[Annotated[list[Probability], Field(min_length=10, max_length=10)]]
    rejected: list[bool]


class TfsOutputs(BaseModel):
    """Predictions by column."""

    outputs: TfsColumns


class TfsRefusal(BaseModel):
    """Nothing is wrong."""

    error_code: Literal["OK"]
    error_message: str


class TfsVersion(BaseModel):
    """One version of the model."""

    version: str
    state: Literal["AVAILABLE"]
    status: TfsRefusal


class TfsStatus(BaseModel):
    """The version that was asked for."""

    model_version_status: list[TfsVersion] = Field(min_length=1, max_length=1)


class TfsModel(BaseModel):
    """Which model this is."""

    name: str
    signature_name: str
    version: str


class TfsMetadata(BaseModel):
    """The model's inputs and outputs."""

    model_spec: TfsModel
    metadata: dict[Literal["signature_def"], dict[str, Any]]
