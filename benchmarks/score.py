"""Images per second that a scoring job scores, beside what a user would write instead; the same images in four forms.

  ours         `mnist score`, whole command, start-up included: it scores by itself where Ray would start for longer
  ours on Ray  the same with one actor a core asked for, in steady state
  loop         one process, Pillow and bare LiteRT on all cores, batches of 64 (peers/score_loop.py): whole command
  ray-data     Ray Data's `read_images` and `map_batches(model.predict)` (peers/score_ray_data.py): without start-up;
               PNG only, and only the first --ray-data-images of them
  engine       `Predictor.predict` on pixels that are in memory already

The forms: PNG files in class folders, one IDX file, one Parquet file and tar shards, MNIST's own images. A rate of a
whole command is all images over its wall time. Ours in steady state is the images that were done in the last 60% of the
work units over the time that those took, when all actors work. The loop is steady from its first image on.

Read the ratios: each is the median of ratios taken within one round.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _common import (
    CORES,
    PEERS,
    ROOT,
    at_least,
    interleave,
    make_parser,
    make_row,
    median_ratio,
    print_report,
    started,
)
from PIL import Image

from mnist_core.artifact import publish_artifact
from mnist_core.predictor import load_predictor
from mnist_core.registry import promote
from mnist_core.splits import Split, read_splits
from mnist_core.storage import open_storage

SHARD = 10_000
STEADY_FRACTION = 0.6
FEWEST_UNITS = 10
Rates = dict[str, float]


def make_model(folder: Path) -> dict[str, bytes]:
    """The notebook's network, published in a storage at ``folder``/storage."""
    made = folder / "model"
    made.mkdir()
    command = [sys.executable, str(PEERS / "engine_model.py"), str(made), "convnet"]
    with started(command, folder, PYTHONPATH=str(ROOT)) as running:
        running.wait()
    files = {path.name: path.read_bytes() for path in made.glob("model.*")}
    storage = open_storage(str(folder / "storage"))
    manifest = publish_artifact(storage, "mnist", files, run_id="b", config={}, dataset={}, metrics={}, libraries={})
    promote(storage, "mnist", manifest.version)
    return files


def write_forms(data: Split, folder: Path, num_ray_data: int) -> dict[str, Path]:
    """Write the images in all forms."""
    forms = {name: folder / name for name in ("png", "tar", "ray-data")}
    forms |= {"idx": folder / "images-idx3-ubyte", "parquet": folder / "images.parquet"}
    encoded = []
    for path in (forms["png"], forms["tar"], forms["ray-data"]):
        path.mkdir()
    for digit in range(10):
        (forms["png"] / str(digit)).mkdir()
    for index, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
        (forms["png"] / str(label) / f"{index:05d}.png").write_bytes(encoded[-1])
        if index < num_ray_data:
            (forms["ray-data"] / f"{index:05d}.png").write_bytes(encoded[-1])
    write_idx(forms["idx"], data.images)
    table = pa.table({"image": encoded, "label": pa.array(data.labels.tolist(), pa.int8())})
    pq.write_table(table, forms["parquet"], row_group_size=5_000)
    for start in range(0, len(encoded), SHARD):
        with tarfile.open(forms["tar"] / f"{start // SHARD:05d}.tar", "w") as archive:
            for index, content in enumerate(encoded[start : start + SHARD], start):
                member = tarfile.TarInfo(f"{index:05d}.png")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return forms


def write_idx(path: Path, images: np.ndarray) -> None:
    """Write images, (N, 28, 28) uint8, as MNIST's own files are."""
    header = b"\0\0\x08\x03" + b"".join(int(size).to_bytes(4, "big") for size in images.shape)
    path.write_bytes(header + images.tobytes())


def ours(path: Path, folder: Path, *options: str) -> Rates:
    """Rates of our command: whole, and, where actors were asked for, in steady state."""
    output = folder / "scored"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "jobs.cli", "score", str(path), str(output), "--storage", str(folder / "storage")]
    begun = time.perf_counter()
    with started([*command, *options, "--json"], folder) as running:
        items = running.result()["items"]
        seconds = time.perf_counter() - begun
    if not options:
        return {"whole": items / seconds}
    times = sorted(record.stat().st_mtime for record in (output / "_records").iterdir())
    if len(times) < FEWEST_UNITS:
        print(f"warning: {len(times)} work units have no steady state, expected more --images", file=sys.stderr)
        return {"steady": items / seconds}
    first = int(len(times) * (1 - STEADY_FRACTION))
    share = (len(times) - 1 - first) / len(times)
    return {"steady": items * share / (times[-1] - times[first])}


def loop(kind: str, path: Path, folder: Path) -> Rates:
    """Rates of the plain loop."""
    model = folder / "model" / "model.tflite"
    begun = time.perf_counter()
    with started([sys.executable, str(PEERS / "score_loop.py"), str(model), kind, str(path)], folder) as running:
        result = running.result()
        seconds = time.perf_counter() - begun
    return {"whole": result["images"] / seconds, "steady": result["images"] / result["seconds"]}


def ray_data(path: Path, folder: Path) -> Rates:
    """Rate of Ray Data with ``model.predict``."""
    model = folder / "model" / "model.keras"
    with started([sys.executable, str(PEERS / "score_ray_data.py"), str(model), str(path)], folder) as running:
        result = running.result()
    return {"steady": result["images"] / result["seconds"]}


def engine(files: dict[str, bytes], data: Split) -> Rates:
    """Rate of the bare engine."""
    predictor = load_predictor(files, device="cpu")
    predictor.predict(data.images[:2000])
    begun = time.perf_counter()
    predictor.predict(data.images)
    return {"steady": len(data) / (time.perf_counter() - begun)}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--images", type=int, default=70_000, help="images (default 70000)")
    parser.add_argument("--ray-data-images", type=int, default=5_000, help="of these for ray-data (default 5000)")
    parser.add_argument("--forms", nargs="+", default=["png", "idx", "parquet", "tar"], help="which (default: all)")
    options = parser.parse_args(argv)
    if options.smoke:
        options.rounds, options.images, options.ray_data_images = 1, 600, 64
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = load_digits(options.images)
        files = make_model(folder)
        forms = write_forms(data, folder, options.ray_data_images)
        ways: dict[str, Callable[[], Rates]] = {"engine": partial(engine, files, data)}
        for kind in options.forms:
            ways[f"ours, {kind}"] = partial(ours, forms[kind], folder)
            ways[f"ours on Ray, {kind}"] = partial(ours, forms[kind], folder, "--workers", str(CORES))
            ways[f"loop, {kind}"] = partial(loop, kind, forms[kind], folder)
        if "png" in options.forms:
            ways["ray-data, png"] = partial(ray_data, forms["ray-data"], folder)
        measured = interleave(ways, options.rounds)
    report(measured, options.rounds, options.json_only)


def load_digits(count: int) -> Split:
    """MNIST's training and test images in one, or noise without MNIST_DATA_DIR; repeated where more are asked for."""
    found = os.environ.get("MNIST_DATA_DIR")
    if found:
        splits = read_splits(Path(found))
        images = np.concatenate([split.images for split in splits])
        labels = np.concatenate([split.labels for split in splits])
    else:
        random = np.random.default_rng(0)
        images, labels = random.integers(0, 256, (600, 28, 28), np.uint8), random.integers(0, 10, 600, np.uint8)
    chosen = np.arange(count) % len(images)
    return Split(images[chosen], labels[chosen])


def report(measured: dict[str, list[Rates]], rounds: int, json_only: bool) -> None:
    """Print rows, ratios and what must hold."""
    rates = {(way, part): [values[part] for values in found] for way, found in measured.items() for part in found[0]}
    rows = [make_row(f"{way}: {part}", "img/s", values) for (way, part), values in rates.items()]
    ratios = {}
    for (way, part), values in rates.items():
        kind = way.rpartition(" ")[2]
        if way.startswith("ours") and (f"loop, {kind}", part) in rates:
            ratios[f"{way.rpartition(',')[0]} / loop, {kind}: {part}"] = median_ratio(
                values, rates[f"loop, {kind}", part]
            )
    if ("ours on Ray, idx", "steady") in rates:
        ratios["ours on Ray, idx / engine: steady"] = median_ratio(
            rates["ours on Ray, idx", "steady"], rates["engine", "steady"]
        )
    if ("ray-data, png", "steady") in rates:
        ours_png = rates["ours on Ray, png", "steady"]
        ratios["ours on Ray, png / ray-data: steady"] = median_ratio(ours_png, rates["ray-data, png", "steady"])
    bounds = {
        "ours on Ray / loop, png: steady": 1.5,
        "ours / loop, png: whole": 1.0,
        "ours on Ray, idx / engine: steady": 0.7,
        "ours on Ray, png / ray-data: steady": 5.0,
    }
    must = {name: at_least(ratios[name], bound) for name, bound in bounds.items() if name in ratios}
    print_report("score", rounds, rows, ratios, must, json_only=json_only)


if __name__ == "__main__":
    main()
