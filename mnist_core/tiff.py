"""TIFF directories: a file's size and pages, and the orientation in EXIF, which is a TIFF directory too.

Nothing is decoded here. https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from mnist_core.errors import ImageBrokenError, ImageTruncatedError


class TiffFile(NamedTuple):
    """What is known of a TIFF file before it is decoded.

    Attributes:
        width: In pixels, as stored.
        height: In pixels, as stored.
        data: The file with a directory that holds what a decoder needs and nothing else.
        num_pages: Pages of the whole file, up to a thousand.
        orientation: How it is to be turned to be upright, 1 to 8 as in EXIF.
        tile_pixels: Pixels of a tile, 0 if there are none.
    """

    width: int
    height: int
    data: bytes
    num_pages: int
    orientation: int
    tile_pixels: int


class _Layout(NamedTuple):
    num_entries: struct.Struct
    entry: struct.Struct
    offset: struct.Struct
    first: int


class _Entry(NamedTuple):
    type: int
    num_values: int
    value: bytes


_CLASSIC: Final = (("H", "HHI4s", "I"), 4)
_BIG: Final = (("Q", "HHQ8s", "Q"), 8)
_LAYOUTS: Final = {
    magic: _Layout(
        struct.Struct(order + codes[0]), struct.Struct(order + codes[1]), struct.Struct(order + codes[2]), first
    )
    for magic, order, (codes, first) in (
        (b"II*\0", "<", _CLASSIC),
        (b"MM\0*", ">", _CLASSIC),
        (b"II+\0", "<", _BIG),
        (b"MM\0+", ">", _BIG),
    )
}
_INTEGERS: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}
_WIDTH, _HEIGHT, _COMPRESSION, _ORIENTATION = 256, 257, 259, 274
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 273, 279, 322, 323, 324, 325
_JPEG_TABLES: Final = 347
_MOST_VALUES: Final = {
    _WIDTH: 1,
    _HEIGHT: 1,
    258: 8,  # bits per sample
    _COMPRESSION: 1,
    262: 1,  # photometric interpretation
    266: 1,  # fill order
    _STRIP_OFFSETS: 2**15,
    277: 1,  # samples per pixel
    278: 1,  # rows per strip
    _STRIP_BYTES: 2**15,
    284: 1,  # planar configuration
    292: 1,  # options of fax compression
    293: 1,
    317: 1,  # predictor
    320: 3 * 2**16,  # colour map
    _TILE_WIDTH: 1,
    _TILE_HEIGHT: 1,
    _TILE_OFFSETS: 2**15,
    _TILE_BYTES: 2**15,
    338: 8,  # extra samples
    339: 8,  # sample format
    _JPEG_TABLES: 2**16,
    530: 2,  # chroma subsampling
}
"""The tags that a decoder needs, and how many values they may have."""
_COMPRESSIONS: Final = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)
"""None, fax, LZW, JPEG, deflate and PackBits. Others take as much memory as the file says."""
_MOST_ENTRIES: Final = 1000
_MOST_PAGES: Final = 1000


def read_tiff(data: bytes) -> TiffFile:
    """Read a TIFF file's first directory, and count the others.

    Raises:
        ImageTruncatedError: Its end is missing.
        ImageBrokenError: It is damaged, or of a compression that is not read.
        struct.error, OverflowError: It points to where it has nothing.
    """
    layout = _LAYOUTS[data[:4]]
    (start,) = layout.offset.unpack_from(data, layout.first)
    entries, following = _read_directory(data, start, layout)
    kept = {tag: entry for tag, entry in entries.items() if tag in _MOST_VALUES}
    values = {tag: _read_integers(data, tag, entry, layout) for tag, entry in kept.items() if tag != _JPEG_TABLES}
    if _WIDTH not in values or _HEIGHT not in values:
        raise ImageBrokenError("TIFF: expected a width and a height, found none")
    if values.get(_COMPRESSION, (1,))[0] not in _COMPRESSIONS:
        raise ImageBrokenError(
            f"TIFF: found compression {values[_COMPRESSION][0]}, expected none, LZW, deflate, JPEG, PackBits or fax"
        )
    for offsets, sizes in ((_STRIP_OFFSETS, _STRIP_BYTES), (_TILE_OFFSETS, _TILE_BYTES)):
        ends = map(sum, zip(values.get(offsets, ()), values.get(sizes, ()), strict=False))
        if max(ends, default=0) > len(data):
            raise ImageTruncatedError(f"TIFF: received {len(data)} bytes, expected more: the file is cut off")
    (width,), (height,) = values[_WIDTH], values[_HEIGHT]
    return TiffFile(
        width=width,
        height=height,
        data=_with_directory(data, kept, layout),
        num_pages=1 + _count_pages(data, following, layout),
        orientation=_orientation(entries, layout),
        tile_pixels=values.get(_TILE_WIDTH, (0,))[0] * values.get(_TILE_HEIGHT, (0,))[0],
    )


def read_orientation(exif: bytes) -> int:
    """Read how an image is to be turned, 1 to 8; 1, not at all, if that is not to be found."""
    try:
        layout = _LAYOUTS[exif[:4]]
        (start,) = layout.offset.unpack_from(exif, layout.first)
        return _orientation(_read_directory(exif, start, layout)[0], layout)
    except (KeyError, struct.error, OverflowError, ImageBrokenError):
        return 1


def _orientation(entries: dict[int, _Entry], layout: _Layout) -> int:
    entry = entries.get(_ORIENTATION)
    if entry is None or entry.type != 3 or entry.num_values != 1:
        return 1
    (value,) = struct.unpack_from(_order(layout) + "H", entry.value)
    return value if 1 <= value <= 8 else 1


def _read_directory(data: bytes, start: int, layout: _Layout) -> tuple[dict[int, _Entry], int]:
    """Read the entries of a directory by tag, and the place of the next directory."""
    (count,) = layout.num_entries.unpack_from(data, start)
    if count > _MOST_ENTRIES:
        raise ImageBrokenError(f"TIFF: found a directory of {count} entries, expected at most {_MOST_ENTRIES}")
    position = start + layout.num_entries.size
    entries: dict[int, _Entry] = {}
    for _ in range(count):
        tag, kind, num_values, value = layout.entry.unpack_from(data, position)
        entries.setdefault(tag, _Entry(kind, num_values, value))
        position += layout.entry.size
    return entries, layout.offset.unpack_from(data, position)[0]


def _read_integers(data: bytes, tag: int, entry: _Entry, layout: _Layout) -> tuple[int, ...]:
    code = _INTEGERS.get(entry.type)
    if code is None or not 1 <= entry.num_values <= _MOST_VALUES[tag]:
        raise ImageBrokenError(
            f"TIFF: tag {tag} has {entry.num_values} values of type {entry.type}, "
            f"expected 1 to {_MOST_VALUES[tag]} integers"
        )
    numbers = struct.Struct(f"{_order(layout)}{entry.num_values}{code}")
    if numbers.size <= len(entry.value):
        return numbers.unpack_from(entry.value)
    return numbers.unpack_from(data, layout.offset.unpack(entry.value)[0])


def _with_directory(data: bytes, entries: dict[int, _Entry], layout: _Layout) -> bytes:
    """Give a file another directory; what that points to stays where it is."""
    start = len(data) + len(data) % 2
    packed = [layout.entry.pack(tag, *entry) for tag, entry in sorted(entries.items())]
    directory = layout.num_entries.pack(len(packed)) + b"".join(packed) + layout.offset.pack(0)
    body = data[layout.first + layout.offset.size :].ljust(start - layout.first - layout.offset.size, b"\0")
    return data[: layout.first] + layout.offset.pack(start) + body + directory


def _count_pages(data: bytes, start: int, layout: _Layout) -> int:
    """Count the directories from one on; a thousand is enough."""
    seen: set[int] = set()
    try:
        while start and start not in seen and len(seen) < _MOST_PAGES:
            (count,) = layout.num_entries.unpack_from(data, start)
            seen.add(start)
            (start,) = layout.offset.unpack_from(data, start + layout.num_entries.size + count * layout.entry.size)
    except (struct.error, OverflowError) as err:
        raise ImageTruncatedError("TIFF: expected more pages, found the end of the file: it is cut off") from err
    return len(seen)


def _order(layout: _Layout) -> str:
    return layout.num_entries.format[0]
