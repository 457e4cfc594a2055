"""The IDX format, plain or gzip-compressed: read it, write it, refuse what is torn.

An IDX file is two zero bytes, a byte for the type, a byte for the number of dimensions, each dimension as a
big-endian 32-bit integer, then the values, row by row (Y. LeCun, C. Cortes, C. Burges, "The MNIST database").
"""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mnist_core.errors import DatasetError

MAX_BYTES: Final = 2**30
"""The largest file that is read, before and after decompression: 20 times MNIST, and an end to a gzip bomb."""

GZIP_MAGIC: Final = b"\x1f\x8b"
MAX_HEADER_BYTES: Final = 4 + 4 * 4
"""The longest header that is read: four dimensions."""

_DTYPES: Final = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS: Final = 4


def read_idx(path: Path) -> npt.NDArray[Any]:
    """Read an IDX file, compressed or not; its first bytes decide, not its name.

    Args:
        path: The file.

    Returns:
        The array, in the machine's byte order: uint8 (N, 28, 28) for MNIST's images, uint8 (N,) for its labels.

    Raises:
        DatasetError: The file is missing, torn, too large or no IDX file.
    """
    return parse_idx(read_uncompressed(path), str(path))


def write_idx(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array as an IDX file, in one step; gzip-compressed if the name ends in ``.gz``.

    Args:
        path: The file; one that is there is replaced, and missing folders are made.
        array: Of one to four dimensions and one of the format's types: uint8, int8, int16, int32, float32, float64.

    Raises:
        DatasetError: The format has no such array, or the file cannot be written.
    """
    codes = {np.dtype(dtype).newbyteorder("="): code for code, dtype in _DTYPES.items()}
    code = codes.get(array.dtype.newbyteorder("="))
    if code is None or not 1 <= array.ndim <= _MAX_DIMENSIONS:
        raise DatasetError(
            f"{path}: received {_describe(array.dtype, array.shape)}, expected an array of 1 to {_MAX_DIMENSIONS} "
            f"dimensions and one of {', '.join(map(str, codes))}"
        )
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    data = header + array.astype(_DTYPES[code]).tobytes()
    write_atomically(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def parse_idx(data: bytes, name: str) -> npt.NDArray[Any]:
    """Turn the uncompressed bytes of an IDX file into an array.

    Args:
        data: The bytes.
        name: What to call them in a message.

    Returns:
        The array, in the machine's byte order.

    Raises:
        DatasetError: The bytes are no IDX file, or fewer or more than its header says.
    """
    header = parse_idx_header(data, name)
    header.check_size(len(data), name)
    try:
        array: npt.NDArray[Any] = np.ndarray(header.shape, header.dtype, data, offset=header.start_bytes)
    except ValueError as err:  # no values, but sides that multiply to more than an address
        raise DatasetError(f"{name}: its header says {header}, which holds nothing") from err
    return array.astype(header.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True)
class ArrayHeader:
    """What a file says of the one array that it holds.

    Attributes:
        dtype: Of the values, as they lie in the file.
        shape: Of the array.
        start_bytes: Where the values begin.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start_bytes: int

    def __str__(self) -> str:
        return _describe(self.dtype, self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole file, uncompressed."""
        return self.start_bytes + math.prod(self.shape) * self.dtype.itemsize

    def check_size(self, found_bytes: int, name: str) -> None:
        """Refuse a file that has fewer or more bytes than its header says.

        Raises:
            DatasetError: It has.
        """
        if found_bytes != self.num_bytes:
            raise DatasetError(
                f"{name}: its header says {self}, so expected {self.num_bytes} bytes, found {found_bytes}"
            )


def parse_idx_header(data: bytes, name: str) -> ArrayHeader:
    """Read the header of an IDX file.

    Args:
        data: The first ``MAX_HEADER_BYTES`` of the file or more, uncompressed; all of a smaller one.
        name: What to call it in a message.

    Returns:
        What the header says; whether the values are there is not looked at.

    Raises:
        DatasetError: The bytes are the beginning of no IDX file, or the header is cut off.
    """
    if not is_idx(data):
        raise DatasetError(
            f"{name}: expected an IDX file, which begins with 00 00 08 03 (images) or 00 00 08 01 (labels), "
            f"found {data[:4].hex(' ') or 'an empty file'}"
        )
    dtype, num_dimensions = np.dtype(_DTYPES[data[2]]), data[3]
    start = 4 + 4 * num_dimensions
    if len(data) < start:
        raise DatasetError(f"{name}: expected an IDX header of {start} bytes, found {len(data)}: the file is cut off")
    return ArrayHeader(dtype, struct.unpack_from(f">{num_dimensions}I", data, 4), start)


def is_idx(data: bytes) -> bool:
    """Tell whether uncompressed bytes begin as those of an IDX file do."""
    return len(data) >= 4 and data[:2] == b"\0\0" and data[2] in _DTYPES and 1 <= data[3] <= _MAX_DIMENSIONS


def read_uncompressed(path: Path) -> bytes:
    """Read the bytes of a file, without its gzip wrapper if it has one.

    Args:
        path: The file.

    Returns:
        The bytes; at most ``MAX_BYTES``.

    Raises:
        DatasetError: The file is missing, unreadable, too large, or a torn gzip file.
    """
    try:
        if not path.is_file():
            raise DatasetError(f"{path}: expected a file, found {'no file' if path.exists() else 'nothing'}")
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"{path}: expected at most {MAX_BYTES} bytes, found {path.stat().st_size}")
        return uncompress(path.read_bytes(), str(path))
    except OSError as err:
        raise DatasetError(f"{path}: cannot be read ({err.strerror})") from err


def uncompress(data: bytes, name: str) -> bytes:
    """Take the gzip wrapper off, if there is one.

    Args:
        data: The bytes of a file.
        name: What to call them in a message.

    Returns:
        The bytes without the wrapper; at most ``MAX_BYTES`` of them.

    Raises:
        DatasetError: The wrapper is cut off, damaged, followed by other data, or hides more than ``MAX_BYTES``.
    """
    if not data.startswith(GZIP_MAGIC):
        return data
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: a gzip wrapper, whose checksum zlib verifies
    try:
        plain = unzip.decompress(data, MAX_BYTES)
    except zlib.error as err:
        raise DatasetError(f"{name}: expected a whole gzip file, found it damaged ({err})") from err
    if unzip.unconsumed_tail:
        raise DatasetError(f"{name}: expected at most {MAX_BYTES} bytes in the gzip file, found more")
    if not unzip.eof:
        raise DatasetError(f"{name}: expected a whole gzip file, found it cut off after {len(data)} bytes")
    if unzip.unused_data:
        raise DatasetError(f"{name}: expected one gzip file, found {len(unzip.unused_data)} more bytes behind it")
    return plain


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file in one step: whoever looks sees the whole file or what was there before, never a part.

    Args:
        path: The file; missing folders are made.
        data: Its bytes.

    Raises:
        DatasetError: The folder or the file cannot be written.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as err:
        raise DatasetError(f"{path}: cannot be written ({err.strerror})") from err
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _describe(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    return f"{dtype.name} ({', '.join(map(str, shape))})"
