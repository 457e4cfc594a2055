"""The published model: a folder of files with a manifest, written once and never changed.

``models/<name>/<version>/`` holds ``model.keras``, ``model.tflite``, ``evaluation.json``, ``report.html``, plots and
``manifest.json``, which lists the SHA-256 of every other file and is sealed with its own. A version is a number that
`publish_artifact` claims for itself; it exists, for everybody, from the moment its manifest does. Which version is
the current one is the registry's business, and who was first that of ``mnist_core.claims``.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from mnist_core.claims import RunClaim, claim_version
from mnist_core.config_fields import Slug
from mnist_core.errors import ArtifactError, ModelNotFoundError, ObjectExistsError, ObjectNotFoundError
from mnist_core.sealed import seal, sha256, unseal
from mnist_core.storage import KEY, Storage

VERSION: Final = r"[1-9][0-9]{0,8}"
"""What a version looks like: 1, 2, 3, ..."""

MANIFEST: Final = "manifest.json"
MAX_MANIFEST_BYTES: Final = 4 << 20
MAX_ARTIFACT_BYTES: Final = 1 << 30
"""A model here has a few megabytes. These limits keep a wrong or hostile folder from filling the memory."""

log = logging.getLogger(__name__)

Version = Annotated[str, Field(pattern=rf"^{VERSION}$")]


class FileEntry(BaseModel):
    """What the manifest says of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Manifest(BaseModel):
    """What a published model is, where it comes from and what belongs to it.

    Attributes:
        format: The layout of artifact and manifest.
        created_at: ISO 8601, UTC.
        files: File name, relative to the version's folder, to size and checksum.
        run_id, config, dataset, metrics, libraries: As given to `publish_artifact`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: Slug
    version: Version
    run_id: str
    created_at: str
    config: dict[str, JsonValue]
    dataset: dict[str, JsonValue]
    metrics: dict[str, JsonValue]
    libraries: dict[str, str]
    files: dict[str, FileEntry] = Field(min_length=1, max_length=1000)

    @property
    def reference(self) -> str:
        """The model and its version, as commands take it: ``NAME/VERSION``."""
        return f"{self.name}/{self.version}"

    @field_validator("files")
    @classmethod
    def _check_files(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if name == MANIFEST or not KEY.fullmatch(name):
                raise ValueError(f"{name!r} is not a file name an artifact can hold")
        if (total := sum(entry.bytes for entry in files.values())) > MAX_ARTIFACT_BYTES:
            raise ValueError(f"{total} bytes in all, expected at most {MAX_ARTIFACT_BYTES}")
        return files


@dataclass(frozen=True)
class Artifact:
    """A published model in memory, every file of it verified.

    Attributes:
        manifest: Its manifest.
        files: File name, as in the manifest, to content.
    """

    manifest: Manifest
    files: Mapping[str, bytes]


def publish_artifact(
    storage: Storage,
    name: str,
    files: Mapping[str, bytes],
    *,
    run_id: str,
    config: Mapping[str, Any],
    dataset: Mapping[str, Any],
    metrics: Mapping[str, Any],
    libraries: Mapping[str, str],
) -> Manifest:
    """Publish a run's model as the next version of ``name``, or return the version it already has.

    Any number of publishers may do this at once, also of one run: it gets one version. One that dies half way, or finds
    that another one of its run was faster, leaves files that nobody sees and a number that is never used again.

    Args:
        storage: Where the models are.
        name: The model's name.
        files: File name (``plots/curves.png``) to content.
        run_id: The identity of the training run, a name that can stand in a storage key.
        config: The training configuration.
        dataset: The training data: name, sha256, counts, source.
        metrics: What was measured, by split: ``{"test": {"accuracy": ...}, ...}``.
        libraries: Library name to version.

    Raises:
        ArtifactError: A name or value cannot stand in a manifest.
        StorageError: The storage cannot be written.
    """
    claim = RunClaim(storage, name, run_id)
    if published := _finish(storage, name, claim) or _find_run(storage, name, run_id):
        return published
    fields = {
        "name": name,
        "version": "1",  # Stands in for the number that is claimed once everything else is known to be good.
        "run_id": run_id,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config,
        "dataset": dataset,
        "metrics": metrics,
        "libraries": libraries,
        "files": {file: {"sha256": sha256(data), "bytes": len(data)} for file, data in files.items()},
    }
    draft = _validated(fields, f"model {name!r} cannot be published")
    seal(draft.model_dump())
    manifest = draft.model_copy(update={"version": claim_version(storage, name)})
    folder = _folder(name, manifest.version)
    for file, data in files.items():
        storage.write_bytes(folder + file, data)
    sealed = seal(manifest.model_dump())
    while not claim.take(sealed):
        if published := _finish(storage, name, claim):
            return published
    storage.write_bytes(folder + MANIFEST, sealed)
    log.info("published %s", storage.path(folder))
    return manifest


def published_versions(storage: Storage, name: str) -> list[str]:
    """List a model's published versions, oldest first; none if there is no such model."""
    found = (re.fullmatch(rf"models/[^/]+/({VERSION})/{MANIFEST}", key) for key in storage.list_keys(f"models/{name}"))
    return sorted((match[1] for match in found if match), key=int)


def read_manifest(storage: Storage, name: str, version: str) -> Manifest:
    """Read and check a version's manifest, but none of its files.

    Raises:
        ArtifactError: The manifest is not what was published.
        ModelNotFoundError: There is no such version.
    """
    return _read_manifest(storage, _folder(name, version), f"{name}/{version}")


def load_artifact(storage: Storage, name: str, version: str) -> Artifact:
    """Load a published version into memory; every file is checked, and only files of the manifest are loaded.

    Raises:
        ArtifactError: A file is missing, changed or not in the manifest, or the manifest is not what was published.
        ModelNotFoundError: There is no such version.
    """
    return _load(storage, _folder(name, version), f"{name}/{version}")


def load_artifact_folder(storage: Storage) -> Artifact:
    """Load an artifact that stands alone, copied out of its storage; checks and raises like `load_artifact`."""
    return _load(storage, "")


def verify_artifact(storage: Storage, name: str, version: str) -> list[str]:
    """Check a published version and name every problem, one line each; an empty list means that it is whole.

    Raises:
        ModelNotFoundError: There is no such version.
    """
    folder = _folder(name, version)
    try:
        manifest = _read_manifest(storage, folder, f"{name}/{version}")
    except ArtifactError as err:
        return [str(err)]
    return _read_files(storage, folder, manifest)[1]


def _folder(name: str, version: str) -> str:
    return f"models/{name}/{version}/"


def _validated(fields: Mapping[str, Any], what: str) -> Manifest:
    try:
        return Manifest.model_validate(fields)
    except ValidationError as err:
        problem = err.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise ArtifactError(f"{what}: {field}: {problem['msg'].removeprefix('Value error, ')}") from err


def _finish(storage: Storage, name: str, claim: RunClaim) -> Manifest | None:
    """Publish the version that a run has claimed if that is still to be done; None if there is none or it is broken."""
    if claim.manifest is None:
        return None
    try:
        manifest = _validated(unseal(claim.manifest, claim.path), claim.path)
        folder = _folder(name, manifest.version)
        # The files first: where somebody has deleted the version, its manifest must not come back.
        if _read_files(storage, folder, manifest)[1]:
            return None
        with contextlib.suppress(ObjectExistsError):
            storage.create(folder + MANIFEST, claim.manifest)
        return read_manifest(storage, name, manifest.version)
    except (ArtifactError, ModelNotFoundError) as err:
        log.warning("skipped: %s", err)
        return None


def _find_run(storage: Storage, name: str, run_id: str) -> Manifest | None:
    for version in reversed(published_versions(storage, name)):
        try:
            manifest = read_manifest(storage, name, version)
        except (ArtifactError, ModelNotFoundError) as err:
            log.warning("skipped: %s", err)
            continue
        if manifest.run_id == run_id and not verify_artifact(storage, name, version):
            return manifest
    return None


def _read_manifest(storage: Storage, folder: str, identity: str | None = None) -> Manifest:
    where = storage.path(folder + MANIFEST)
    try:
        data = storage.read_bytes(folder + MANIFEST, MAX_MANIFEST_BYTES)
    except ObjectNotFoundError as err:
        raise ModelNotFoundError(f"{where}: not there, so no model is published here; see mnist models list") from err
    manifest = _validated(unseal(data, where), where)
    if identity and identity != (found := manifest.reference):
        raise ArtifactError(f"{where}: belongs to {found}, expected {identity}; move the folder back")
    return manifest


def _read_files(storage: Storage, folder: str, manifest: Manifest) -> tuple[dict[str, bytes], list[str]]:
    """Read every file of the manifest; return the good ones, and one line for each that is not or is too many."""
    good, problems = {}, []
    for name, entry in manifest.files.items():
        try:
            data = storage.read_bytes(folder + name, entry.bytes + 1)
        except ObjectNotFoundError:
            problems.append(f"{storage.path(folder + name)}: missing, though the manifest lists it")
            continue
        if sha256(data) == entry.sha256:
            good[name] = data
        else:
            problems.append(
                f"{storage.path(folder + name)}: not the {entry.bytes} bytes published, its SHA-256 differs"
            )
    listed = {folder + name for name in (MANIFEST, *manifest.files)}
    extra = (key for key in storage.list_keys(folder.rstrip("/")) if key not in listed)
    problems += (f"{storage.path(key)}: not in the manifest" for key in extra)
    return good, problems


def _load(storage: Storage, folder: str, identity: str | None = None) -> Artifact:
    manifest = _read_manifest(storage, folder, identity)
    files, problems = _read_files(storage, folder, manifest)
    if problems:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        raise ArtifactError(f"{problems[0]}{more}; restore it or publish again")
    return Artifact(manifest, files)
