"""Decode mutated image files and count what comes out: ``python tests/fuzz_images.py --files 100000 --seed 0``.

Valid files of every format are flipped, cut, spliced and repeated at random places, headers included. Prints one line:
files, digits and errors by code, the slowest file, the peak memory. Exit code 1 if anything but an ImageError was
raised or warned of; those files are kept in the working directory.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mnist_core.errors import ImageError
from mnist_core.images import decode_image

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
HEADER_BYTES = 64


def valid_files() -> list[bytes]:
    """A drawn digit in every format, in several modes and sizes."""
    files = []
    for size in ((28, 28), (60, 90), (160, 120)):
        image = Image.new("L", size, 255)
        ImageDraw.Draw(image).line([(4, 5), (size[0] - 6, 5), (size[0] // 3, size[1] - 4)], fill=0, width=3)
        for mode in ("1", "L", "P", "RGB", "RGBA"):
            for kind in FORMATS:
                buffer = io.BytesIO()
                try:
                    image.convert(mode).save(buffer, kind)
                except OSError:  # a format without this mode
                    continue
                files.append(buffer.getvalue())
        wide = io.BytesIO()
        Image.fromarray(np.asarray(image).astype(np.uint16) * 257).save(wide, "PNG")
        files.append(wide.getvalue())
    return files


def mutate(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """Spoil a file in one to four ways."""
    content = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(content) or 1)
        way = dice.choice(("flip", "header", "cut", "splice", "repeat", "noise"))
        if way == "flip" and content:
            content[place] ^= 1 << dice.randrange(8)
        elif way == "header" and content:
            content[dice.randrange(min(HEADER_BYTES, len(content)))] = dice.randrange(256)
        elif way == "cut":
            del content[place:]
        elif way == "splice":
            content[place:] = other[dice.randrange(len(other)) :]
        elif way == "repeat":
            content[place:place] = content[place : place + dice.randrange(1, 200)]
        else:
            content[place : place + 8] = dice.randbytes(8)
    return bytes(content)


def main() -> int:
    """Fuzz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("error")
    dice, valid = random.Random(options.seed), valid_files()
    counts: Counter[str] = Counter()
    slowest_s = 0.0
    for index in range(options.files):
        content = mutate(dice.choice(valid), dice.choice(valid), dice)
        started = time.perf_counter()
        try:
            decode_image(content)
            counts["digit"] += 1
        except ImageError as err:
            counts[err.code] += 1
        except Exception as err:  # the very thing that is looked for
            counts[f"BUG {type(err).__name__}"] += 1
            Path(f"fuzz-{options.seed}-{index}.bin").write_bytes(content)
            print(f"file {index}: {err!r}", file=sys.stderr)
        slowest_s = max(slowest_s, time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.files} files: {dict(counts)}, slowest {slowest_s * 1000:.0f} ms, peak {peak:.0f} MB")
    return int(any(name.startswith("BUG") for name in counts))


if __name__ == "__main__":
    sys.exit(main())
