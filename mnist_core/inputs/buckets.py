"""The objects of an ``s3://`` or ``gs://`` bucket as inputs: list them, fetch small ones, read parts of large ones.

Endpoint, credentials and patience are those of ``mnist_core.storage``, from the same environment.
"""

from __future__ import annotations

import io
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import obstore
from obstore.exceptions import BaseError, GenericError

from mnist_core import storage
from mnist_core.errors import DatasetError, DatasetNotFoundError, ItemUnreadableError
from mnist_core.inputs.faults import reading, unreachable, unreadable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from obstore.store import ObjectStore

NUM_FETCHERS: Final = 16
"""Objects of a bucket that are fetched at the same time: they take turns waiting for the network, not for a core."""

_URI: Final = re.compile(r"(?P<scheme>s3|gs)://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]+)(/.*)?", re.DOTALL)


class FileState(NamedTuple):
    """How large a file is, and a word that differs when it is written anew."""

    size_bytes: int
    version: str


@dataclass(frozen=True)
class Bucket:
    """The objects of a bucket, reached as `mnist_core.storage` reaches its own.

    Attributes:
        uri: ``s3://bucket`` or ``gs://bucket``.
    """

    uri: str
    _store: ObjectStore = field(repr=False, compare=False)

    def full_path(self, name: str) -> str:
        """Say where an object is: an URI is whole already."""
        return name

    def state(self, name: str) -> FileState:
        """Ask for the size and the entity tag of an object."""
        with reading(name):
            found = obstore.head(self._store, self._key(name))
        return FileState(found["size"], str(found["e_tag"]))

    def has(self, name: str) -> bool:
        """Tell whether there is such an object."""
        try:
            self.state(name)
        except DatasetNotFoundError:
            return False
        return True

    def names_in(self, folder: str) -> list[str]:
        """List the names of the objects right in a folder, an URI that ends in a slash."""
        with reading(folder):
            found = obstore.list_with_delimiter(self._store, self._key(folder).rstrip("/") or None)
            return [each["path"].rpartition("/")[2] for each in found["objects"]]

    def list_below(self, folder: str) -> Iterator[str]:
        """List the URIs of all objects below a folder, an URI.

        Consoles mark a folder by an empty object whose name ends in a slash, which obstore leaves out: it is no object.
        """
        with reading(folder):
            empty = ""
            for chunk in obstore.list(self._store, self._key(folder).rstrip("/") or None, chunk_size=1000):
                for found in chunk:
                    name = f"{self.uri}/{found['path']}"
                    if empty and not name.startswith(f"{empty}/") and self.has(empty):
                        yield empty
                    empty = "" if found["size"] else name
                    if not empty:
                        yield name
            if empty and self.has(empty):
                yield empty

    def open(self, name: str) -> io.RawIOBase:
        """Open an object, unbuffered: each read is one request."""
        return _RangedObject(self._store, self._key(name), self.state(name).size_bytes)

    def read_each(self, names: Iterable[str], max_bytes: int) -> Iterator[bytes | ItemUnreadableError]:
        """Read whole objects, several at once, in order; of one larger than ``max_bytes`` the first ``max_bytes`` + 1.

        Raises:
            StorageError: The bucket cannot be reached.
        """
        pool = ThreadPoolExecutor(NUM_FETCHERS)
        pending: deque[Future[bytes | ItemUnreadableError]] = deque()
        try:
            for name in names:
                pending.append(pool.submit(self._fetch, name, max_bytes + 1))
                if len(pending) == 2 * NUM_FETCHERS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _fetch(self, name: str, limit: int) -> bytes | ItemUnreadableError:
        try:
            found = obstore.get(self._store, self._key(name))
            if found.meta["size"] > limit:
                return bytes(obstore.get_range(self._store, self._key(name), start=0, length=limit))
            return bytes(found.bytes())
        except GenericError as err:  # the network or the endpoint, not this object
            raise unreachable(name, err) from err
        except (BaseError, OSError, ValueError) as err:
            return unreadable(name, err)

    def _key(self, name: str) -> str:
        return name[len(self.uri) + 1 :]


class _RangedObject(io.RawIOBase):
    """An object of a bucket as a file."""

    def __init__(self, store: ObjectStore, key: str, size_bytes: int) -> None:
        self._store, self._key, self._size_bytes, self._position = store, key, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size_bytes}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self._size_bytes - self._position)
        if length <= 0:
            return 0
        found = obstore.get_range(self._store, self._key, start=self._position, length=length)
        view[: len(found)] = memoryview(found)
        self._position += len(found)
        return len(found)


def is_remote(name: str) -> bool:
    """Tell whether a name is an URI, not a path."""
    return re.match("[a-z][a-z0-9+.-]*://", name) is not None


def open_bucket(name: str) -> Bucket:
    """Open the bucket of an URI. Nothing is contacted yet.

    Raises:
        DatasetError: It is an URI of no kind that is known.
        StorageError: A variable of the environment is not what it should be.
    """
    match = _URI.fullmatch(name)
    if not match:
        raise DatasetError(f"{name}: expected a path, s3://bucket/prefix or gs://bucket/prefix")
    store = storage.open_store(match["scheme"], match["bucket"])
    return Bucket(f"{match['scheme']}://{match['bucket']}", store)
