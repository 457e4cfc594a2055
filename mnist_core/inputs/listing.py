"""From what a user names to the files it means: folders, globs, buckets, lists and single files, each file once.

What counts in a folder, on a bucket and in a glob, by name:

- skipped, with everything below: names that begin with ``.`` or ``_``;
- containers of many images: ``.parquet``, ``.npy``, ``.npz``, ``.tar`` (also ``.tgz``, ``.tar.gz``, ``.tar.bz2``,
  ``.tar.xz``), and IDX files, told by name (``images``, ``labels``, ``idx``, ``ubyte``) and first bytes together;
- skipped, and counted by suffix: text that lies beside images, such as ``.txt`` and ``.json``;
- an item: everything else, so that a broken or unknown file is a row with an error and not a silent gap.

A file that is named by itself is an item or a container whatever its name, and its first bytes decide where the name
does not; but ``.txt`` and ``.list``, and any file written ``@file``, are lists: one file a line, relative to the list.
Symbolic links are followed; a folder that is reached twice is read once, under its own name before that of a link.
What is in the containers is asked in ``mnist_core.inputs.plan``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final

from mnist_core.errors import DatasetError, DatasetNotFoundError
from mnist_core.inputs.buckets import NUM_FETCHERS, Bucket, is_remote
from mnist_core.inputs.faults import reading
from mnist_core.inputs.kinds import START_BYTES, is_surely_idx, kind_of_name, kind_of_start, suffix
from mnist_core.inputs.sources import LocalFiles, open_buffered, open_source
from mnist_core.inputs.walking import Entry, Glob, is_glob, walk

_MAX_LINE: Final = 4096  # Linux's longest path
_PROBED_LINES: Final = 20


class Listing:
    """The files that inputs name, each once. A name is as the user would write it.

    Args:
        root: Absolute folder that relative names are looked up in.

    Attributes:
        containers: Name -> kind: ``idx``, ``npy``, ``npz``, ``parquet`` or ``tar``.
        skipped: Where a file that was left out lies -> why: its suffix, ``hidden``, ``labels`` or ``special``.
    """

    def __init__(self, root: str) -> None:
        self.containers: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self._local = LocalFiles(root)
        # Where a folder is, whatever it was called -> file in it -> what the folder was called.
        self._files: dict[object, dict[str, str]] = {}
        self._containers_seen: set[tuple[object, str]] = set()
        self._idx_like: list[Entry] = []
        self._places: dict[str, object] = {}
        self._num_matched = 0

    def add(self, given: str) -> None:
        """Add what one input names.

        Raises:
            DatasetError: It names nothing, or nothing that could be an image.
            StorageError: Its bucket cannot be reached.
        """
        before = self._num_matched
        if given.startswith("@"):
            self._add_list(_clean(given[1:]))
        elif is_remote(given):
            self._add_remote(given)
        else:
            self._add_local(_clean(str(Path(given).expanduser()) if given.startswith("~") else given))
        self._look_into_idx_like()
        if self._num_matched == before:
            raise DatasetError(f"{given}: expected at least one image, found none")

    def files(self) -> list[str]:
        """Name the files that are one image each, sorted."""
        return sorted(folder + name for names in self._files.values() for name, folder in names.items())

    def _add_local(self, given: str) -> None:
        glob = None
        try:
            with reading(given):
                mode = Path(self._local.full_path(given)).stat().st_mode
        except DatasetNotFoundError:
            if not is_glob(given):
                raise
            glob = Glob(given)
        if glob or S_ISDIR(mode):
            for entry in walk(self._local, glob.base if glob else _as_folder(given), glob):
                self._sort_in(entry)
        elif S_ISREG(mode):
            self._add_named(given)
        else:
            raise DatasetError(f"{given}: expected a file or a folder, found a device, pipe or socket")

    def _add_remote(self, given: str) -> None:
        source = open_source(given, self._local.root)
        assert isinstance(source, Bucket)
        if given != source.uri and not given.endswith("/") and source.has(given):
            self._add_named(given)
            return
        glob = Glob(given) if is_glob(given) else None
        base = glob.base if glob else _as_folder(given)
        name = ""
        for name in source.list_below(base):
            path = name[len(base) :]
            is_hidden = glob is None and (path[0] in "._" or "/." in path or "/_" in path)
            if glob is None or glob.matches(path):
                self._sort_in(self._entry(name)._replace(skipped="hidden" if is_hidden else ""))
        if not name:
            raise DatasetNotFoundError(f"{given}: expected an object or objects below it, found nothing")

    def _add_named(self, name: str) -> None:
        kind = kind_of_name(name)
        if suffix(name) in (".txt", ".list"):
            self._add_list(name)
            return
        if kind in ("unknown", "idx?"):
            kind = kind_of_start(self._read_start(name))
        if kind == "labels":
            raise DatasetError(f"{name}: expected images, found labels; name the images file, they are found beside it")
        self._put(self._entry(name), "idx" if kind == "unknown" and is_surely_idx(name) else kind)

    def _add_list(self, name: str) -> None:
        """Add what a list names; a file that is not there will be an item that cannot be read."""
        folder = name[: name.rfind("/") + 1]
        num_lines = num_found = 0
        for number, line in self._lines(name):
            listed = _clean(line if is_remote(line) or line.startswith("/") else folder + line)
            num_lines += 1
            if num_lines <= _PROBED_LINES:
                num_found += self._probe(listed, f"{name}: line {number}")
            elif not num_found:
                break
            entry = self._entry(listed)
            if (kind := kind_of_name(entry.name)) == "idx?":
                self._idx_like.append(entry)
            else:
                self._put(entry, kind)
        if num_lines and not num_found:
            raise DatasetError(f"{name}: expected a list, one path a line, relative to it; found none that exists")

    def _lines(self, name: str) -> Iterator[tuple[int, str]]:
        with reading(name), open_buffered(open_source(name, self._local.root), name) as file:
            text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="\n")
            for number, line in enumerate(iter(lambda: text.readline(_MAX_LINE + 2), ""), 1):
                path = line.rstrip("\r\n").lstrip("\ufeff")
                if "\0" in path or len(path) > _MAX_LINE:
                    raise DatasetError(f"{name}: expected one path a line, found something else in line {number}")
                if path.strip():
                    yield number, path

    def _probe(self, listed: str, where: str) -> bool:
        """Tell whether a listed file exists, so that a text that is no list is not taken for one."""
        if is_remote(listed):
            return True
        path = self._local.full_path(listed)
        with reading(where):
            if Path(path).is_dir():
                raise DatasetError(f"{where}: expected a file, found the folder {listed}; name it as an input instead")
            return os.path.lexists(path)

    def _sort_in(self, entry: Entry) -> None:
        """Decide about a file that was found, not named."""
        kind = kind_of_name(entry.name)
        if entry.skipped or kind == "side":
            if entry.name not in self._files.get(entry.place, ()):  # else it is named, too
                self._skip(entry, entry.skipped or suffix(entry.name))
        elif kind == "npy" and "labels" in entry.name.lower():
            self._skip(entry, "labels")
        elif kind == "idx?":
            self._idx_like.append(entry)
        else:
            self._put(entry, kind)

    def _look_into_idx_like(self) -> None:
        """Tell the IDX files from others with such names; on a bucket each is a request, so several at once."""
        if not self._idx_like:
            return
        with ThreadPoolExecutor(NUM_FETCHERS) as pool:
            for entry, start in zip(self._idx_like, pool.map(self._start_of, self._idx_like), strict=True):
                kind = kind_of_start(start)
                if kind == "labels":
                    self._skip(entry, "labels")
                else:
                    self._put(entry, "idx" if kind == "idx" or is_surely_idx(entry.name) else "file")
        self._idx_like.clear()

    def _skip(self, entry: Entry, why: str) -> None:
        name = entry.folder + entry.name
        self.skipped[name if is_remote(name) else self._local.full_path(name)] = why

    def _put(self, entry: Entry, kind: str) -> None:
        self._num_matched += 1
        if kind in ("file", "side", "unknown"):
            names = self._files.get(entry.place)
            if names is None:
                names = self._files[entry.place] = {}
            names.setdefault(entry.name, entry.folder)
        elif (entry.place, entry.name) not in self._containers_seen:
            self._containers_seen.add((entry.place, entry.name))
            self.containers[entry.folder + entry.name] = kind
        if self.skipped:  # then it may have been found before it was named
            name = entry.folder + entry.name
            self.skipped.pop(name if is_remote(name) else self._local.full_path(name), None)

    def _entry(self, name: str) -> Entry:
        cut = name.rfind("/") + 1
        folder = name[:cut]
        place = self._places.get(folder)
        if place is None:
            place = self._places[folder] = folder if is_remote(folder) else self._local.place(folder)
        return Entry(place, folder, name[cut:], "")

    def _start_of(self, entry: Entry) -> bytes:
        try:
            return self._read_start(entry.folder + entry.name)
        except DatasetError:  # its reader will say so
            return b""

    def _read_start(self, name: str) -> bytes:
        with reading(name), open_buffered(open_source(name, self._local.root), name, START_BYTES) as file:
            return file.read(START_BYTES)


def _clean(path: str) -> str:
    """Leave out what says nothing. ``..`` stays: behind a link it does not mean what it seems to."""
    if not path:
        raise DatasetError("received an empty input, expected a file, a folder, a glob, an URI or @list")
    if is_remote(path):
        return path
    if path[0] != "." and path[-1] != "/" and "//" not in path and "/." not in path:  # most, in a long list
        return path
    names = "/".join(name for name in path.split("/") if name not in ("", "."))
    return f"/{names}" if path.startswith("/") else names or "."


def _as_folder(name: str) -> str:
    return "" if name == "." else f"{name.rstrip('/')}/"
