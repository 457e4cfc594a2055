"""From what the user of a scoring job names to its plan: a list of work units that any worker can read.

A unit is plain data, of some thousand images but for a tar, which is one, and the same for the same inputs. Problems
that can be seen before the job starts are refused here. Which files an input means is decided in ``listing``;
``readers`` turns a unit into its items.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, groupby, pairwise
from typing import Final

from mnist_core.errors import DatasetError
from mnist_core.inputs.array_files import ArrayRef, count_images, find_arrays, find_labels_member, read_labels
from mnist_core.inputs.buckets import NUM_FETCHERS, is_remote
from mnist_core.inputs.kinds import kind_of_name
from mnist_core.inputs.listing import Listing
from mnist_core.inputs.sources import Source, open_source
from mnist_core.inputs.tar_shards import holds_members
from mnist_core.splits import find_labels_name, pair_idx_names

FILES_PER_UNIT: Final = 2000
"""At most; a quarter of a second of work. MNIST as 70,000 files makes 35 units, for a few workers or many to share."""

ROWS_PER_UNIT: Final = 5000
SHARES_OF_A_GROUP: Final = 4
"""Units that a row group of Parquet is cut into at most. All of them together read it 2.5 times."""
"""At most, of an array or a Parquet file; these are read faster than files."""

_WITH_LABELS_FILE: Final = ("idx", "npy")


@dataclass(frozen=True)
class Unit:
    """One piece of work. ``Unit(**json.loads(json.dumps(dataclasses.asdict(unit))))`` is the same unit.

    Attributes:
        kind: ``files``, ``idx``, ``npy``, ``npz``, ``parquet`` or ``tar``.
        paths: The files, of other kinds the one container, each without ``prefix``.
        prefix: What the names of all begin with.
        root: Absolute folder that relative names are looked up in; empty where none is relative.
        start: Index of the first item in a container.
        stop: Index behind the last one.
        num_items: How many; None where only reading tells: for ``tar``.
        size_bytes: Of the container, to tell when it is no longer the one that was planned with.
        member: Which array of an ``.npz``.
        labels: The true labels of an array's items, one digit each; empty where none are known.
        image_column: Of a Parquet file: where the images are.
        label_column: Of a Parquet file: where true labels are, or empty.
        id_column: Of a Parquet file: where ids are, or empty.
    """

    kind: str
    paths: tuple[str, ...]
    prefix: str = ""
    root: str = ""
    start: int = 0
    stop: int = 0
    num_items: int | None = None
    size_bytes: int = 0
    member: str = ""
    labels: str = ""
    image_column: str = ""
    label_column: str = ""
    id_column: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(self.paths))  # JSON has lists only

    @property
    def names(self) -> Iterator[str]:
        """The names of the files."""
        return (self.prefix + path for path in self.paths)


@dataclass(frozen=True)
class Plan:
    """What a job shall do.

    Attributes:
        units: The work, in the order of its results: files, then containers, each sorted by name.
        skipped: How many files were left out, by suffix, or ``hidden``, ``labels`` (that belong to no images) or
            ``special`` (devices, pipes and sockets).
    """

    units: list[Unit]
    skipped: dict[str, int]

    @property
    def num_items(self) -> int | None:
        """How many items there will be; None where only reading tells."""
        counts = [unit.num_items for unit in self.units]
        return None if None in counts else sum(filter(None, counts))


def plan_units(
    inputs: Sequence[str],
    *,
    labels: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
) -> list[Unit]:
    """Plan as `plan_inputs` does, for who does not report what was skipped."""
    return plan_inputs(
        inputs, labels=labels, image_column=image_column, label_column=label_column, id_column=id_column
    ).units


def plan_inputs(
    inputs: Sequence[str],
    *,
    labels: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
) -> Plan:
    """Find all items that inputs name and share them out in units. A file that is named twice counts once.

    Args:
        inputs: Files, folders, globs, lists (``.txt``, ``.list``, ``@file``) and ``s3://``, ``gs://`` URIs; see
            ``mnist_core.inputs.listing``.
        labels: File with the labels of the one IDX or ``.npy`` file among the inputs. Without it, they are looked for
            beside the images: ``...labels...`` to ``...images...``.
        image_column: Column of the Parquet files with encoded images; None looks for ``image``, ``img``, ``bytes``,
            ``data`` or ``content``.
        label_column: Column with true labels; None looks for ``label``, ``labels`` or ``digit``.
        id_column: Column with ids that tell the rows of all Parquet files apart; None calls rows by file and index.

    Returns:
        The plan, with at least one item as far as can be told.

    Raises:
        DatasetError: An input is missing, empty, torn or of a form that is not read; the message names it.
        StorageError: A bucket cannot be reached.
    """
    root = os.getcwd()  # noqa: PTH109 a string
    listing = Listing(root)
    for given in inputs:
        listing.add(given)
    files, containers = listing.files(), sorted(listing.containers.items())
    _refuse_ambiguous_ids(files, [name for name, _ in containers])
    if labels and len([kind for _, kind in containers if kind in _WITH_LABELS_FILE]) != 1:
        raise DatasetError(f"labels {labels}: expected exactly one IDX or .npy file among the inputs to belong to")
    find_labels = _LabelsFinder(root, labels)
    wanted = {"image": image_column or "", "label": label_column or "", "id": id_column or ""}
    with ThreadPoolExecutor(NUM_FETCHERS) as pool:  # on a bucket, a container is a few requests
        planned = pool.map(lambda each: _plan_container(root, each[0], each[1], find_labels, wanted), containers)
        units = [*_file_units(files, root), *chain.from_iterable(planned)]
    if id_column:
        _check_ids(units, id_column)
    if not units:
        raise DatasetError(f"{' '.join(inputs)[:200]}: expected at least one image, found none")
    left_out = (reason for path, reason in listing.skipped.items() if path not in find_labels.used)
    return Plan(units, dict(sorted(Counter(left_out).items())))


def _refuse_ambiguous_ids(files: list[str], containers: list[str]) -> None:
    """Refuse a file whose name begins as the ids of a container's items do."""
    for names in (files, containers):
        for container in containers:
            for mark in "#!":
                position = bisect_left(names, container + mark)
                if position < len(names) and names[position].startswith(container + mark):
                    raise DatasetError(f"{names[position]}: looks like an item of {container}; rename one of the two")


def _file_units(names: list[str], root: str) -> Iterator[Unit]:
    for _, group in groupby(names, _bucket_of):
        of_one_place = list(group)
        for start, stop in _shares(len(of_one_place), FILES_PER_UNIT):
            first, last = of_one_place[start], of_one_place[stop - 1]
            # Of the first and the last is of all, since they are sorted.
            prefix = os.path.commonprefix([first, last])  # noqa: RUF071 and is cut behind a slash
            prefix = prefix[: prefix.rfind("/") + 1]
            is_whole = is_remote(first) or (first.startswith("/") and last.startswith("/"))
            yield Unit(
                kind="files",
                paths=tuple(name[len(prefix) :] for name in of_one_place[start:stop]),
                prefix=prefix,
                root="" if is_whole else root,
                stop=stop - start,
                num_items=stop - start,
            )


def _bucket_of(name: str) -> str:
    return name[: name.find("/", name.find("://") + 3)] if is_remote(name) else ""


def _shares(num_items: int, at_most: int) -> Iterator[tuple[int, int]]:
    """Cut a range into shares that differ by one at most."""
    num_shares = -(-num_items // at_most)
    bounds = [num_items * share // num_shares for share in range(num_shares + 1)] if num_shares else []
    return pairwise(bounds)


class _LabelsFinder:
    """Finds the labels of arrays of images, and remembers which files they were in."""

    def __init__(self, root: str, given: str | None) -> None:
        self.used: set[str] = set()
        self._root, self._given = root, given

    def __call__(self, array: ArrayRef, num_images: int) -> str:
        if array.kind == "npz":
            labels = find_labels_member(array)
        else:
            name = self._given or self._beside(array)
            kind = "npy" if name and kind_of_name(name) == "npy" else "idx"
            labels = ArrayRef(open_source(name, self._root), name, kind) if name else None
        if labels is None:
            return ""
        self.used.add(labels.source.full_path(labels.name))
        return read_labels(labels, num_images, array.name)

    def _beside(self, array: ArrayRef) -> str | None:
        folder, _, name = array.name.rpartition("/")
        folder += "/" if "/" in array.name else ""
        found = find_labels_name(name, self._pairs_in(array.source, folder))
        return folder + found if found else None

    @lru_cache(maxsize=1)  # noqa: B019 the finder lives as long as a plan is made
    def _pairs_in(self, source: Source, folder: str) -> dict[str, dict[str, str]]:
        return pair_idx_names(source.names_in(folder))


def _plan_container(root: str, name: str, kind: str, find_labels: _LabelsFinder, wanted: dict[str, str]) -> list[Unit]:
    source = open_source(name, root)
    unit = Unit(
        kind=kind,
        paths=(name,),
        root="" if is_remote(name) or name.startswith("/") else root,
        size_bytes=source.state(name).size_bytes,
    )
    if kind == "tar":
        return [unit] if holds_members(source, name) else []
    if kind == "parquet":
        return _plan_parquet(source, unit, wanted)
    units = []
    for array in find_arrays(source, name, kind):
        num_images = count_images(array)
        labels = find_labels(array, num_images)
        units += [
            replace(part, member=array.member, labels=labels[part.start : part.stop])
            for part in _parts(unit, _shares(num_images, ROWS_PER_UNIT))
        ]
    return units


def _plan_parquet(source: Source, unit: Unit, wanted: dict[str, str]) -> list[Unit]:
    from mnist_core.inputs.parquet_files import Columns, find_columns  # loads pyarrow

    columns, group_sizes = find_columns(source, unit.paths[0], Columns(**wanted))
    unit = replace(unit, image_column=columns.image, label_column=columns.label, id_column=columns.id)
    return _parts(unit, _row_ranges(group_sizes))


def _row_ranges(group_sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Share out row groups: small ones together, and a large one among few, as each reads it from its beginning."""
    start = stop = 0
    for size in group_sizes:
        if stop - start + size > ROWS_PER_UNIT and stop > start:
            yield start, stop
            start = stop
        stop += size
        if stop - start > ROWS_PER_UNIT:
            rows = max(ROWS_PER_UNIT, -(-(stop - start) // SHARES_OF_A_GROUP))
            yield from ((start + first, start + last) for first, last in _shares(stop - start, rows))
            start = stop
    if stop > start:
        yield start, stop


def _parts(unit: Unit, ranges: Iterable[tuple[int, int]]) -> list[Unit]:
    return [replace(unit, start=start, stop=stop, num_items=stop - start) for start, stop in ranges]


def _check_ids(units: list[Unit], column: str) -> None:
    from mnist_core.inputs.parquet_files import check_ids  # loads pyarrow

    files = {unit.paths[0]: unit.root for unit in units if unit.kind == "parquet"}
    if files:
        check_ids([(open_source(name, root), name) for name, root in files.items()], column)
