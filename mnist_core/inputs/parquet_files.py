"""Images in Parquet files: encoded images in a column of bytes, or in Hugging Face's struct of bytes and path.

A file is read row group by row group, in small batches, so that memory does not grow with it. pyarrow takes a quarter
of a second to load: import this module where a Parquet file is at hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mnist_core.errors import DatasetError, ImageError, ItemUnreadableError
from mnist_core.inputs.faults import reading
from mnist_core.inputs.sources import Source, open_buffered

_IMAGE_NAMES: Final = ("image", "img", "bytes", "data", "content")
_LABEL_NAMES: Final = ("label", "labels", "digit")
_MAX_BATCH_BYTES: Final = 2**24
_STREAM_BYTES: Final = 2**20


@dataclass(frozen=True)
class Columns:
    """Which columns of a Parquet file say what; an empty name: none, or whichever is found.

    Attributes:
        image: Encoded images: bytes, or a struct with a field ``bytes``.
        label: True digits.
        id: What to call the rows instead of their file and index.
    """

    image: str = ""
    label: str = ""
    id: str = ""


class Row(NamedTuple):
    """An image of a Parquet file.

    Attributes:
        row: Index in its file.
        id: As its column has it, or empty.
        label: The true digit, or None.
        content: The encoded image; of a large one, no more than the reader was asked for.
    """

    row: int
    id: str
    label: int | None
    content: bytes | ImageError


def find_columns(source: Source, name: str, wanted: Columns) -> tuple[Columns, list[int]]:
    """Find the columns of a file and the sizes of its row groups.

    Returns:
        The columns, a label or id that is neither wanted nor found left empty; the number of rows of each row group.

    Raises:
        DatasetError: The file is no Parquet file, or has no such columns.
        StorageError: The bucket cannot be reached.
    """
    with _opened(source, name) as file:
        types = {field.name: field.type for field in file.schema_arrow}
        sizes = _group_sizes(file)
    for column in (wanted.image, wanted.label, wanted.id):
        if column and column not in types:
            raise DatasetError(f"{name}: expected a column {column!r}, found {', '.join(types) or 'none'}")
    by_name = {column.lower(): column for column in types}
    candidates = [wanted.image] if wanted.image else [by_name[each] for each in _IMAGE_NAMES if each in by_name]
    images = [column for column in candidates if _is_bytes(_bytes_type(types[column]))]
    if not images:
        found = ", ".join(f"{column} ({kind})" for column, kind in types.items())
        raise DatasetError(
            f"{name}: expected encoded images as bytes, or a struct with a field bytes, in a column named "
            f"{' or '.join(candidates or _IMAGE_NAMES)}, found {found or 'no column'}; name the column"
        )
    labels = [wanted.label or by_name.get(each, "") for each in _LABEL_NAMES]
    return Columns(images[0], next(filter(None, labels), ""), wanted.id), sizes


def check_ids(files: Sequence[tuple[Source, str]], column: str) -> None:
    """Refuse a column of ids that does not tell the rows of all files apart.

    Raises:
        DatasetError: An id is missing or given twice, or is no text and no number.
        StorageError: The bucket cannot be reached.
    """
    chunks = []
    for source, name in files:
        with _opened(source, name) as file:
            ids = file.read(columns=[column]).column(0).cast(pa.string())
        if ids.null_count:
            raise DatasetError(f"{name}: expected an id in each row, found {ids.null_count} empty in column {column!r}")
        chunks += ids.chunks
    counts = pa.chunked_array(chunks, pa.string()).value_counts()
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        value, count = twice[0].as_py()["values"], twice[0].as_py()["counts"]
        raise DatasetError(
            f"{files[0][1]}: expected ids that tell the rows apart in column {column!r}, found {value!r} {count} times"
        )


def read_rows(source: Source, name: str, columns: Columns, start: int, stop: int, max_bytes: int) -> Iterator[Row]:
    """Read a range of rows, in order; of an image larger than ``max_bytes`` the first ``max_bytes`` + 1.

    Raises:
        DatasetError: The file is torn, or another one now; what was whole before has been given.
        StorageError: The bucket cannot be reached.
    """
    with _opened(source, name) as file:
        ends = list(accumulate(_group_sizes(file)))
        groups = [group for group, end in enumerate(ends) if end > start and (ends[group - 1] if group else 0) < stop]
        is_struct = pa.types.is_struct(file.schema_arrow.field(columns.image).type)
        chosen = [f"{columns.image}.bytes" if is_struct else columns.image, columns.label, columns.id]
        batches = file.iter_batches(_batch_rows(file, groups), groups, list(filter(None, chosen)), use_threads=False)
        index = ends[groups[0] - 1] if groups and groups[0] else 0
        for batch in batches:
            first = max(start - index, 0)
            if first < len(batch):
                yield from _rows(batch.slice(first, stop - index - first), index + first, name, columns, max_bytes)
            index += len(batch)
            if index >= stop:
                return
    raise DatasetError(f"{name}: expected {stop} rows, found {index}")


def _rows(batch: Any, index: int, name: str, columns: Columns, max_bytes: int) -> Iterator[Row]:
    images = batch.column(columns.image)
    if pa.types.is_struct(images.type):
        images = pc.struct_field(images, "bytes")
    labels = batch.column(columns.label).to_pylist() if columns.label else [None] * len(batch)
    ids = batch.column(columns.id).cast(pa.string()).to_pylist() if columns.id else [""] * len(batch)
    for row, (image, label, row_id) in enumerate(zip(images.to_pylist(), labels, ids, strict=True), index):
        content = image and image[: max_bytes + 1]
        if content is None:
            content = ItemUnreadableError(f"{name}#{row}: expected an encoded image, found an empty cell")
        yield Row(row, row_id, _digit(label), content)


def _digit(value: object) -> int | None:
    """Read a label whatever its type; -1 and the like say that there is none."""
    text = str(value).removesuffix(".0")
    return int(text) if len(text) == 1 and text in "0123456789" else None


def _bytes_type(kind: Any) -> Any:
    is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return kind.field("bytes").type if is_struct else kind


def _is_bytes(kind: Any) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _group_sizes(file: Any) -> list[int]:
    return [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]


def _batch_rows(file: Any, groups: Sequence[int]) -> int:
    """Choose the rows of a batch by their size: 512 where they are small."""
    largest = 1
    for group in map(file.metadata.row_group, groups):
        largest = max(largest, group.total_byte_size // max(1, group.num_rows))
    return max(1, min(512, _MAX_BATCH_BYTES // largest))


@contextlib.contextmanager
def _opened(source: Source, name: str) -> Iterator[Any]:
    with reading(name), open_buffered(source, name) as stream:
        try:
            with pq.ParquetFile(stream, buffer_size=_STREAM_BYTES, pre_buffer=False) as file:
                yield file
        except pa.ArrowException as err:
            raise ValueError(str(err)) from err
