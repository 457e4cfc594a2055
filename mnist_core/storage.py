"""Where runs, checkpoints and models are kept: a folder or an ``s3://``, ``gs://`` bucket behind one small interface.

A storage is a flat map from keys such as ``models/mnist/3/manifest.json`` to bytes. A reader sees a whole object
or none; `Storage.create` and `Storage.swap` let processes on different machines agree on who was first. Buckets
are reached through obstore, with credentials and endpoint from the usual environment (``AWS_ENDPOINT_URL``, ...);
folders by ``mnist_core.folder``. Every failure is one `StorageError`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import GCSStore, S3Store

from mnist_core.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from mnist_core.folder import Folder

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_SEGMENT: Final = r"[A-Za-z0-9_][A-Za-z0-9._=-]{0,149}"
KEY: Final = re.compile(rf"{_SEGMENT}(/{_SEGMENT}){{0,15}}")
"""What a key may look like; use ``fullmatch``. No leading dot: that is where lock and temporary files live."""

_NO_BUCKET: Final = "specified bucket does not exist"  # S3 and Google use the same words.

# A dead endpoint fails within a minute; a slow but living one may take its time over a large object.
# Plain http is spoken only where AWS_ENDPOINT_URL says http://.
CLIENT: Final[ClientConfig] = {"connect_timeout": "5s", "read_timeout": "15s", "timeout": "10m", "allow_http": True}
RETRY: Final[RetryConfig] = {"max_retries": 8, "retry_timeout": timedelta(seconds=20)}

LEFTOVER_AGE_S: Final = 24 * 3600.0
"""No write takes so long, nor do the clocks of two machines differ by so much."""


class Storage:
    """Keys and bytes below one root; made by `open_storage`, cheap to pickle.

    Every method raises `StorageError` for a key that is not a plain relative path of letters, digits and ``._=-``,
    and when the storage cannot be reached, read or written.

    Attributes:
        uri: The root: an absolute folder or an ``s3://``, ``gs://`` URI, without a slash at its end.
    """

    def __init__(self, uri: str, backend: Folder | _Bucket) -> None:
        self.uri = uri
        self._backend = backend

    def __reduce__(self) -> tuple[Any, ...]:
        return open_storage, (self.uri,)

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    def path(self, key: str = "") -> str:
        """Say where a key is, for people."""
        return f"{self.uri}/{key}" if key else self.uri

    def read_bytes(self, key: str, max_bytes: int | None = None) -> bytes:
        """Read an object: all of it, or its first ``max_bytes`` if it is larger.

        Raises:
            ObjectNotFoundError: There is no such object.
        """
        with self._errors(key, "read"):
            return self._backend.read(_checked(key), max_bytes)

    def write_bytes(self, key: str, data: bytes) -> None:
        """Write an object, whole or not at all, over whatever was there; on return it survives a power cut."""
        with self._errors(key, "write"):
            self._backend.write(_checked(key), data)

    def create(self, key: str, data: bytes) -> None:
        """Write an object that must not be there yet. Of many who try at once, exactly one succeeds.

        Raises:
            ObjectExistsError: Somebody else was first.
        """
        if not self.swap(key, data, expected=None):
            raise ObjectExistsError(f"{self.path(key)}: exists already; pick another name")

    def swap(self, key: str, data: bytes, expected: bytes | None) -> bool:
        """Replace an object if it still holds what the caller last read.

        Args:
            key: The object's key. It may be written by `create` and `swap`, not by `write_bytes`.
            data: What it shall hold.
            expected: What it must hold now; None: it must not exist.

        Returns:
            False, with nothing written, if it holds something else.
        """
        with self._errors(key, "write"):
            if expected is None:
                return self._backend.create(_checked(key), data)
            return self._backend.replace(_checked(key), data, expected)

    def list_keys(self, prefix: str = "") -> list[str]:
        """List the keys below a folder (all: the empty prefix), sorted. Names that no key can have are left out."""
        with self._errors(prefix, "list"):
            return sorted(key for key in self._backend.keys(_checked(prefix, empty=True)) if KEY.fullmatch(key))

    def holds_anything(self) -> bool:
        """Whether there is any object, whatever its name."""
        with self._errors("", "list"):
            return any(True for _ in self._backend.keys(""))

    def list_folders(self, prefix: str = "") -> list[str]:
        """List the names (not whole keys) of the folders right below a folder that hold an object, sorted."""
        below = len(prefix) + 1 if prefix else 0
        return sorted({key[below:].partition("/")[0] for key in self.list_keys(prefix) if "/" in key[below:]})

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is fine."""
        with self._errors(key, "delete"):
            self._backend.delete(_checked(key))

    def remove_leftovers(self, prefix: str) -> None:
        """Remove what processes left right in a folder that were killed there while they wrote, a day ago or longer.

        Only folders have them. What a bucket keeps of an upload that was cut off is nowhere in it; a lifecycle rule for
        incomplete uploads removes that.
        """
        with self._errors(prefix, "tidy"):
            self._backend.remove_leftovers(_checked(prefix), LEFTOVER_AGE_S)

    @contextlib.contextmanager
    def _errors(self, key: str, verb: str) -> Iterator[None]:
        """Turn what the operating system and obstore raise into one line that says where, what and how to fix it."""
        try:
            yield
        except (BaseError, OSError) as err:
            where = self.path(key)
            if isinstance(err, FileNotFoundError) and _NO_BUCKET not in str(err):
                raise ObjectNotFoundError(f"{where}: not there; check the name and --storage") from err
            raise StorageError(f"cannot {verb} {where}: {reason_of(err)}") from err


def open_storage(uri: str) -> Storage:
    """Open a storage. Nothing is created and nothing is contacted yet.

    Args:
        uri: A folder, or an ``s3://bucket/prefix`` or ``gs://bucket/prefix`` URI.

    Raises:
        StorageError: The URI is of neither kind, or what the environment says of buckets is wrong.
    """
    if "://" not in uri:
        try:
            root = Path(uri).expanduser().absolute()
        except (OSError, RuntimeError) as err:
            raise StorageError(f"storage {uri!r}: expected a folder's full path ({err})") from err
        return Storage(str(root), Folder(root))
    scheme, _, rest = uri.rstrip("/").partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme not in ("s3", "gs") or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]+", bucket):
        raise StorageError(f"storage {uri!r}: expected a folder, s3://bucket/prefix or gs://bucket/prefix")
    _checked(prefix, empty=True)
    return Storage(uri.rstrip("/"), _Bucket(open_store(scheme, bucket, prefix)))


def open_store(scheme: str, bucket: str, prefix: str = "") -> ObjectStore:
    """Open a bucket of S3 or Google as obstore has it. Nothing is contacted, but the environment is read.

    Raises:
        StorageError: A variable of the environment, or the file that it names, is not what obstore expects.
    """
    kind = S3Store if scheme == "s3" else GCSStore
    try:
        store: ObjectStore = kind(bucket, prefix=prefix or None, client_options=CLIENT, retry_config=RETRY)
    except BaseError as err:
        # "Generic Config error: what is wrong", and many lines of Rust below it
        problem = str(err).partition("\n")[0].rstrip(".")
        problem = problem.partition(" error: ")[2] or problem
        variables = "AWS_..." if scheme == "s3" else "GOOGLE_..."
        remedy = f"correct the {variables} variables of the environment"
        raise StorageError(f"cannot open {scheme}://{bucket}: {problem}; {remedy}") from err
    return store


def _checked(key: str, empty: bool = False) -> str:
    if not (KEY.fullmatch(key) or (empty and key == "")):
        raise StorageError(
            f"storage key {key[:200]!r}: expected names of letters, digits and '._=-', at most 16 with '/' "
            "between them, none of them empty, starting with '.' or '-', or longer than 150"
        )
    return key


def reason_of(err: Exception) -> str:
    """Say in a few words what went wrong and what to do. The libraries' own texts run over many lines."""
    if isinstance(err, OSError) and err.strerror:
        return f"{err.strerror.lower()}; check permissions, free space and --storage"
    text = str(err)
    if _NO_BUCKET in text:
        return "the bucket does not exist; create it or correct --storage"
    # Where a machine of either cloud would get credentials, asked when the environment has none.
    if "/latest/api/token" in text or "/computeMetadata/" in text:
        return "no credentials in the environment; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or Google's"
    if "403 Forbidden" in text or "401 Unauthorized" in text:
        return "access refused; check the credentials in the environment and what they may do with this bucket"
    # "Generic S3 error: Error performing GET http://... after 6 retries, ... - what the server or network did"
    cause = text.partition("\n")[0].rpartition(" - ")[2].partition(": <?xml")[0]
    return f"{cause}; check endpoint and region (AWS_ENDPOINT_URL, AWS_REGION) and the network"


class _Bucket:
    """A bucket of S3, of Google Cloud Storage, or of a server that speaks S3."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read(self, key: str, max_bytes: int | None) -> bytes:
        found = obstore.get(self._store, key)
        if max_bytes is not None and max_bytes < found.meta["size"]:
            return bytes(obstore.get_range(self._store, key, start=0, length=max_bytes))
        return bytes(found.bytes())

    def write(self, key: str, data: bytes) -> None:
        obstore.put(self._store, key, data)

    def create(self, key: str, data: bytes) -> bool:
        try:
            obstore.put(self._store, key, data, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def replace(self, key: str, data: bytes, expected: bytes) -> bool:
        try:
            found = obstore.get(self._store, key)
            if bytes(found.bytes()) != expected:
                return False
            # S3 compares the entity tag, Google the generation; obstore takes no None for the other one.
            seen = {name: value for name, value in found.meta.items() if name in ("e_tag", "version") and value}
            obstore.put(self._store, key, data, mode=cast("UpdateVersion", seen))
        except (PreconditionError, FileNotFoundError):
            return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        return (found["path"] for chunk in obstore.list(self._store, prefix=prefix or None) for found in chunk)

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def remove_leftovers(self, prefix: str, older_than_s: float) -> None:
        pass
