"""What is scored from a bucket is what would be scored from a folder: every kind of input, through a real S3 API."""

import gzip
import json
import os
import subprocess
import sys
import urllib.request
import uuid
from dataclasses import asdict
from pathlib import Path

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import S3Store

from mnist_core.errors import DatasetError, DatasetNotFoundError, StorageError
from mnist_core.idx import write_idx
from mnist_core.inputs import plan
from mnist_core.inputs.plan import Unit, plan_inputs, plan_units
from mnist_core.inputs.readers import read_unit

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 28, 28), np.uint8)
LABELS = np.arange(10, dtype=np.uint8)


@pytest.fixture
def prefix(s3_bucket, monkeypatch):
    """A place on the bucket where nothing is, as ``s3://bucket/place``; ten images make units of 3, 3 and 4."""
    monkeypatch.setattr(plan, "ROWS_PER_UNIT", 4)
    return f"{s3_bucket}/{uuid.uuid4().hex}"


def put(uri, content):
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    obstore.put(S3Store(bucket, client_options={"allow_http": True}), key, content)


def delete(uri):
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    obstore.delete(S3Store(bucket, client_options={"allow_http": True}), key)


def upload(folder, prefix):
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())


def read(units, max_image_bytes=100_000):
    items = []
    for unit in units:
        copy = Unit(**json.loads(json.dumps(asdict(unit))))
        for batch in read_unit(copy, max_image_bytes=max_image_bytes, batch_size=3):
            contents = batch.contents if batch.images is None else [image.tobytes() for image in batch.images]
            items += zip(batch.ids, batch.labels, contents, strict=True)
    return items


def items_of(*given, **options):
    return read(plan_units([str(each) for each in given], **options))


def write_everything(folder):
    for name in ("d/7/a.png", "d/7/b c.png", "d/x.bin", "d/é#1%20.png", "d/n.txt", "d/.h.png", "d/_u/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    write_idx(folder / "a-images-idx3-ubyte", IMAGES)
    write_idx(folder / "a-labels-idx1-ubyte", LABELS)
    write_idx(folder / "b-images-idx3-ubyte.gz", IMAGES)
    np.save(folder / "c.npy", IMAGES)
    np.savez_compressed(folder / "d.npz", x_test=IMAGES, y_test=LABELS)
    pq.write_table(pa.table({"image": [b"A", b"B"] * 5, "label": LABELS}), folder / "e.parquet", row_group_size=2)
    subprocess.run(["tar", "-czf", folder / "f.tar.gz", "-C", folder / "d", "7"], check=True)


def test_a_prefix_is_read_as_a_folder_is(tmp_path, prefix):
    write_everything(tmp_path)
    upload(tmp_path, prefix)
    plan, local = plan_inputs([prefix]), plan_inputs([str(tmp_path)])
    renamed = [
        (item_id.replace(str(tmp_path), prefix), label, content) for item_id, label, content in read(local.units)
    ]
    assert read(plan.units) == renamed
    assert [unit.num_items for unit in plan.units] == [unit.num_items for unit in local.units]
    assert plan.skipped == {".txt": 1, "hidden": 2}
    assert items_of(f"{prefix}/") == renamed


@pytest.mark.parametrize("name", ["a-images-idx3-ubyte", "b-images-idx3-ubyte.gz", "c.npy", "d.npz", "e.parquet"])
def test_a_container_is_read_by_its_uri(tmp_path, prefix, name):
    write_everything(tmp_path)
    upload(tmp_path, prefix)
    items = items_of(f"{prefix}/{name}")
    assert len(items) == 10
    assert [label for _, label, _ in items] == ([None] * 10 if name[0] in "bc" else LABELS.tolist())
    assert [label for _, label, _ in items_of(f"{prefix}/c.npy", labels=str(tmp_path / "a-labels-idx1-ubyte"))] == [
        *range(10)
    ]


def test_objects_come_in_order_though_many_are_fetched_at_once(prefix):
    names = [f"{prefix}/{index:03}.png" for index in range(100)]
    for name in reversed(names):
        put(name, name.encode())
    assert items_of(prefix) == [(name, None, name.encode()) for name in names]


def test_globs_lists_and_single_objects_name_objects(tmp_path, prefix):
    for name in ("d/a.png", "d/b.jpg", "d/7/c.png", "d2/e.png"):
        put(f"{prefix}/{name}", name.encode())
    put(f"{prefix}/all.txt", b"d/a.png\nd2/e.png\n")
    (tmp_path / "mine.txt").write_text(f"{prefix}/d/a.png\n{prefix}/gone.png\n")

    def names(*given):
        return [item_id.removeprefix(f"{prefix}/") for item_id, _, _ in items_of(*given)]

    assert names(f"{prefix}/d") == ["d/7/c.png", "d/a.png", "d/b.jpg"]
    assert names(f"{prefix}/d/*.png") == ["d/a.png"]
    assert names(f"{prefix}/**/*.png") == ["d/7/c.png", "d/a.png", "d2/e.png"]
    assert names(f"{prefix}/*/7") == ["d/7/c.png"]
    assert names(f"{prefix}/d/a.png", f"{prefix}/d") == ["d/7/c.png", "d/a.png", "d/b.jpg"]
    assert names(f"{prefix}/all.txt") == ["d/a.png", "d2/e.png"]
    assert names(tmp_path / "mine.txt") == ["d/a.png", "gone.png"]


def test_the_marks_that_consoles_leave_for_folders_are_no_items(prefix, s3_bucket):
    for name in ("d/", "d/7/", "d/none/", "d/z/"):
        key = f"{prefix}/{name}".removeprefix(f"{s3_bucket}/")
        address = f"{os.environ['AWS_ENDPOINT_URL']}/{s3_bucket.removeprefix('s3://')}/{key}"
        with urllib.request.urlopen(urllib.request.Request(address, data=b"", method="PUT")):
            pass
    with pytest.raises(DatasetNotFoundError):
        plan_units([f"{prefix}/d/none"])
    for name in ("d/7/a.png", "d/empty.png"):
        put(f"{prefix}/{name}", b"")
    assert [item_id for item_id, _, _ in items_of(f"{prefix}/d")] == [f"{prefix}/d/7/a.png", f"{prefix}/d/empty.png"]


def test_files_and_objects_come_together(tmp_path, prefix):
    (tmp_path / "a.png").write_bytes(b"A")
    put(f"{prefix}/b.png", b"B")
    units = plan_units([str(tmp_path), prefix])
    assert [content for _, _, content in read(units)] == [b"A", b"B"]
    assert len(units) == 2


def test_an_object_that_is_gone_is_its_error(prefix):
    for name in "abc":
        put(f"{prefix}/{name}.png", name.encode())
    units = plan_units([prefix])
    delete(f"{prefix}/b.png")
    a, b, c = read(units)
    assert (a[2], c[2]) == (b"a", b"c")
    assert (b[0], b[2].code, str(b[2])) == (
        f"{prefix}/b.png",
        "item_unreadable",
        f"{prefix}/b.png: cannot be read (no such object)",
    )


@pytest.mark.parametrize(("size", "given"), [(0, 0), (5, 5), (6, 6), (100, 6)])
def test_of_a_large_object_one_byte_more_than_the_limit_is_fetched(prefix, size, given):
    put(f"{prefix}/a.png", bytes(size))
    assert [content for _, _, content in read(plan_units([prefix]), max_image_bytes=5)] == [bytes(given)]


def test_torn_containers_are_one_error_each(tmp_path, prefix):
    write_idx(tmp_path / "a-images", IMAGES)
    put(f"{prefix}/a-images.gz", gzip.compress((tmp_path / "a-images").read_bytes()[: 16 + 4 * 784 + 5]))
    items = items_of(prefix)
    assert [item_id.rpartition("#")[2] for item_id, _, _ in items] == ["0", "1", "2", "3", f"{prefix}/a-images.gz"]
    assert items[-1][2].code == "container_torn"
    put(f"{prefix}/b-images", (tmp_path / "a-images").read_bytes()[:-1])
    with pytest.raises(DatasetError, match="b-images: its header says uint8"):
        plan_units([prefix])


def test_what_is_not_there_is_refused(prefix, s3_bucket):
    put(f"{prefix}/d/a.png", b"A")
    for absent in (f"{prefix}/absent", f"{prefix}/d/a", f"{prefix}/absent/*.png"):
        with pytest.raises(DatasetNotFoundError, match="found nothing"):
            plan_units([absent])
    with pytest.raises(DatasetError, match="expected at least one image, found none"):
        plan_units([f"{prefix}/d/*.jpg"])
    with pytest.raises(StorageError, match="cannot read s3://no-such-bucket/a/: the bucket does not exist"):
        plan_units(["s3://no-such-bucket/a"])
    assert items_of(f"{s3_bucket}/*/d/a.png")


def test_a_bucket_that_cannot_be_reached_fails_the_unit_and_makes_no_rows_of_errors(prefix):
    put(f"{prefix}/a.png", b"A")
    unit = json.dumps(asdict(plan_units([prefix])[0]))
    script = (
        "import json, os, sys\n"
        "from datetime import timedelta\n"
        "from mnist_core import storage\n"
        "from mnist_core.errors import StorageError\n"
        "from mnist_core.inputs.plan import Unit\n"
        "from mnist_core.inputs.readers import read_unit\n"
        "os.environ['AWS_ENDPOINT_URL'] = 'http://127.0.0.1:9'\n"
        "storage.RETRY.update(max_retries=1, retry_timeout=timedelta(seconds=1))\n"
        "try:\n"
        "    print(list(read_unit(Unit(**json.loads(sys.argv[1])), max_image_bytes=9)))\n"
        "except StorageError as err:\n"
        "    print('refused:', err)\n"
    )
    command = [sys.executable, "-c", script, unit]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.startswith(f"refused: cannot read {prefix}/a.png: ")
    assert len(done.stdout.splitlines()) == 1
