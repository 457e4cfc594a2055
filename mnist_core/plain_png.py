"""PNG files in MNIST's own form, many at once: 28x28 pixels of 8-bit grey, the form that most digits are stored in.

Pillow takes 70 microseconds for such a file, nearly all of it for finding out what it is. Here their first 33 bytes say
so, zlib does what Pillow has it do, and the filters of all files are undone together, pixel by pixel, since each pixel
needs the one before but no other image. Whatever is not plain, or not whole, is left to ``mnist_core.images``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from mnist_core.splits import IMAGE_SIZE

HEIGHT, WIDTH = IMAGE_SIZE
_IHDR: Final = b"IHDR" + struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 0)
HEADER: Final = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + _IHDR + struct.pack(">I", zlib.crc32(_IHDR))
"""Signature and header of a plain file (PNG specification, third edition, sections 5.2 and 11.2.1)."""

_END: Final = b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
_SCANLINES_BYTES: Final = HEIGHT * (1 + WIDTH)
_SUB, _UP, _AVERAGE, _PAETH = 1, 2, 3, 4

Pixels = npt.NDArray[np.uint8]


def decode_plain_pngs(contents: Sequence[object]) -> tuple[npt.NDArray[np.intp], Pixels]:
    """Decode those of some files that are plain and whole.

    Args:
        contents: The files; what is no bytes is passed over.

    Returns:
        Indices of the decoded ones (M,), ascending, and their pixels uint8 (M, 28, 28), as Pillow decodes them.
    """
    found: list[int] = []
    scanlines: list[bytes] = []
    for index, content in enumerate(contents):
        if isinstance(content, bytes) and (inflated := _inflate(content)) is not None:
            found.append(index)
            scanlines.append(inflated)
    filtered = np.frombuffer(b"".join(scanlines), np.uint8).reshape(-1, HEIGHT, 1 + WIDTH)
    if filtered[:, :, 0].max(initial=0) > _PAETH:
        whole = np.flatnonzero(filtered[:, :, 0].max(axis=1) <= _PAETH)
        return np.array(found, np.intp)[whole], _unfilter(filtered[whole])
    return np.array(found, np.intp), _unfilter(filtered)


def _inflate(content: bytes) -> bytes | None:
    """The filtered scanlines of a plain file: header, one chunk of data, end, all with the right checksums."""
    if not content.startswith(HEADER) or not content.endswith(_END):
        return None
    start = len(HEADER)
    stop = len(content) - len(_END) - 4
    length, kind = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + 8]
    if kind != b"IDAT" or start + 8 + length != stop:
        return None
    if zlib.crc32(content[start + 4 : stop]) != int.from_bytes(content[stop : stop + 4], "big"):
        return None
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(content[start + 8 : stop], _SCANLINES_BYTES + 1)
    except zlib.error:
        return None
    return inflated if len(inflated) == _SCANLINES_BYTES and inflater.eof else None


def _unfilter(filtered: Pixels) -> Pixels:
    """Undo the filters of all images (PNG specification, section 9): (N, 28, 1 + 28) to (N, 28, 28)."""
    # Rows and columns first, so that what is computed at once lies together. A border stands for what is outside.
    kinds = np.ascontiguousarray(filtered[:, :, 0].T)
    stored = np.ascontiguousarray(filtered[:, :, 1:].transpose(1, 2, 0))
    pixels = np.zeros((HEIGHT + 1, WIDTH + 1, len(filtered)), np.int16)
    for y in range(HEIGHT):
        above, row = pixels[y], pixels[y + 1]
        row[1:] = stored[y]
        for kind in np.unique(kinds[y]):
            chosen = np.flatnonzero(kinds[y] == kind)
            if kind and len(chosen):
                everyone = len(chosen) == len(filtered)
                where: slice | npt.NDArray[np.intp] = slice(None) if everyone else chosen
                row[:, where] = _unfilter_row(int(kind), row[:, where], above[:, where])
    return np.ascontiguousarray(pixels[1:, 1:].transpose(2, 0, 1)).astype(np.uint8)


def _unfilter_row(kind: int, row: npt.NDArray[np.int16], above: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Undo one filter in one row of some images, (1 + 28, N) each."""
    if kind == _SUB:
        return np.cumsum(row, axis=0, dtype=np.int16) & 0xFF
    if kind == _UP:
        return (row + above) & 0xFF
    for x in range(1, WIDTH + 1):
        left, up = row[x - 1], above[x]
        predicted = (left + up) >> 1 if kind == _AVERAGE else _paeth(left, up, above[x - 1])
        row[x] = (row[x] + predicted) & 0xFF
    return row


def _paeth(
    left: npt.NDArray[np.int16], up: npt.NDArray[np.int16], corner: npt.NDArray[np.int16]
) -> npt.NDArray[np.int16]:
    """Whichever neighbour is nearest to left + up - corner; of equals, in this order: left, up, corner."""
    by_left, by_up = np.abs(up - corner), np.abs(left - corner)
    by_corner = np.abs(left + up - 2 * corner)
    return np.where((by_left <= by_up) & (by_left <= by_corner), left, np.where(by_up <= by_corner, up, corner))
