"""The only decoder: bytes of any image to one MNIST-style digit, and the same rule for arrays that already are 28x28.

An image of 28x28 pixels is taken as it is, inverted if its ink is dark; in any other, the digit is looked for and drawn
anew (``mnist_core.ink``). What comes from outside is bounded, and refused before a decoder runs where that can be told
(``mnist_core.image_files``). Any number of threads may call this.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import ImageFile as PillowFile

from mnist_core.colours import find_tones
from mnist_core.errors import (
    ImageBlankError,
    ImageBrokenError,
    ImageEmptyError,
    ImageError,
    ImageTooManyBytesError,
    ImageTooManyPixelsError,
)
from mnist_core.image_files import ImageFile, read_image_file
from mnist_core.ink import draw_digit
from mnist_core.splits import IMAGE_SIZE

_DECODERS: Final[dict[str, Callable[[io.BytesIO], PillowFile.ImageFile]]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
"""Called by name: ``Image.open`` would try others, and warn of sizes that are checked here."""

_LONGEST_SIDE: Final = 384
"""An image is reduced to less: a digit of a twentieth of it still has MNIST's 20 pixels."""
_MOST_ELONGATED: Final = 100
_BAND_PIXELS: Final = 4_000_000
_FULL_SCALES: Final = (1, 255, 1023, 4095, 16383, 65535, 2**31 - 1)
"""Brightest values of 1, 8, 10, 12, 14, 16 and 31 bits: pixels of more than 8 bits are often not used in full."""
_LARGEST_UNIT: Final = 16.0
"""Range of floats up to which it is the scale: they are from 0 to 1 or -1 to 1, or a little beyond by resampling."""
_FAINTEST: Final = 32
"""Least difference between ink and paper in 28x28 pixels; in MNIST it is 254."""

_WHITE: Final = np.uint8(255)
_EDGE: Final = np.flatnonzero(np.pad(np.zeros((26, 26), np.bool_), 1, constant_values=True))


@dataclass(frozen=True)
class ImageLimits:
    """What an encoded image may be.

    Attributes:
        max_bytes: Of the file.
        max_pixels: Of a PNG, JPEG, BMP or GIF; a WebP may have a quarter, a TIFF half, since their decoders need as
            much more memory. Not above what Pillow takes for an attack, 89 million.
    """

    max_bytes: int = 10 * 2**20
    max_pixels: int = 40_000_000


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """One digit.

    Attributes:
        pixels: uint8 (28, 28), white on black.
        num_frames: Above 1, the image is animated or has more pages, and only the first was read.
    """

    pixels: npt.NDArray[np.uint8]
    num_frames: int


@dataclass(frozen=True, eq=False)
class DecodedTones:
    """An image of one channel.

    Attributes:
        tones: uint8 (height, width), upright, dark ink on light paper or the reverse; reduced if the file has more
            pixels than are needed.
        digit: uint8 (28, 28), white on black: what ``decode_image`` makes of an image of just that size; else None.
        size: Width and height that the file has, upright.
        num_frames: Above 1, the image is animated or has more pages, and only the first was read.
    """

    tones: npt.NDArray[np.uint8]
    digit: npt.NDArray[np.uint8] | None
    size: tuple[int, int]
    num_frames: int


_LIMITS: Final = ImageLimits()


def decode_image(data: bytes, limits: ImageLimits = _LIMITS) -> DecodedImage:
    """Make one digit of an image file.

    Args:
        data: PNG, JPEG, BMP, GIF, WebP or TIFF of any mode and size; dark ink on light ground or the reverse.
        limits: What is refused unread.

    Returns:
        The digit. An image of 28x28 grey pixels, white on black, comes back unchanged.

    Raises:
        ImageError: It cannot be read or shows no digit; each reason has a class of its own.
    """
    tones, file = _read_tones(data, limits, 0)
    pixels = draw_digit(tones) if tones.shape != IMAGE_SIZE else _take_digit(tones)
    return DecodedImage(pixels, file.num_frames)


def decode_tones(data: bytes, limits: ImageLimits = _LIMITS, area: int = 0) -> DecodedTones:
    """Decode an image file to the one channel in which ink and paper differ most, for who looks for more than a digit.

    Args:
        data: As for ``decode_image``.
        limits: What is refused unread.
        area: Pixels that may be kept if they are more than a single digit needs.

    Raises:
        ImageError: It cannot be read; the reasons are those of ``decode_image``.
    """
    tones, file = _read_tones(data, limits, area)
    width, height = file.width, file.height
    size = (height, width) if file.orientation >= 5 else (width, height)
    digit = _take_digit(tones) if tones.shape == IMAGE_SIZE else None
    return DecodedTones(tones, digit, size, file.num_frames)


def _read_tones(data: bytes, limits: ImageLimits, area: int) -> tuple[npt.NDArray[np.uint8], ImageFile]:
    if not data:
        raise ImageEmptyError("received no bytes, expected an image file")
    if len(data) > limits.max_bytes:
        raise ImageTooManyBytesError(
            f"received {len(data)} bytes, expected at most {limits.max_bytes}; reduce the image"
        )
    file = read_image_file(data)
    _check_size(file, limits)
    # The longer side of as many pixels, in this file's proportions.
    longest = max(_LONGEST_SIDE, math.isqrt(area * max(file.width, file.height) // min(file.width, file.height)))
    try:
        return _decode_tones(file, longest), file
    except ImageError:
        raise
    except Exception as err:  # a decoder of Pillow raises whatever its parser meets
        reason = " ".join(str(err).split())
        raise ImageBrokenError(f"received a {file.kind} file that cannot be decoded ({reason})") from err


def _take_digit(tones: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """What has a digit's size already, white on black."""
    inverted, blank = _judge(int(tones.min()), int(tones.max()), int(tones.take(_EDGE).sum()))
    if blank:
        raise ImageBlankError("expected a digit, found an image without ink")
    return tones ^ _WHITE if inverted else tones


def prepare_images(images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Treat pixels as ``decode_image`` treats those of a grey file of 28x28.

    An image whose edge is nearer to its brightest pixel than to its darkest is dark on light.

    Args:
        images: uint8 (N, 28, 28).

    Returns:
        The images, those that are dark on light inverted, uint8 (N, 28, 28): the very array if there are none. And
        which are blank, bool (N,).
    """
    if len(images) == 1:  # in half the time, with the same numbers
        tones = images[0]
        inverted, blank = _judge(int(tones.min()), int(tones.max()), int(tones.take(_EDGE).sum()))
        return images ^ _WHITE if inverted else images, np.array([blank])
    flat = images.reshape(len(images), IMAGE_SIZE[0] * IMAGE_SIZE[1])
    edge = flat.take(_EDGE, axis=1).sum(1, dtype=np.int64)
    inverted, blank = _judge(flat.min(1).astype(np.int64), flat.max(1).astype(np.int64), edge)
    if inverted.any():
        images = images ^ np.where(inverted, _WHITE, np.uint8(0))[:, None, None]
    return images, blank


def _judge(darkest: Any, brightest: Any, edge: Any) -> tuple[Any, Any]:
    """Whether images are dark on light, and whether blank; from their extrema and the sums of their edges."""
    return 2 * edge > len(_EDGE) * (darkest + brightest), brightest - darkest < _FAINTEST


def _check_size(file: ImageFile, limits: ImageLimits) -> None:
    width, height = file.width, file.height
    if width <= 0 or height <= 0:
        raise ImageBrokenError(f"received a {file.kind} file of {width}x{height} pixels, expected some")
    most = int(min(limits.max_pixels, Image.MAX_IMAGE_PIXELS or limits.max_pixels) / file.cost)
    if width * height > most:
        raise ImageTooManyPixelsError(
            f"received a {file.kind} file of {width}x{height} pixels, expected at most {most} pixels; reduce the image"
        )
    if max(width, height) > _MOST_ELONGATED * min(width, height):
        raise ImageTooManyPixelsError(
            f"received an image of {width}x{height} pixels, expected one side at most {_MOST_ELONGATED} times the "
            "other; cut out the digit"
        )


def _decode_tones(file: ImageFile, longest: int) -> npt.NDArray[np.uint8]:
    """Decode to one channel, upright and with sides that are not longer."""
    image = _open(file, longest)
    if image.size == IMAGE_SIZE and file.zipped:  # the usual case
        tones = np.frombuffer(image.tobytes(), np.uint8).reshape(IMAGE_SIZE)
    else:
        tones = find_tones(_reduce(image, longest))
    if file.orientation == 1:
        return tones
    turned = np.rot90(tones, {3: 2, 4: 2, 5: -1, 6: -1, 7: 1, 8: 1}.get(file.orientation, 0))
    return np.ascontiguousarray(turned[:, ::-1] if file.orientation in (2, 4, 5, 7) else turned)


def _open(file: ImageFile, most: int) -> Image.Image:
    if file.zipped:  # a quarter of the time that Pillow takes to open the file
        return Image.frombytes("L", (file.width, file.height), file.zipped, "zip", ("L", 0))
    image = _DECODERS[file.kind](io.BytesIO(file.data))
    if image.size != (file.width, file.height):
        raise ImageBrokenError(f"received a {file.kind} file of which two sizes are told, expected one")
    longest = max(image.size)
    if file.kind == "JPEG" and longest > 2 * most:
        ratio = longest // most
        image.draft(None, (image.width // ratio, image.height // ratio))  # decodes an eighth of the size, if need be
    image.load()
    return image


def _reduce(image: Image.Image, longest: int) -> Image.Image:
    """Bring an image to mode L, RGB or RGBA and to few pixels: band by band, so that no large copy is made."""
    factor = -(-max(image.size) // longest)
    convert = _converter(image)
    width, height = image.size
    rows = max(1, _BAND_PIXELS // (width * factor)) * factor
    if rows >= height:
        band = convert(image)
        return band.reduce(factor) if factor > 1 else band
    reduced: Image.Image | None = None
    for top in range(0, height, rows):
        band = convert(image.crop((0, top, width, min(height, top + rows)))).reduce(factor)
        if reduced is None:
            reduced = Image.new(band.mode, (band.width, -(-height // factor)))
        reduced.paste(band, (0, top // factor))
    assert reduced is not None
    return reduced


def _converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _wide_converter(image)
    opaque_mode = "L" if image.mode in ("L", "1") else "RGB"
    mode = "RGBA" if image.has_transparency_data else opaque_mode
    return lambda band: band if band.mode == mode else band.convert(mode)


def _wide_converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Bring pixels of more than 8 bits to 8: by the least number of bits that holds them all."""
    extrema: Any = image.getextrema()
    lowest, highest = (float(value) for value in extrema)
    if not np.isfinite([lowest, highest]).all():
        raise ImageBrokenError("found pixels that are no numbers, expected finite ones")
    lowest = min(lowest, 0.0)
    span = highest - lowest
    of_units = image.mode == "F" and 0 < span <= _LARGEST_UNIT
    scale = 255 / (span if of_units else next((full for full in _FULL_SCALES if span <= full), span))

    def convert(band: Image.Image) -> Image.Image:
        return Image.fromarray(np.rint((np.asarray(band, np.float32) - lowest) * scale).astype(np.uint8))

    return convert
