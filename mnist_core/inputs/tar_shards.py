"""Images in tar archives, read as a stream: files in class folders, or WebDataset's ``key.png`` beside ``key.cls``.

Headers are read here, not by ``tarfile``: that takes 50 microseconds a member, as long as the network takes for an
image, and takes an archive that is cut between two members, or damaged in a header, for a whole one. Known are the
formats ustar, GNU (long names, large sizes) and pax (POSIX.1-2008, "pax Interchange Format").
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import re
from collections.abc import Callable, Generator, Iterator
from typing import IO, Any, Final, NamedTuple

from mnist_core.errors import DatasetError, ImageError, ItemUnreadableError
from mnist_core.inputs.faults import reading
from mnist_core.inputs.kinds import kind_of_name, label_of_folder, suffix
from mnist_core.inputs.sources import Source, open_buffered

_BLOCK: Final = 512
_FETCH_BYTES: Final = 2**22
_MAX_EXTENSION_BYTES: Final = 2**20  # of a header that only carries a long name
_MAX_WAITING: Final = 64  # images that wait for their label
_DECOMPRESSORS: Final[dict[bytes, Callable[..., Any]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}

_FILES: Final = frozenset((b"0", b"\0", b"7"))  # 7 is a contiguous file, which no system treats differently
_LINKS: Final = frozenset((b"1", b"2"))
_WITHOUT_DATA: Final = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
_GNU_NAME, _PAX, _GNU_SPARSE = b"L", b"x", b"S"
_PAX_RECORD: Final = re.compile(rb"([0-9]{1,7}) ([^=]{1,999})=")  # its length in bytes, key, value, a line feed
_NO_ITEMS: Final = frozenset((b"K", b"g"))  # the name of a link's target; pax values that hold for all members


class Member(NamedTuple):
    """An image of an archive.

    Attributes:
        name: As the archive has it.
        label: What its ``.cls`` says, else its class folder, else None.
        content: Its bytes; of a large one, no more than the reader was asked for.
    """

    name: str
    label: int | None
    content: bytes | ImageError


class _Header(NamedTuple):
    name: str
    type: bytes
    size: int


def holds_members(source: Source, name: str) -> bool:
    """Tell whether an archive has a first member, by its first header.

    Raises:
        DatasetError: It is no tar archive, or cut off right there.
        StorageError: The bucket cannot be reached.
    """
    with reading(name), _opened(source, name, _BLOCK) as stream:
        return _read_header(stream) is not None


def read_members(source: Source, name: str, max_bytes: int) -> Iterator[Member]:
    """Read the images of an archive, in order; of a member larger than ``max_bytes`` the first ``max_bytes`` + 1.

    Folders, hidden files, text and containers are passed over. A link is an image that cannot be read: a stream has
    no way back to what it leads to.

    Raises:
        DatasetError: The archive is torn; what was whole before has been given.
        StorageError: The bucket cannot be reached.
    """
    sample, labels = "", dict[str, int | None]()
    waiting: list[Member] = []  # the images of the sample, for its label may follow
    torn = None
    with contextlib.closing(_entries(source, name, max_bytes)) as entries:
        try:
            for member_name, content in entries:
                if (key := _sample_key(member_name)) != sample:
                    yield from (_labelled(member, labels) for member in waiting)
                    sample, labels, waiting = key, {}, []
                if suffix(member_name) == ".cls":
                    labels[member_name[: -len(".cls")]] = _class_in(content)
                    continue
                if len(waiting) == _MAX_WAITING:
                    yield _labelled(waiting.pop(0), labels)
                waiting.append(Member(member_name, None, content))
        except DatasetError as err:
            torn = err
    yield from (_labelled(member, labels) for member in waiting)
    if torn:
        raise torn


def _sample_key(name: str) -> str:
    """WebDataset's: all up to the first dot of the file name."""
    dot = name.find(".", name.rfind("/") + 1)
    return name[:dot] if dot >= 0 else name


def _labelled(member: Member, labels: dict[str, int | None]) -> Member:
    if not labels:
        return member._replace(label=label_of_folder(member.name))
    stem = member.name[: -len(suffix(member.name))]
    return member._replace(label=labels.get(stem, labels.get(_sample_key(member.name))))


def _class_in(content: bytes | ImageError) -> int | None:
    return int(content) if isinstance(content, bytes) and re.fullmatch(rb"\s*[0-9]\s*", content) else None


def _entries(source: Source, name: str, max_bytes: int) -> Generator[tuple[str, bytes | ImageError], None, None]:
    """Read the members that are images or labels."""
    with reading(name), _opened(source, name, _FETCH_BYTES) as stream:
        extension: dict[str, str] = {}
        while header := _read_header(stream):
            if header.type in (_GNU_NAME, _PAX):
                extension |= _read_extension(stream, header)
                continue
            size = 0 if header.type in _WITHOUT_DATA else int(extension.get("size", header.size))
            path = extension.get("GNU.sparse.name") or extension.get("path", header.name)
            is_sparse = header.type == _GNU_SPARSE or any(key.startswith("GNU.sparse") for key in extension)
            num_read = 0
            if header.type in _NO_ITEMS or path.endswith("/") or not _is_wanted(path):
                pass
            elif header.type in _LINKS or is_sparse:
                what = "sparse file" if is_sparse else "link"
                yield path, ItemUnreadableError(f"{name}!{path}: expected a plain file in the archive, found a {what}")
            elif header.type in _FILES:
                num_read = min(size, max_bytes + 1)
                yield path, _read(stream, num_read)
            _skip(stream, size - num_read + -size % _BLOCK)
            if header.type not in _NO_ITEMS:
                extension = {}
        while rest := stream.read(_FETCH_BYTES):
            if any(rest):
                raise ValueError("there is more behind the mark that ends a tar archive")


def _is_wanted(path: str) -> bool:
    path = path.removeprefix("./")
    if path[:1] in ("", ".", "_") or "/." in path or "/_" in path:
        return False
    return kind_of_name(path) in ("file", "idx?", "unknown") or suffix(path) == ".cls"


def _read_header(stream: IO[bytes]) -> _Header | None:
    """Read one header; None at the mark that ends an archive."""
    block = stream.read(_BLOCK)
    if len(block) < _BLOCK:
        raise EOFError(f"cut off {'in a header' if block else 'before the mark that ends a tar archive'}")
    if not any(block):
        return None
    # The checksum is that of the header with blanks in its own place.
    if sum(block) - sum(block[148:156]) + 8 * ord(" ") != _number(block[148:156]):
        raise ValueError("not the header of a tar archive: its checksum is wrong")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    is_extended = block[156:157] == _GNU_SPARSE and block[482]
    while is_extended:
        is_extended = _read(stream, _BLOCK)[504]
    return _Header(name, block[156:157], _number(block[124:136]))


def _read_extension(stream: IO[bytes], header: _Header) -> dict[str, str]:
    """Read a member that carries a long name or size of the next one."""
    if header.size > _MAX_EXTENSION_BYTES:
        raise ValueError(f"the name of a member takes {header.size} bytes")
    data = _read(stream, header.size)
    _skip(stream, -header.size % _BLOCK)
    if header.type == _GNU_NAME:
        return {"path": _text(data)}
    found: dict[str, str] = {}
    position = 0
    while position < len(data):
        match = _PAX_RECORD.match(data, position)
        end = position + int(match[1]) if match else 0
        if not match or not match.end() < end <= len(data):
            raise ValueError("a pax header of an unknown form")
        found[_text(match[2])] = _text(data[match.end() : end - 1])
        position = end
    if not re.fullmatch("[0-9]{1,19}", found.get("size", "0")):
        raise ValueError("a pax header with a size that is no number")
    return found


def _number(field: bytes) -> int:
    """Read octal digits or, for what needs more, GNU's base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return abs(int(field.strip(b" \0") or b"0", 8))
    except ValueError as err:
        raise ValueError("not the header of a tar archive: it has letters for a number") from err


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _read(stream: IO[bytes], num_bytes: int) -> bytes:
    data = stream.read(num_bytes)
    if len(data) < num_bytes:
        raise EOFError("cut off in a member")
    return data


def _skip(stream: IO[bytes], num_bytes: int) -> None:
    while num_bytes > 0:
        num_bytes -= len(_read(stream, min(num_bytes, _FETCH_BYTES)))


@contextlib.contextmanager
def _opened(source: Source, name: str, fetch_bytes: int) -> Iterator[IO[bytes]]:
    with open_buffered(source, name, fetch_bytes) as file:
        decompress = _DECOMPRESSORS.get(file.peek(2)[:2], contextlib.nullcontext)
        with decompress(file) as stream:
            yield stream
