"""From one work unit of a scoring job to its items: ids, true labels where they are known, pixels or encoded images.

Nothing is decoded here, and nothing is lost: an item that cannot be read is its error, and a container that turns out
to be torn gives the items before the tear and then one error in the name of the container.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mnist_core.errors import ContainerTornError, DatasetError, ImageError, ItemUnreadableError
from mnist_core.inputs.array_files import ArrayRef, read_images
from mnist_core.inputs.kinds import label_of_folder
from mnist_core.inputs.plan import Unit
from mnist_core.inputs.sources import Source, open_source
from mnist_core.inputs.tar_shards import read_members

_MAX_BATCH_BYTES: Final = 2**24
_ESCAPED: Final = re.compile(r"\\(\\|x[89a-f][0-9a-f])")

_Item = tuple[str, int | None, bytes | ImageError]


@dataclass(frozen=True, eq=False)
class ItemBatch:
    """Items in order; either ``images`` or ``contents`` is given.

    Attributes:
        ids: A file's name; ``container#index`` of an array or Parquet file; ``container!member`` of a tar archive;
            what an id column says. All that can be written as UTF-8; of all items of a plan, no two are equal.
        labels: The true digit where a class folder, labels file, column or ``.cls`` member tells it.
        images: uint8 (N, 28, 28).
        contents: Encoded images, or why there is none.
    """

    ids: list[str]
    labels: list[int | None]
    images: npt.NDArray[np.uint8] | None
    contents: list[bytes | ImageError] | None

    def __len__(self) -> int:
        return len(self.ids)


def read_unit(unit: Unit, *, max_image_bytes: int, batch_size: int = 512) -> Iterator[ItemBatch]:
    """Read the items of a unit.

    A container that is torn, changed or gone since it was planned gives one item behind those before, whose content is
    a `ContainerTornError`. Its id is the container's name; with the index of the first item that is missing, where
    other units may find the same container torn as well.

    Args:
        unit: From `mnist_core.inputs.plan.plan_units`; this machine must see the same files.
        max_image_bytes: Of an encoded image that is larger, its first ``max_image_bytes`` + 1 are given.
        batch_size: Items of a batch, at most; large images make fewer.

    Yields:
        The items, in order. There are ``unit.num_items``, unless a container is torn; behind the tear of a compressed
        array there are none, since the unit with the tear has said so.

    Raises:
        StorageError: A bucket cannot be reached, or there is no room to unpack an array.
    """
    source = open_source(unit.prefix + unit.paths[0], unit.root)
    if unit.kind == "files":
        yield from _in_batches(_read_files(source, unit, max_image_bytes), batch_size)
    elif changed := _what_changed(source, unit):
        yield from _in_batches([_torn(source, unit, unit.start, changed)], 1)
    elif unit.kind == "parquet":
        yield from _in_batches(_read_parquet(source, unit, max_image_bytes), batch_size)
    elif unit.kind == "tar":
        yield from _in_batches(_read_tar(source, unit, max_image_bytes), batch_size)
    else:
        yield from _read_array(source, unit, batch_size)


def utf8_id(name: str) -> str:
    r"""Make an id of a name that UTF-8 may not be able to write.

    File names are bytes. Those that are no UTF-8 are written as ``\xff``; a name in which that could be misread has its
    backslashes doubled, so that different names stay different.
    """
    if name.isascii() and "\\" not in name:
        return name
    escaped = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if escaped == name and not _ESCAPED.search(name):
        return name
    doubled = name.replace("\\", "\\\\")
    return doubled.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _in_batches(items: Iterable[_Item], batch_size: int) -> Iterator[ItemBatch]:
    ids: list[str] = []
    labels: list[int | None] = []
    contents: list[bytes | ImageError] = []
    num_bytes = 0
    for item_id, label, content in items:
        ids.append(utf8_id(item_id))
        labels.append(label)
        contents.append(content if isinstance(content, bytes) else type(content)(utf8_id(str(content))))
        num_bytes += len(content) if isinstance(content, bytes) else 0
        if len(ids) == batch_size or num_bytes > _MAX_BATCH_BYTES:
            yield ItemBatch(ids, labels, None, contents)
            ids, labels, contents, num_bytes = [], [], [], 0
    if ids:
        yield ItemBatch(ids, labels, None, contents)


def _read_files(source: Source, unit: Unit, max_bytes: int) -> Iterator[_Item]:
    contents = source.read_each(unit.names, max_bytes)
    for name, content in zip(unit.names, contents, strict=True):
        yield name, label_of_folder(source.full_path(name)), content


def _read_array(source: Source, unit: Unit, batch_size: int) -> Iterator[ItemBatch]:
    array = ArrayRef(source, unit.paths[0], unit.kind, unit.member)
    try:
        images, fault = read_images(array, unit.start, unit.stop)
    except DatasetError as err:
        yield from _in_batches([_torn(source, unit, unit.start, str(err))], 1)
        return
    labels: list[int | None] = [int(digit) for digit in unit.labels]
    labels = labels or [None] * (unit.stop - unit.start)
    for first in range(0, len(images), batch_size):
        part = images[first : first + batch_size]
        ids = [utf8_id(array.item_id(unit.start + first + index)) for index in range(len(part))]
        yield ItemBatch(ids, labels[first : first + len(part)], part, None)
    if fault:
        yield from _in_batches([(array.item_id(), None, ContainerTornError(fault))], 1)


def _read_tar(source: Source, unit: Unit, max_bytes: int) -> Iterator[_Item]:
    name = unit.paths[0]
    seen: set[int] = set()  # hashes, since a shard may have a million members
    try:
        for index, member in enumerate(read_members(source, name, max_bytes)):
            item_id = f"{name}!{member.name}"
            while hash(item_id) in seen:  # an archive may have several members of one name
                item_id = f"{item_id}#{index}"
            seen.add(hash(item_id))
            yield item_id, member.label, member.content
    except DatasetError as err:
        yield name, None, ContainerTornError(str(err))
        return
    if not seen:
        yield name, None, ItemUnreadableError(f"{name}: expected images in the archive, found none")


def _read_parquet(source: Source, unit: Unit, max_bytes: int) -> Iterator[_Item]:
    from mnist_core.inputs.parquet_files import Columns, read_rows  # loads pyarrow

    name = unit.paths[0]
    columns = Columns(unit.image_column, unit.label_column, unit.id_column)
    index = unit.start
    try:
        for row in read_rows(source, name, columns, unit.start, unit.stop, max_bytes):
            yield row.id or f"{name}#{row.row}", row.label, row.content
            index += 1
    except DatasetError as err:
        yield _torn(source, unit, index, str(err))


def _what_changed(source: Source, unit: Unit) -> str:
    """Say what happened to a container since it was planned with, or nothing."""
    try:
        found = source.state(unit.paths[0]).size_bytes
    except DatasetError as err:
        return str(err)
    if found == unit.size_bytes:
        return ""
    return f"{unit.paths[0]}: expected {unit.size_bytes} bytes as when the job was planned, found {found}"


def _torn(source: Source, unit: Unit, index: int, fault: str) -> _Item:
    array = ArrayRef(source, unit.paths[0], unit.kind, unit.member)
    return array.item_id(index or None), None, ContainerTornError(fault)
