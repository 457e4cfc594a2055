"""What an image file says of itself, read before any decoder runs: kind, size, frames, orientation, if it is whole.

A decoder then gets a file with the pixels of the first frame and nothing else. Parsers of metadata warn, or take
minutes for a megabyte made for that; and a size that is known beforehand cannot be a surprise. TIFF, whose directories
EXIF has too, is read in ``mnist_core.tiff``; pixels are decoded in ``mnist_core.images``.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mnist_core.errors import ImageBrokenError, ImageTruncatedError, NotAnImageError
from mnist_core.tiff import read_orientation, read_tiff

_PNG_CHUNK: Final = struct.Struct(">I4s")
_PNG_NUMBER: Final = struct.Struct(">I")
_PNG_HEADER: Final = struct.Struct(">IIBBBBB")
_PLAIN_GREY: Final = [8, 0, 0, 0, 0]
_PNG_PIXELS: Final = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MOST_CHUNKS: Final = 100_000
"""Of a PNG, a GIF or a JPEG: ten times what encoders write in 10 MiB, counted in less than 0.1 s."""
_USUAL_SCANS: Final = 16
"""Of a JPEG: a decoder passes over all pixels for each, and progressive files have 10."""
_JPEG_MARKER: Final = re.compile(rb"\xff[\xc0-\xcf\xd9-\xef\xfe]")
"""Of a segment, or the end. Others stand alone, or mean nothing."""
_WEBP_COST: Final = 4
_TIFF_COST: Final = 2
_RUN_LENGTH_COST: Final = 32
"""Pillow reads a run-length encoded BMP in Python."""


_BMP_HEADERS: Final = tuple(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))
"""Lengths that a BMP's second header may have, as they stand there."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """What is known of an image file before it is decoded.

    Attributes:
        kind: Pillow's name of the format.
        width: In pixels, as stored.
        height: In pixels, as stored.
        data: The file as its decoder is to get it: the first frame, without metadata.
        num_frames: Frames or pages of the whole file.
        orientation: How it is to be turned to be upright, 1 to 8 as in EXIF.
        cost: Memory or time that decoding a pixel takes, to that of a plain PNG.
        zipped: The pixels as a PNG packs them, if they are 8 bits of grey, in order and opaque.
    """

    kind: str
    width: int
    height: int
    data: bytes
    num_frames: int = 1
    orientation: int = 1
    cost: float = 1
    zipped: bytes = b""


def read_image_file(data: bytes) -> ImageFile:
    """Read what is known without decoding.

    Args:
        data: Content of a PNG, JPEG, BMP, GIF, WebP or TIFF file.

    Returns:
        The file's properties, and what its decoder is to be given.

    Raises:
        NotAnImageError: It is none of these.
        ImageTruncatedError: Its end is missing.
        ImageBrokenError: It is damaged.
    """
    read = next((read for signature, read in _READERS if data.startswith(signature)), None)
    if read is None or (read is _read_webp and data[8:12] not in (b"WEBP", b"")):
        if any(signature.startswith(data) for signature, _ in _READERS):
            raise ImageTruncatedError(f"received {len(data)} bytes, the beginning of an image file, expected all of it")
        raise NotAnImageError(f"received {len(data)} bytes, expected a PNG, JPEG, BMP, GIF, WebP or TIFF file")
    try:
        return read(data)
    except (struct.error, IndexError, OverflowError) as err:
        raise ImageTruncatedError(f"received {len(data)} bytes of an image file, expected more: it is cut off") from err


def looks_encoded(data: bytes) -> bool:
    """Whether bytes begin as an image file does, and not as pixels of 28x28 images may by chance.

    Args:
        data: An image file, or pixels. Two or three bytes of a signature are as good as any pixels: what follows them
            in a BMP, JPEG or WebP is looked at too.
    """
    if not data.startswith(_SIGNATURES):
        return False
    if data.startswith(b"BM"):
        return data[14:18] in _BMP_HEADERS
    if data.startswith(b"\xff\xd8\xff"):  # as white paper does too; but here a segment ends where a marker begins
        end = 4 + int.from_bytes(data[4:6], "big")
        return data[end : end + 1] == b"\xff"
    return not data.startswith(b"RIFF") or data[8:12] == b"WEBP"


def _read_png(data: bytes) -> ImageFile:
    view, kept, pixels = memoryview(data), [data[:8]], []
    num_frames, orientation, plain = 1, 1, True
    position = 8
    for _ in range(_MOST_CHUNKS):
        length, kind = _PNG_CHUNK.unpack_from(data, position)
        body, end = position + 8, position + 12 + length
        (checksum,) = _PNG_NUMBER.unpack_from(data, end - 4)
        if kind in _PNG_PIXELS:
            if zlib.crc32(view[position + 4 : end - 4]) != checksum:
                raise ImageBrokenError(f"PNG: the checksum of its {kind.decode()} chunk is wrong: the file is damaged")
            if kind == b"IDAT":
                pixels.append(view[body : end - 4])
            elif kind == b"IEND":
                break
            else:
                kept.append(data[position:end])
        elif kind == b"acTL":
            num_frames, plain = max(1, _PNG_NUMBER.unpack_from(data, body)[0]), False
        else:
            plain = False
            if kind == b"eXIf":
                orientation = read_orientation(data[body : end - 4])
        position = end
    if data[12:16] != b"IHDR" or not pixels or kind != b"IEND":
        raise ImageBrokenError("PNG: expected the chunks IHDR, IDAT and IEND, found others")
    width, height, *details = _PNG_HEADER.unpack_from(data, 16)
    packed = b"".join(pixels)
    zipped = packed if details == _PLAIN_GREY and len(kept) == 2 else b""
    if not zipped and (len(pixels) > 1 or not plain):
        data = b"".join([*kept, _png_chunk(b"IDAT", packed), _png_chunk(b"IEND", b"")])
    return ImageFile("PNG", width, height, data, num_frames, orientation, zipped=zipped)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return _PNG_CHUNK.pack(len(body), kind) + body + _PNG_NUMBER.pack(zlib.crc32(body, zlib.crc32(kind)))


def _read_jpeg(data: bytes) -> ImageFile:
    kept, orientation = [data[:2]], 1
    width = height = num_scans = 0
    position = 2
    for _ in range(_MOST_CHUNKS):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            missing = "an end marker" if num_scans else "a scan"
            raise ImageTruncatedError(f"JPEG: expected {missing}, found the end of the file: it is cut off")
        start, marker = found.start(), data[found.start() + 1]
        if num_scans:  # what stands between two segments is pixels
            kept.append(data[position:start])
        if marker == 0xD9 and num_scans:  # phones append films and further pictures
            kept.append(data[start : start + 2])
            return ImageFile("JPEG", width, height, b"".join(kept), 1, orientation, max(1, num_scans / _USUAL_SCANS))
        (length,) = struct.unpack_from(">H", data, start + 2)
        position = start + 2 + length
        data[position]  # raises if the file ends before the next segment
        if marker == 0xDA:
            num_scans += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not num_scans:
            height, width = struct.unpack_from(">HH", data, start + 5)
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", start + 4):
            orientation = read_orientation(data[start + 10 : position])
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[start:position])
    raise ImageBrokenError(f"JPEG: expected less than {_MOST_CHUNKS} segments, found more")


def _read_gif(data: bytes) -> ImageFile:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _gif_colours(flags)
    screen, control, first = data[:position], b"", b""
    num_frames = 0
    for _ in range(_MOST_CHUNKS):
        kind, start = data[position], position
        if kind == 0x21:
            position = _after_blocks(data, position + 2)
            if data[start + 1] == 0xF9 and not num_frames:
                control = data[start:position]
        elif kind == 0x2C:
            left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, position + 1)
            position = _after_blocks(data, position + 11 + _gif_colours(flags))
            if not num_frames:
                first = control + data[start:position]
                width, height = max(width, left + frame_width), max(height, top + frame_height)
            num_frames += 1
        else:
            break
    if not num_frames:
        raise ImageBrokenError("GIF: expected an image, found none")
    return ImageFile("GIF", width, height, screen + first + b";", num_frames)


def _gif_colours(flags: int) -> int:
    """Bytes of a colour table."""
    return 6 << (flags & 7) if flags & 0x80 else 0


def _after_blocks(data: bytes, position: int) -> int:
    while size := data[position]:
        position += 1 + size
    return position + 1


def _read_bmp(data: bytes) -> ImageFile:
    offset, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)
    if compression in (1, 2):  # run-length encoded: at most 2 bytes a pixel, and 2 a row
        data = data[: offset + 2 * max(0, width + 1) * height + 2]
        return ImageFile("BMP", width, height, data, cost=_RUN_LENGTH_COST)
    if offset + (width * bits + 31) // 32 * 4 * height > len(data):
        raise ImageTruncatedError(f"BMP: received {len(data)} bytes, expected more: the file is cut off")
    return ImageFile("BMP", width, height, data)


def _read_webp(data: bytes) -> ImageFile:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ImageTruncatedError(f"WebP: received {len(data)} bytes, expected {size + 8}: the file is cut off")
    kind, orientation, num_frames = data[12:16], 1, 0
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[start : start + 3], "little") + 1 for start in (24, 27))
        position = 12
        while position + 8 <= size + 8:
            chunk, length = struct.unpack_from("<4sI", data, position)
            num_frames += chunk == b"ANMF"
            if chunk == b"EXIF":
                orientation = read_orientation(data[position + 8 : position + 8 + length].removeprefix(b"Exif\0\0"))
            position += 8 + length + length % 2
    return ImageFile("WEBP", width, height, data, max(1, num_frames), orientation, _WEBP_COST)


def _read_tiff(data: bytes) -> ImageFile:
    tiff = read_tiff(data)
    cost = _TIFF_COST * max(1, tiff.tile_pixels / max(1, tiff.width * tiff.height))
    return ImageFile("TIFF", tiff.width, tiff.height, tiff.data, tiff.num_pages, tiff.orientation, cost)


_READERS: Final[tuple[tuple[bytes, Callable[[bytes], ImageFile]], ...]] = (
    (b"\x89PNG\r\n\x1a\n", _read_png),
    (b"\xff\xd8\xff", _read_jpeg),
    (b"GIF87a", _read_gif),
    (b"GIF89a", _read_gif),
    (b"RIFF", _read_webp),
    (b"BM", _read_bmp),
    (b"II*\0", _read_tiff),
    (b"MM\0*", _read_tiff),
    (b"II+\0", _read_tiff),
    (b"MM\0+", _read_tiff),
)
_SIGNATURES: Final = tuple(signature for signature, _ in _READERS)
