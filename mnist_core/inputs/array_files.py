"""Images that lie in arrays: IDX files, plain or gzip-compressed, ``.npy`` files and the members of an ``.npz``.

An array is never in memory as a whole. Where the file is not compressed, the bytes of the images that are asked for
are read, on a bucket too; where it is, a process unpacks it once into a temporary file without a name.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import math
import os
import re
import tempfile
import tokenize
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mnist_core.errors import DatasetError, StorageError
from mnist_core.idx import GZIP_MAGIC, MAX_BYTES, MAX_HEADER_BYTES, ArrayHeader, parse_idx, parse_idx_header
from mnist_core.inputs.buckets import FileState
from mnist_core.inputs.faults import reading
from mnist_core.inputs.sources import Source, open_buffered
from mnist_core.splits import IMAGE_SIZE, check_labels

_IMAGE_BYTES: Final = math.prod(IMAGE_SIZE)
_PIECE_BYTES: Final = 2**18
_FETCH_BYTES: Final = 2**22
_UNPACKED_KEPT: Final = 2
_HEADER_FAULTS: Final = (SyntaxError, TypeError, MemoryError, tokenize.TokenError)  # of NumPy, besides ValueError
_X: Final = re.compile("x(_.*)?")


@dataclass(frozen=True)
class ArrayRef:
    """An array in a file.

    Attributes:
        source: Where the file is.
        name: Of the file.
        kind: ``idx``, ``npy`` or ``npz``.
        member: Of an ``.npz``: which array.
    """

    source: Source
    name: str
    kind: str
    member: str = ""

    def __str__(self) -> str:
        return f"{self.name}[{self.member}]" if self.member else self.name

    def item_id(self, index: int | None = None) -> str:
        """Name one image, or all; in Keras's layout of an ``.npz``, several arrays have an image of this index."""
        member = self.member if _X.fullmatch(self.member) else ""
        parts = [part for part in (member, "" if index is None else str(index)) if part]
        return f"{self.name}#{'/'.join(parts)}" if parts else self.name


def find_arrays(source: Source, name: str, kind: str) -> list[ArrayRef]:
    """Find the arrays of images in a file: of an ``.npz``, ``images``, or ``x_train`` and the like, or its only one.

    Raises:
        DatasetError: The file is torn, or has no such array.
        StorageError: The bucket cannot be reached.
    """
    if kind != "npz":
        return [ArrayRef(source, name, kind)]
    members = _members(source, name)
    found = ["images"] if "images" in members else [member for member in members if _X.fullmatch(member)]
    if not found and len(members) == 1:
        found = members
    if not found:
        raise DatasetError(
            f"{name}: expected arrays named images, or x_train and x_test, found {', '.join(members) or 'no array'}"
        )
    return [ArrayRef(source, name, kind, member) for member in found]


def count_images(array: ArrayRef) -> int:
    """Count the images of an array, by its header.

    Raises:
        DatasetError: The header is cut off or of another format; or it is not compressed, and has fewer or more bytes
            than its header says; or it holds no images: uint8 (N, 28, 28), (N, 28, 28, 1) or, a single one, (28, 28).
        StorageError: The bucket cannot be reached.
    """
    with _opened(array) as (stream, is_packed):
        header = _parse_header(stream, array)
    if not is_packed:
        header.check_size(array.source.state(array.name).size_bytes, str(array))
    return _num_images(header, array)


def _num_images(header: ArrayHeader, array: ArrayRef) -> int:
    shape = header.shape if len(header.shape) == 4 else (*header.shape, 1)
    if header.dtype != np.uint8 or shape[-3:] != (*IMAGE_SIZE, 1) or len(shape) > 4 or shape[0] < 0:
        raise DatasetError(f"{array}: expected images as uint8 (N, 28, 28), found {header}")
    return math.prod(shape) // _IMAGE_BYTES


def read_labels(array: ArrayRef, num_images: int, images_name: str) -> str:
    """Read labels, one digit an image.

    Raises:
        DatasetError: The array is torn, or holds no labels from 0 to 9, or not one for each image.
        StorageError: The bucket cannot be reached.
    """
    with _opened(array) as (stream, _):
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DatasetError(f"{array}: expected at most {MAX_BYTES} bytes of labels, found more")
    if array.kind == "idx":
        labels = parse_idx(data, str(array))
    else:
        with reading(str(array)):
            labels = np.load(io.BytesIO(data), allow_pickle=False)
    check_labels(labels, num_images, images_name, str(array))
    return (labels.astype(np.uint8) + ord("0")).tobytes().decode("ascii")


def find_labels_member(array: ArrayRef) -> ArrayRef | None:
    """Name the array of labels that belongs to an array of an ``.npz``: ``labels``, ``y_train`` to ``x_train``."""
    member = f"y{array.member[1:]}" if _X.fullmatch(array.member) else "labels"
    if member == array.member or member not in _members(array.source, array.name):
        return None
    return ArrayRef(array.source, array.name, array.kind, member)


def read_images(array: ArrayRef, start: int, stop: int) -> tuple[npt.NDArray[np.uint8], str]:
    """Read a range of images.

    Returns:
        The images, uint8 (N, 28, 28); and why there are fewer than ``stop - start`` of them, or why they may be wrong,
        if so. Of all the ranges of one torn array, only the one with the tear says so.

    Raises:
        DatasetError: The file vanished or is another one now; which ranges say so depends on when it happened.
        StorageError: The bucket cannot be reached, or there is no room to unpack the array.
    """
    with _opened(array) as (stream, is_packed):
        if not is_packed:
            stream.seek(_parse_header(stream, array).start_bytes + start * _IMAGE_BYTES)
            images = np.empty((stop - start, *IMAGE_SIZE), np.uint8)
            if stream.readinto(images) < images.nbytes:
                raise DatasetError(f"{array}: expected {stop} images, found that it was cut off")
            return images, ""
    unpacked = _unpack(array, array.source.state(array.name))
    num_whole = unpacked.num_bytes // _IMAGE_BYTES
    images = np.empty((max(0, min(stop, num_whole) - start), *IMAGE_SIZE), np.uint8)
    os.preadv(unpacked.file.fileno(), [images.data], start * _IMAGE_BYTES)
    has_tear = start <= num_whole < stop or num_whole == unpacked.num_images == stop
    return images, unpacked.fault if has_tear else ""


class _Unpacked:
    """The values of a compressed array, in a temporary file that has no name and goes when the process goes."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 closed below
        self.num_bytes = 0
        self.num_images = -1  # not known before the header is read
        self.fault = ""

    def __del__(self) -> None:
        self.file.close()

    def append(self, piece: bytes, name: str) -> None:
        try:
            self.file.write(piece)
            self.file.flush()
        except OSError as err:
            raise StorageError(
                f"{tempfile.gettempdir()}: cannot unpack {name} ({(err.strerror or str(err)).lower()}); "
                "set TMPDIR to a folder with more room"
            ) from err
        self.num_bytes += len(piece)


@functools.lru_cache(maxsize=_UNPACKED_KEPT)
def _unpack(array: ArrayRef, _state: FileState) -> _Unpacked:
    """Unpack an array, as far as it is whole; once in a process, until the file is another one."""
    unpacked = _Unpacked()
    try:
        with _opened(array) as (stream, _):
            header = _parse_header(stream, array)
            unpacked.num_images = _num_images(header, array)
            stream.seek(header.start_bytes)
            left = header.num_bytes - header.start_bytes
            while left and (piece := stream.read1(min(left, _PIECE_BYTES))):
                unpacked.append(piece, array.name)
                left -= len(piece)
            header.check_size(header.num_bytes - left, str(array))
            if stream.read1(1):  # and at the end, its checksum is verified
                raise DatasetError(
                    f"{array}: its header says {header}, so expected {header.num_bytes} bytes, found more"
                )
    except DatasetError as err:
        unpacked.fault = str(err)
    return unpacked


def _members(source: Source, name: str) -> list[str]:
    with reading(name), open_buffered(source, name) as file, zipfile.ZipFile(file) as archive:
        return sorted(each.removesuffix(".npy") for each in archive.namelist() if each.endswith(".npy"))


@contextlib.contextmanager
def _opened(array: ArrayRef) -> Iterator[tuple[Any, bool]]:
    """Open the uncompressed bytes of an array; with whether they come out of a compressor or archive."""
    with contextlib.ExitStack() as stack, reading(str(array)):
        raw = stack.enter_context(array.source.open(array.name))
        is_zipped = array.kind != "npz" and raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        raw.seek(0)
        is_packed = is_zipped or array.kind == "npz"
        file = stack.enter_context(io.BufferedReader(raw, _FETCH_BYTES if is_packed else MAX_HEADER_BYTES))
        if array.kind == "npz":
            archive = stack.enter_context(zipfile.ZipFile(file))
            yield stack.enter_context(archive.open(f"{array.member}.npy")), True
        elif is_zipped:
            yield stack.enter_context(gzip.GzipFile(fileobj=file)), True
        else:
            yield file, False


def _parse_header(stream: Any, array: ArrayRef) -> ArrayHeader:
    """Read a header; where the stream stands then is not said."""
    if array.kind == "idx":
        return parse_idx_header(stream.read(MAX_HEADER_BYTES), str(array))
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, is_fortran, dtype = read_header(stream)
    except _HEADER_FAULTS as err:
        raise ValueError("its header is no literal of Python's") from err
    if is_fortran and len(shape) > 1:
        raise DatasetError(f"{array}: expected an array in C order, found Fortran's; save np.ascontiguousarray(images)")
    return ArrayHeader(dtype, shape, stream.tell())
