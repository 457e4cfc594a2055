"""What goes wrong when inputs are read, on a disk, over a network or in a decompressor, as our own errors of one line.

Two things become of it: with `reading`, a `DatasetError` about a whole input or container; with `unreadable`, the error
that stands in the place of one item.
"""

from __future__ import annotations

import contextlib
import errno
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final

from obstore.exceptions import BaseError, InvalidPathError

from mnist_core import storage
from mnist_core.errors import DatasetError, DatasetNotFoundError, ItemUnreadableError, StorageError

_DAMAGE: Final = (
    *(OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
    InvalidPathError,  # obstore cannot name objects with an empty part in their names
)
_NOT_THE_FILE: Final = {
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOMEM), "give this process more, or run fewer"),
    **dict.fromkeys(
        (errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH),
        "see to the file system and finish with --resume",
    ),
}
"""What to do where it is not the file that is broken, but this process or what the file lies on."""


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what the operating system, the network and the decompressors raise into one line.

    Raises:
        DatasetNotFoundError: There is no such file.
        DatasetError: It cannot be read, or is torn.
        StorageError: The bucket or the file system cannot be reached.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as err:
        raise DatasetNotFoundError(f"{name}: expected a file or folder, found nothing; check the name") from err
    except _DAMAGE as err:
        _refuse_outage(name, err)
        raise DatasetError(f"{name}: cannot be read ({_reason(err)})") from err
    except BaseError as err:
        raise unreachable(name, err) from err


def unreachable(name: str, err: BaseError) -> StorageError:
    """Say that a bucket cannot be reached; as the storage does, which has a flag of its own."""
    return StorageError(f"cannot read {name}: {storage.reason_of(err).replace('--storage', 'the name')}")


def unreadable(name: str, err: Exception) -> ItemUnreadableError:
    """Say why one item cannot be read.

    Raises:
        StorageError: It is this process that cannot read any, or the file system is not there.
    """
    _refuse_outage(name, err)
    return ItemUnreadableError(f"{name}: cannot be read ({_reason(err)})")


def _refuse_outage(name: str, err: Exception) -> None:
    if isinstance(err, OSError) and (remedy := _NOT_THE_FILE.get(err.errno or 0)):
        raise StorageError(f"cannot read {name}: {_reason(err)}; {remedy}") from err


def _reason(err: Exception) -> str:
    if isinstance(err, OSError) and err.strerror:
        return err.strerror.lower()
    if isinstance(err, FileNotFoundError):
        return "no such object"
    return (str(err).splitlines() or [type(err).__name__])[0]
