"""One validated, frozen configuration object per command. Neither TensorFlow nor Ray is loaded here.

These are plain pydantic models: ``TrainConfig(recipe="notebook", epochs=2)`` works in a notebook and in a test.
``mnist_core.config_sources`` builds them from flags, environment and file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator
from pydantic_settings import CliPositionalArg

from mnist_core.config_bench import BenchEndpointConfig
from mnist_core.config_cluster import SUBMIT_FIELDS, JobsConfig, SubmitFields
from mnist_core.config_fields import (
    CommandConfig,
    DataDirField,
    DatasetFields,
    Fraction,
    LocalPath,
    PredictorFields,
    Slug,
    absolute_storage,
    expand_home,
    is_true,
)
from mnist_core.config_serve import ServeConfig
from mnist_core.recipes import RECIPES
from mnist_core.sampling import RUN_SEEDS


class TrainConfig(DatasetFields, SubmitFields):
    """Train a digit classifier, data-parallel on Ray, evaluate it and publish it."""

    command: ClassVar[str] = "train"

    EXECUTION_FIELDS: ClassVar[frozenset[str]] = SUBMIT_FIELDS | frozenset(
        {
            "storage",
            "json_output",
            "verbose",
            "data_dir",
            "model",
            "run",
            "promote",
            "workers",
            "threads_per_worker",
            "cpus_per_worker",
            "gpu",
            "resource_wait_s",
            "max_failures",
            "steps_per_call",
            "checkpoint_every_s",
            "keep_checkpoints",
        }
    )
    """Fields that say how a run is carried out. All others decide its result, and a resumed run must agree on them."""

    recipe: Literal["notebook", "default", "best", "fast", "tiny"] = Field(
        "default", description="named set of values below: file, environment and flags override it"
    )
    model: Slug = Field("mnist", description="name the trained model is published under")
    run: Slug | None = Field(None, description="name of this run; the same name on the same storage resumes it")
    promote: bool = Field(True, description="make the published version the current one")

    workers: str = Field("1", description="number of data-parallel workers N, or MIN:MAX for an elastic run")
    threads_per_worker: PositiveInt | None = Field(
        None, description="TensorFlow threads of a worker; None shares out the machine's cores"
    )
    cpus_per_worker: float | None = Field(
        None, gt=0, description="CPUs that Ray reserves for a worker; None reserves one a thread"
    )
    gpu: bool = Field(False, description="one GPU a worker, NCCL, XLA")
    resource_wait_s: float = Field(
        0, ge=0, description="seconds to wait for an autoscaling cluster to grow to what is asked"
    )
    max_failures: int = Field(3, ge=0, description="how often lost workers are replaced before the run fails")

    network: Literal["convnet", "deepnet", "tinynet"] = Field("convnet", description="the CNN")
    ensemble: int = Field(
        1, ge=1, le=20, description="CNNs that are trained side by side and published as one model, their mean"
    )
    epochs: PositiveInt = Field(10, description="passes over the training split")
    batch_size: PositiveInt = Field(128, description="global batch: images a step, over all workers")
    micro_batch_size: PositiveInt = Field(
        32, description="images of which a gradient is computed at once; batches are cut into these, workers share them"
    )
    learning_rate: float = Field(1e-3, gt=0, description="Adam's rate, or the peak of the schedule")
    schedule: Literal["constant", "one-cycle"] = Field("constant", description="learning rate over the run")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay (AdamW) on kernels")
    label_smoothing: Fraction = Field(0.0, description="share of a label spread over all classes")
    dropout: Fraction = Field(0.5, description="share of units dropped before the last layer, drawn per sample")
    augment: Literal["none", "affine", "wild"] = Field(
        "none",
        description="random distortion, drawn per sample; wild: one in 16 spoiled too, like scans and photos, but for "
        "every other member of an ensemble",
    )
    ema_decay: Fraction = Field(0.0, description="decay of the weight average that is published; 0: no averaging")
    precision: Literal["float32", "bfloat16", "mixed"] = Field(
        "float32",
        description="mixed (--gpu's default): bfloat16 arithmetic; bfloat16: the weights in it rounded too",
    )
    seed: int = Field(0, ge=0, lt=RUN_SEEDS, description="everything random in the run follows from it")
    validation_fraction: float = Field(
        0.1, gt=0, lt=0.9, description="share of the training set held out for validation"
    )
    select: Literal["best", "last"] = Field(
        "last", description="publish the epoch with the best validation accuracy, or the last one"
    )

    steps_per_call: PositiveInt = Field(25, description="optimizer steps in one TensorFlow call")
    checkpoint_every_s: float = Field(30.0, gt=0, description="seconds between checkpoints within an epoch")
    keep_checkpoints: int = Field(3, ge=2, description="how many checkpoints stay on the storage")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_recipe(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # An unknown recipe of any type is left to the field's own check.
        recipe = str(values.get("recipe", cls.model_fields["recipe"].default))
        on_gpu = {"precision": "mixed"} if is_true(values.get("gpu")) else {}
        return {**RECIPES.get(recipe, {}), **on_gpu, **values}

    @field_validator("workers", mode="before")
    @classmethod
    def _check_workers(cls, value: Any) -> str:
        match = re.fullmatch(r"([1-9][0-9]{0,3})(?::([1-9][0-9]{0,3}))?", str(value))
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError("a number of workers such as 2, or MIN:MAX such as 1:4, from 1 to 9999")
        return str(value)

    @model_validator(mode="after")
    def _check_batch_size(self) -> TrainConfig:
        micro_batches = -(-self.batch_size // self.micro_batch_size)
        if micro_batches < self.max_workers:
            raise ValueError(
                f"--batch-size {self.batch_size} is the global batch: received {micro_batches} micro-batches of "
                f"--micro-batch-size {self.micro_batch_size} for {self.max_workers} workers, expected at least one each"
            )
        return self

    @property
    def min_workers(self) -> int:
        """The number of workers the run needs."""
        return int(self.workers.split(":")[0])

    @property
    def max_workers(self) -> int:
        """The number of workers the run can use."""
        return int(self.workers.split(":")[-1])

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change during the run."""
        return ":" in self.workers

    def identity(self) -> dict[str, Any]:
        """The values that decide the result, for the check that a resumed run is the same run."""
        return {
            name: value for name, value in self.model_dump(mode="json").items() if name not in self.EXECUTION_FIELDS
        }


class EvaluateConfig(DatasetFields, SubmitFields):
    """Evaluate a published model on a labelled dataset, from exact counts."""

    command: ClassVar[str] = "evaluate"

    model: CliPositionalArg[str] = Field(description="NAME (its current version), NAME/VERSION, or an artifact folder")
    split: Literal["train", "test", "all"] = Field(
        "test", description="which split of a dataset that has two; all: both together"
    )
    workers: PositiveInt = Field(1, description="Ray tasks to spread the images over; 1 runs without Ray")
    threads: PositiveInt | None = Field(None, description="threads of the engine; None takes all cores")
    output: LocalPath | None = Field(None, description="new folder for evaluation.json, report.html and the plots")


class PredictConfig(PredictorFields, CommandConfig):
    """Read the digit of single images: files, or - for standard input."""

    command: ClassVar[str] = "predict"

    images: CliPositionalArg[list[str]] = Field(min_length=1, description="image files; - reads standard input")
    split_digits: bool = Field(False, description="read all digits of each picture, line by line, each with its box")
    max_digits: PositiveInt = Field(64, description="with --split: digits that a picture may have")
    threads: PositiveInt | None = Field(None, description="threads of the engine; None takes all cores")


class ScoreConfig(PredictorFields, SubmitFields):
    """Score datasets of images in batch on Ray: one row an image, every image accounted for."""

    command: ClassVar[str] = "score"

    EXECUTION_FIELDS: ClassVar[frozenset[str]] = SUBMIT_FIELDS | frozenset(
        {
            "storage",
            "json_output",
            "verbose",
            "paths",
            "model",
            "device",
            "workers",
            "cpus_per_worker",
            "max_bad_fraction",
            "resume",
        }
    )
    """Fields that do not decide what is in the rows. A resumed job must agree on all others, and on its inputs."""

    paths: CliPositionalArg[list[str]] = Field(
        description="INPUT... OUTPUT. Inputs: folders, globs, image files, IDX, .npy, .npz, Parquet, tar shards, lists "
        "of files (.txt), local or s3://; the output: a new folder or s3:// prefix",
    )
    format: Literal["parquet", "csv", "jsonl"] = Field("parquet", description="of the output")
    probabilities: bool = Field(False, description="also write the probability of each digit")
    labels: str | None = Field(None, description="file with the true labels of the one IDX or .npy input")
    image_column: str | None = Field(None, description="of Parquet inputs; None looks for image, bytes, data, content")
    label_column: str | None = Field(None, description="of Parquet inputs; None looks for label, labels, digit")
    id_column: str | None = Field(None, description="of Parquet inputs; None calls rows by file and index")
    max_bad_fraction: float = Field(
        0.05, ge=0, le=1, description="the job fails at its end, with its output kept, if more items than this are bad"
    )
    resume: bool = Field(False, description="finish the job that began in OUTPUT and was stopped")
    workers: PositiveInt | None = Field(None, description="actors that score; None takes one for each CPU")
    cpus_per_worker: float = Field(1.0, gt=0, description="CPUs that Ray reserves for an actor")

    @field_validator("paths")
    @classmethod
    def _check_paths(cls, value: list[str]) -> list[str]:
        if len(value) < 2:
            raise ValueError("INPUT... OUTPUT: one input at least, and the new folder for the output")
        for each in value[:-1]:  # what cannot be used is refused now
            if each.startswith("~"):
                expand_home(Path(each))
        absolute_storage(value[-1])
        return value

    @property
    def inputs(self) -> list[str]:
        """What is scored."""
        return self.paths[:-1]

    @property
    def output(self) -> str:
        """Where the rows go: an absolute folder or a URI."""
        return absolute_storage(self.paths[-1])

    def identity(self) -> dict[str, Any]:
        """The values that decide the rows, for the check that a resumed job is the same job."""
        fields = self.model_dump(mode="json", exclude=set(self.EXECUTION_FIELDS))
        relative = any("://" not in each and not Path(each.removeprefix("@")).is_absolute() for each in self.inputs)
        return {**fields, "inputs": self.inputs, "working_directory": str(Path.cwd()) if relative else None}


class DataConfig(DataDirField, CommandConfig):
    """List the known datasets, fetch one into the cache, or show what one holds."""

    command: ClassVar[str] = "data"

    action: CliPositionalArg[Literal["list", "fetch", "info"]] = Field(description="list, fetch or info")
    name: CliPositionalArg[str | None] = Field(None, description="a dataset's name or path")


class ModelsConfig(CommandConfig):
    """List, show, promote, roll back and verify published models."""

    command: ClassVar[str] = "models"

    action: CliPositionalArg[Literal["list", "show", "promote", "rollback", "verify"]] = Field(
        description="list, show, promote, rollback or verify"
    )
    target: CliPositionalArg[str | None] = Field(None, description="NAME or NAME/VERSION; a number alone means mnist/N")


COMMANDS: Final[tuple[type[CommandConfig], ...]] = (
    TrainConfig,
    EvaluateConfig,
    PredictConfig,
    ScoreConfig,
    ServeConfig,
    BenchEndpointConfig,
    JobsConfig,
    DataConfig,
    ModelsConfig,
)
"""Every command's configuration."""
