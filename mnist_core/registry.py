"""Which models there are, which version of each is the current one, and how a reference becomes a model.

``models/<name>/current.json`` names the version that is served, and the ones that were before it. It is only ever
swapped against what was read, so promotions that happen at once follow one another and none is lost.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mnist_core.artifact import (
    MANIFEST,
    VERSION,
    Artifact,
    Version,
    load_artifact,
    load_artifact_folder,
    published_versions,
    verify_artifact,
)
from mnist_core.config_fields import SLUG
from mnist_core.errors import ArtifactError, ModelNotFoundError, ObjectNotFoundError, StorageError
from mnist_core.sealed import seal, unseal
from mnist_core.storage import Storage, open_storage

MAX_POINTER_BYTES: Final = 1 << 20
HISTORY: Final = 100
"""How many earlier versions the pointer remembers."""

# Each lost swap means that somebody else's promotion went through, so many in a row mean that something is wrong.
_ATTEMPTS: Final = 1000

log = logging.getLogger(__name__)


class Pointer(BaseModel):
    """The current version of a model, and those that were current before.

    Attributes:
        format: The layout of the pointer.
        version: The current version.
        history: What a rollback goes back through, the latest last.
        rolled_back: What rollbacks have left, the latest last. Written only if there is any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    version: Version
    history: tuple[Version, ...] = ()
    rolled_back: tuple[Version, ...] = ()


def list_models(storage: Storage) -> list[str]:
    """List the names of the models that have a published version."""
    found = (re.fullmatch(rf"models/([^/]+)/{VERSION}/{MANIFEST}", key) for key in storage.list_keys("models"))
    return sorted({match[1] for match in found if match})


def list_versions(storage: Storage, name: str) -> list[str]:
    """List a model's published versions, oldest first.

    Raises:
        ModelNotFoundError: There is no such model; those that there are, are named.
    """
    versions = published_versions(storage, name) if re.fullmatch(SLUG, name) else []
    if not versions:
        known = ", ".join(list_models(storage)) or "no model at all"
        raise ModelNotFoundError(f"no model {name!r} in {storage.uri}, which has: {known}")
    return versions


def current_version(storage: Storage, name: str) -> str | None:
    """Say which version of a model is the current one; None if none was ever promoted.

    Raises:
        ArtifactError: The pointer is not what was written.
    """
    pointer = _decode(_read(storage, name), storage.path(_key(name)))
    return pointer.version if pointer else None


def promote(storage: Storage, name: str, version: str) -> str | None:
    """Make a version the current one, if it is whole.

    Returns:
        The version that was current before; None if there was none.

    Raises:
        ArtifactError: The version is broken; the pointer stays where it is.
        ModelNotFoundError: There is no such version.
    """
    before = _promote(storage, name, version)[0]
    return before.version if before else None


def promote_once(storage: Storage, name: str, version: str) -> bool:
    """Make a version the current one, if it is whole and never was the current one: whoever replaced it since meant it.

    Returns:
        Whether it is the current one now.

    Raises:
        ArtifactError: The version is broken; the pointer stays where it is.
        ModelNotFoundError: There is no such version.
    """
    after = _promote(storage, name, version, again=False)[1]
    if after.version == version:
        return True
    log.warning(
        "%s/%s was current before and is not made current again, %s stays; see mnist models promote",
        *(name, version, after.version),
    )
    return False


def rollback(storage: Storage, name: str) -> str:
    """Make the version current again that was so before the current one, if it is whole.

    Returns:
        The version that is current now.

    Raises:
        ArtifactError: That version is broken; the pointer stays where it is, and what else could be current is named.
        ModelNotFoundError: There is no such model, or no version that was current earlier, or it was deleted.
    """

    def retreat(pointer: Pointer | None) -> Pointer:
        if pointer is None or not pointer.history:
            raise ModelNotFoundError(
                f"model {name!r} has no earlier current version; make one current: mnist models promote NAME/VERSION"
            )
        version = pointer.history[-1]
        try:
            _refuse_broken(storage, name, version)
        except (ArtifactError, ModelNotFoundError) as err:
            raise type(err)(f"{err}; {_way_out(storage, name, pointer)}") from err
        left = dict.fromkeys((*pointer.rolled_back, pointer.version))
        return Pointer(version=version, history=pointer.history[:-1], rolled_back=tuple(left)[-HISTORY:])

    list_versions(storage, name)
    return _move_pointer(storage, name, retreat)[1].version


def resolve(storage: Storage, reference: str) -> tuple[str, str]:
    """Turn ``NAME`` (its current version) or ``NAME/VERSION`` into a name and a version that is published.

    Raises:
        ArtifactError: The pointer to the current version is not what was written.
        ModelNotFoundError: There is no such model or version; what there is, is named.
    """
    name, _, version = reference.partition("/")
    versions = list_versions(storage, name)
    wanted = version or current_version(storage, name)
    if wanted not in versions:
        problem = f"no version {wanted}" if wanted else "no current version (mnist models promote makes one)"
        raise ModelNotFoundError(f"model {name!r} has {problem}, but: {', '.join(versions[-20:])}")
    return name, wanted


def open_model(storage: Storage, reference: str) -> Artifact:
    """Load and verify a model.

    Args:
        storage: Where the published models are.
        reference: ``NAME``, ``NAME/VERSION``, or else the path or URI of an artifact folder (``./NAME`` for one here).

    Raises:
        ArtifactError: The model is broken.
        ModelNotFoundError: There is no such model.
    """
    if is_reference(reference):
        return load_artifact(storage, *resolve(storage, reference))
    return load_artifact_folder(open_storage(reference))


def is_reference(reference: str) -> bool:
    """Whether a reference names a published model, not an artifact folder."""
    return re.fullmatch(rf"{SLUG}(/{VERSION})?", reference) is not None


def _promote(storage: Storage, name: str, version: str, *, again: bool = True) -> tuple[Pointer | None, Pointer]:
    """Make a version current, one that was so before only if asked ``again``; return the pointer before and after."""
    resolve(storage, f"{name}/{version}")
    _refuse_broken(storage, name, version)

    def advance(pointer: Pointer | None) -> Pointer:
        if pointer is None:
            return Pointer(version=version)
        known = version in (*pointer.history, *pointer.rolled_back)
        if pointer.version == version or (known and not again):
            return pointer
        history = (*pointer.history, pointer.version)[-HISTORY:]
        return pointer.model_copy(update={"version": version, "history": history})

    return _move_pointer(storage, name, advance, repair=True)


def _way_out(storage: Storage, name: str, pointer: Pointer) -> str:
    """What to do where the version that a rollback leads to is no good."""
    published = published_versions(storage, name)
    no_good = (pointer.version, pointer.history[-1])
    earlier = [each for each in dict.fromkeys(reversed(pointer.history)) if each in published and each not in no_good]
    if not earlier:
        return "none was current before it; make another one current: mnist models promote NAME/VERSION"
    return f"current before it: {', '.join(earlier[:20])}; make one current: mnist models promote {name}/{earlier[0]}"


def _refuse_broken(storage: Storage, name: str, version: str) -> None:
    if problems := verify_artifact(storage, name, version):
        raise ArtifactError(f"{name}/{version} is broken and was not made current: {problems[0]}")


def _move_pointer(
    storage: Storage, name: str, choose: Callable[[Pointer | None], Pointer], repair: bool = False
) -> tuple[Pointer | None, Pointer]:
    """Swap the pointer for what ``choose`` makes of it, however often others are faster; return it before and after."""
    for _ in range(_ATTEMPTS):
        data = _read(storage, name)
        try:
            before = _decode(data, storage.path(_key(name)))
        except ArtifactError as err:
            if not repair:
                raise
            log.warning("replaced, its history is lost: %s", err)
            before = None
        after = choose(before)
        if after == before or storage.swap(_key(name), _encode(after), expected=data):
            return before, after
    raise StorageError(f"{storage.path(_key(name))}: changed {_ATTEMPTS} times while it was written; try again later")


def _key(name: str) -> str:
    return f"models/{name}/current.json"


def _read(storage: Storage, name: str) -> bytes | None:
    try:
        return storage.read_bytes(_key(name), MAX_POINTER_BYTES)
    except ObjectNotFoundError:
        return None


def _encode(pointer: Pointer) -> bytes:
    # A pointer that was never rolled back stays one that earlier releases read.
    return seal(pointer.model_dump(mode="json", exclude=set() if pointer.rolled_back else {"rolled_back"}))


def _decode(data: bytes | None, where: str) -> Pointer | None:
    try:
        return None if data is None else Pointer.model_validate(unseal(data, where))
    except ValidationError as err:
        raise ArtifactError(f"{where}: expected a pointer of format 1; promote a version again") from err
