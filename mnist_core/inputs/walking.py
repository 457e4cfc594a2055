"""Going through folders: whole ones, or what a glob asks for; the same globs are matched against the keys of a bucket.

The standard library's ``glob`` can run for ever where symbolic links cross, and knows no buckets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from mnist_core.inputs.faults import reading
from mnist_core.inputs.sources import LocalFiles

_MAGIC: Final = re.compile(r"[*?[]")
_VISIBLE: Final = r"(?![._])"  # as for a shell, a wildcard stands for no leading dot; here for no '_' either
_ANY_FOLDERS: Final = rf"(?:{_VISIBLE}[^/]+/)*"


class Entry(NamedTuple):
    """What lies in a folder.

    Attributes:
        place: The folder, the same however it was reached.
        folder: The folder as it was reached: empty, or with a slash at its end.
        name: Of the entry in it.
        skipped: Empty for a file; else why it is none: ``hidden`` or ``special``.
    """

    place: object
    folder: str
    name: str
    skipped: str


def is_glob(name: str) -> bool:
    """Tell whether a name has a wildcard in it."""
    return _MAGIC.search(name) is not None


class Glob:
    """A compiled glob: ``*`` and ``?`` within a name, ``[...]``, ``**`` for any folders.

    A folder that it matches stands for everything below it.

    Args:
        pattern: With at least one wildcard.

    Attributes:
        base: The folder that all matches lie in: empty, or with a slash at its end.
    """

    def __init__(self, pattern: str) -> None:
        literal = _MAGIC.split(pattern, maxsplit=1)[0]
        self.base = literal[: literal.rfind("/") + 1]
        segments = pattern[len(self.base) :].split("/")
        if segments[-1] == "**":
            segments.append("*")
        *folders, last = segments
        matched = "".join(_ANY_FOLDERS if each == "**" else f"{_segment(each)}/" for each in folders) + _segment(last)
        self._matched = re.compile(rf"{matched}(?:/{_VISIBLE}[^/]+)*", re.DOTALL)
        num_known = folders.index("**") if "**" in folders else len(folders)
        entered = _ANY_FOLDERS if num_known < len(folders) else ""
        for folder in reversed(folders[:num_known]):
            entered = f"(?:{_segment(folder)}/{entered})?"
        self._entered = re.compile(entered, re.DOTALL)

    def matches(self, path: str) -> bool:
        """Tell whether a file, or a folder above it, is meant; ``path`` is relative to `base`."""
        return self._matched.fullmatch(path) is not None

    def enters(self, folder: str) -> bool:
        """Tell whether something below a folder may be meant; ``folder`` is relative to `base`, no slash at its end."""
        return self._entered.fullmatch(f"{folder}/") is not None or self.matches(folder)


def _segment(pattern: str) -> str:
    """Translate what stands between two slashes."""
    parts, position = [_VISIBLE if is_glob(pattern[:1]) else ""], 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        end = pattern.find("]", position + 1 + (pattern[position : position + 1] == "!")) if char == "[" else -1
        if char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif end >= 0:
            chars = re.sub(r"([\\\]\[^&~|])", r"\\\1", pattern[position:end])
            parts.append(f"(?!/)[^{chars[1:]}]" if chars.startswith("!") else f"[{chars}]")
            position = end + 1
        else:
            parts.append(re.escape(char))
    return "".join(parts)


def walk(files: LocalFiles, base: str, glob: Glob | None = None) -> Iterator[Entry]:
    """Find the files below a folder, each folder once, those that are symbolic links last.

    Args:
        files: Knows where a relative folder is.
        base: The folder: empty, or with a slash at its end.
        glob: What to look for; without one, all but what is hidden.

    Yields:
        The entries, in no order. A link that leads nowhere is a file, for its reader to complain.

    Raises:
        DatasetError: A folder cannot be read.
    """
    seen: set[object] = set()
    folders, linked = [base], list[str]()
    while folders or linked:
        if not folders:
            linked.sort(reverse=True)
            folders.append(linked.pop())
        folder = folders.pop()
        place = files.place(folder)
        if place in seen:
            continue
        seen.add(place)
        path = folder[len(base) :]
        with reading(folder or "."), os.scandir(files.full_path(folder)) as entries:
            for entry in entries:
                name = entry.name
                if glob is None and name[0] in "._":
                    yield Entry(place, folder, name, "hidden")
                elif (kind := _kind(entry)) == "folder":
                    if glob is None or glob.enters(path + name):
                        (linked if entry.is_symlink() else folders).append(f"{folder}{name}/")
                elif glob is None or glob.matches(path + name):
                    yield Entry(place, folder, name, kind)


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_file():
            return ""
        if entry.is_dir():
            return "folder"
        return "" if entry.is_symlink() else "special"
    except OSError:  # a link to itself
        return ""
