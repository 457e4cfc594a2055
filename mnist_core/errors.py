"""One tree of exceptions for the whole system.

Every class carries a stable ``code`` slug for machines; the message is one line for people: what was
received, what was expected, how to fix it. Each constructor takes that one message, because Ray pickles
exceptions between processes.
"""

from __future__ import annotations

from typing import ClassVar


class MnistError(Exception):
    """Base class: raised when a command cannot do what was asked, for a reason its user can act on."""

    code: ClassVar[str] = "error"


class ConfigError(MnistError):
    """Raised when a flag, environment variable or configuration file is refused (exit code 2)."""

    code = "bad_config"


class DatasetError(MnistError):
    """Raised when a dataset's files are present but wrong: torn, of another format, or inconsistent."""

    code = "bad_dataset"


class DatasetNotFoundError(DatasetError):
    """Raised when a dataset is neither on disk nor downloadable."""

    code = "dataset_not_found"


class ImageError(MnistError):
    """Raised when the bytes of one image cannot be turned into a digit."""

    code = "bad_image"


class ImageEmptyError(ImageError):
    """Raised when an image has no bytes."""

    code = "image_empty"


class ImageTruncatedError(ImageError):
    """Raised when the end of an image file is missing."""

    code = "image_truncated"


class NotAnImageError(ImageError):
    """Raised when bytes are no PNG, JPEG, BMP, GIF, WebP or TIFF file."""

    code = "not_an_image"


class ImageBrokenError(ImageError):
    """Raised when an image file is damaged, or of a kind that is not read."""

    code = "image_broken"


class ImageBlankError(ImageError):
    """Raised when there is no ink in an image."""

    code = "image_blank"


class ImageTooManyBytesError(ImageError):
    """Raised when an image file is larger than the limit."""

    code = "image_too_many_bytes"


class ImageTooManyPixelsError(ImageError):
    """Raised when an image would be larger than the limit once decoded, or is far too long and thin for a digit."""

    code = "image_too_many_pixels"


class ImageTooManyDigitsError(ImageError):
    """Raised when a picture that is to be cut has more digits than the limit."""

    code = "image_too_many_digits"


class StorageError(MnistError):
    """Raised when the storage folder or bucket refuses to be read or written."""

    code = "storage_failed"


class ObjectExistsError(StorageError):
    """Raised when an object that must be created is already there."""

    code = "object_exists"


class ObjectNotFoundError(StorageError):
    """Raised when an object that must be read is not there."""

    code = "object_not_found"


class BadRecordError(StorageError):
    """Raised when a run's record on the storage is not the JSON object that was written."""

    code = "bad_record"


class CheckpointError(MnistError):
    """Raised when a checkpoint is torn or corrupt."""

    code = "bad_checkpoint"


class ArtifactError(MnistError):
    """Raised when a published model fails its checksums or misses a file."""

    code = "bad_artifact"


class ModelNotFoundError(MnistError):
    """Raised when the registry has no such model or version."""

    code = "model_not_found"


class RunConflictError(MnistError):
    """Raised when a run exists on the storage with another configuration."""

    code = "run_conflict"


class ResourcesError(MnistError):
    """Raised when the cluster has too few CPUs or GPUs for what was asked."""

    code = "too_few_resources"


class DivergedError(MnistError):
    """Raised when the training loss is no longer a finite number."""

    code = "diverged"


class TrainingFailedError(MnistError):
    """Raised when the workers failed more often than ``--max-failures`` allows."""

    code = "training_failed"


class RunInterruptedError(MnistError):
    """Raised when a run was stopped from the keyboard; it can be resumed."""

    code = "interrupted"


class ItemUnreadableError(ImageError):
    """Raised when one item of a dataset cannot be read: its file vanished, is a folder or is not ours to read."""

    code = "item_unreadable"


class ContainerTornError(ImageError):
    """Raised when a file of many images turns out, while it is read, to be cut off, damaged or changed."""

    code = "container_torn"


class OutputConflictError(MnistError):
    """Raised when an output folder belongs to another job, or to the same one with other settings."""

    code = "output_conflict"


class ScoringFailedError(MnistError):
    """Raised when a scoring job fails for a reason that is not in one of its images."""

    code = "scoring_failed"


class RequestError(MnistError):
    """Raised when a request to the endpoint is not what its protocol says."""

    code = "bad_request"


class RequestTooLargeError(RequestError):
    """Raised when a request has more bytes or more images than the endpoint takes."""

    code = "request_too_large"


class UnsupportedMediaError(RequestError):
    """Raised when a request's content type is none that the endpoint reads."""

    code = "unsupported_media"


class PathNotFoundError(RequestError):
    """Raised when the endpoint has no such path."""

    code = "path_not_found"


class MethodNotAllowedError(RequestError):
    """Raised when a path of the endpoint has no such method."""

    code = "method_not_allowed"


class UnauthorizedError(MnistError):
    """Raised when a request brings no valid API key, or a cluster does not accept our token."""

    code = "unauthorized"


class OverloadedError(MnistError):
    """Raised when as many images wait as may; the request is refused at once and may be repeated later."""

    code = "overloaded"


class DeadlineError(MnistError):
    """Raised when a request was not answered in time; it is not computed then."""

    code = "deadline_exceeded"


class ServingFailedError(MnistError):
    """Raised when the endpoint does not start, or stops by itself."""

    code = "serving_failed"


class JobFailedError(MnistError):
    """Raised when a job on a cluster failed, was stopped, or was lost sight of."""

    code = "job_failed"


class JobNotFoundError(MnistError):
    """Raised when a cluster knows of no such job."""

    code = "job_not_found"
