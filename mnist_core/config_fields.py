"""What the configurations of the commands share: types of values, and fields that several commands have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError

DEFAULT_STORAGE: Final = "storage"
SLUG: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""What a model or a run may be called: it becomes one folder name below the storage, never more."""


def absolute_storage(value: str) -> str:
    """Make a storage folder absolute, since workers run in another working directory."""
    if not value:
        raise ValueError("a folder or an s3://, gs:// URI")
    return value if "://" in value else str(expand_home(Path(value)).absolute())


def expand_home(path: Path) -> Path:
    """Put the home folder in the place of a leading ``~``.

    Raises:
        ValueError: There is none: no such user, or no HOME. The message says what was expected.
    """
    try:
        return path.expanduser()
    except RuntimeError as err:
        raise ValueError("a path whose '~' is a known home folder (write it in full, or set HOME)") from err


def is_true(value: Any) -> bool:
    """Whether a bool field makes it True: ``1``, ``"y"`` and more do. What the field refuses is left to its check."""
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        return False


def _slug(value: str) -> str:
    if not re.fullmatch(SLUG, value):
        raise ValueError("a name of letters, digits, '.', '_' and '-', at most 100, the first a letter or digit")
    return value


def _absolute_path(value: Path) -> Path:
    return expand_home(value).absolute()


Storage = Annotated[str, AfterValidator(absolute_storage)]
Slug = Annotated[str, AfterValidator(_slug)]
LocalPath = Annotated[Path, AfterValidator(_absolute_path)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class CommandConfig(BaseModel):
    """What every command understands."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    command: ClassVar[str]
    """The words that start this command after ``mnist``."""

    package: ClassVar[str] = "jobs"
    """Where the module is that carries it out."""

    storage: Storage = Field(
        DEFAULT_STORAGE,
        validate_default=True,
        description="folder or s3://, gs:// URI that keeps runs, checkpoints and models",
    )
    json_output: bool = Field(False, description="print one JSON object as the last line of stdout")
    verbose: bool = Field(False, description="let TensorFlow and Ray say what they have to say")


class DataDirField(BaseModel):
    """Where a named dataset may already lie."""

    data_dir: LocalPath | None = Field(
        None, description="folder with the named dataset's IDX files, looked at before the cache and the network"
    )


class DatasetFields(DataDirField):
    """How a dataset is named, shared by the commands that learn from or score one."""

    dataset: str = Field(
        "mnist",
        description="mnist, fashion-mnist, uci-digits, a class folder, an .npz, or a folder with IDX files",
    )


class PredictorFields(BaseModel):
    """How a model is run and what it is given, shared by the commands that read images."""

    model: str = Field("mnist", description="NAME (its current version), NAME/VERSION, or an artifact folder")
    device: Literal["auto", "cpu", "gpu"] = Field(
        "cpu", description="what the model runs on; a GPU changes the last bits of answers; auto: a GPU if there is one"
    )
    precision: Literal["float32", "int8"] = Field(
        "float32", description="int8: the smaller model, where it is published"
    )
    max_image_bytes: PositiveInt = Field(10 * 2**20, description="larger images are refused unread")
    max_image_pixels: PositiveInt = Field(40_000_000, description="images of more pixels are refused undecoded")
