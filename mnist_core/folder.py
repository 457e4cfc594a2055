"""Objects as files of a folder: written whole, synced to disk, created and swapped by one of many.

Written here and not by obstore, which neither syncs to disk nor swaps there. What the operating system raises is left
to ``mnist_core.storage``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""What a file is called before it is in its place. A process killed while it writes one leaves it behind."""


class Folder:
    """A folder, possibly on a network file system that several machines mount.

    Args:
        root: Where it is; made when something is written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, key: str, max_bytes: int | None) -> bytes:
        """Read a file, or its first bytes; FileNotFoundError where there is none."""
        try:
            with (self._root / key).open("rb") as file:
                return file.read(-1 if max_bytes is None else max_bytes)
        except (IsADirectoryError, NotADirectoryError) as err:
            raise FileNotFoundError(key) from err

    def write(self, key: str, data: bytes) -> None:
        """Write a file over whatever was there."""
        with self._written_aside(key, data) as temporary:
            temporary.replace(self._root / key)

    def create(self, key: str, data: bytes) -> bool:
        """Write a file that must not be there yet; whether it was not."""
        with self._written_aside(key, data) as temporary:
            try:
                # A link, unlike a rename, fails when the name is taken, on network file systems too.
                (self._root / key).hardlink_to(temporary)
            except FileExistsError:
                return False
        return True

    def replace(self, key: str, data: bytes, expected: bytes) -> bool:
        """Write over a file that holds what is expected; whether it did."""
        path = self._root / key
        with contextlib.suppress(FileNotFoundError), path.with_name(f".{path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # Given back when the file is closed, or its process killed.
            if path.read_bytes() == expected:
                self.write(key, data)
                return True
        return False

    def keys(self, prefix: str) -> Iterator[str]:
        """List all files below a folder, relative to the root, in no order."""
        for folder, _, names in os.walk(self._root / prefix, onerror=_raise_unless_missing):
            for name in names:
                yield (Path(folder) / name).relative_to(self._root).as_posix()

    def delete(self, key: str) -> None:
        """Delete a file, if there is one."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (self._root / key).unlink()

    def remove_leftovers(self, prefix: str, older_than_s: float) -> None:
        """Remove the temporary files right in a folder that nobody has written to for so long."""
        for path in (self._root / prefix).glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):  # somebody else removes them too
                if _TEMPORARY.fullmatch(path.name) and time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink()

    @contextlib.contextmanager
    def _written_aside(self, key: str, data: bytes) -> Iterator[Path]:
        """Write a temporary file beside the key's; once the caller has put it in place, sync the folders too."""
        parent = (self._root / key).parent
        temporary = parent / f".{uuid.uuid4().hex}.tmp"
        parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        for folder in Path(key).parents:
            _sync_folder(self._root / folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_missing(err: OSError) -> None:
    if not isinstance(err, FileNotFoundError | NotADirectoryError):
        raise err
