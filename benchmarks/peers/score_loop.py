"""What a user writes first: one process, Pillow and LiteRT, image by image or, for arrays, in batches.

``score_loop.py MODEL.tflite KIND PATH`` prints one JSON object: images, and seconds from the first file to the last
answer. KIND is ``png`` (a folder), ``idx``, ``parquet`` or ``tar``.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

BATCH_SIZE = 64


def contents(kind: str, path: Path) -> Iterator[bytes]:
    """The encoded images."""
    if kind == "png":
        yield from (file.read_bytes() for file in sorted(path.rglob("*.png")))
    elif kind == "parquet":
        for batch in pq.ParquetFile(path).iter_batches(columns=["image"]):
            yield from batch.column("image").to_pylist()
    else:
        for shard in sorted(path.glob("*.tar")):
            with tarfile.open(shard) as archive:
                yield from (archive.extractfile(member).read() for member in archive if member.name.endswith(".png"))


def batches(kind: str, path: Path) -> Iterator[np.ndarray]:
    """Pixels, a batch at a time."""
    if kind == "idx":
        images = np.frombuffer(path.read_bytes()[16:], np.uint8).reshape(-1, 28, 28)
        yield from (images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE))
        return
    batch = []
    for content in contents(kind, path):
        batch.append(np.asarray(Image.open(io.BytesIO(content)).convert("L")))
        if len(batch) == BATCH_SIZE:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def main(model: str, kind: str, path: str) -> None:
    """Score and print the time."""
    engine = Interpreter(model_path=model, num_threads=2)
    engine.allocate_tensors()
    entrance, exit_ = engine.get_input_details()[0]["index"], engine.get_output_details()[0]["index"]
    digits, size, started = [], 0, time.perf_counter()
    for batch in batches(kind, Path(path)):
        if len(batch) != size:
            size = len(batch)
            engine.resize_tensor_input(entrance, batch.shape)
            engine.allocate_tensors()
        engine.set_tensor(entrance, batch)
        engine.invoke()
        digits.append(engine.get_tensor(exit_).argmax(axis=-1))
    seconds = time.perf_counter() - started
    print(json.dumps({"images": sum(map(len, digits)), "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
