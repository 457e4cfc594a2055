"""Containers that turn out to be torn while they are read: the items before the tear, then one error."""

import gzip
import io
import os
import resource
import tarfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scored_items import items_of, items_of_unit, make_images, png

from mnist_core.errors import ContainerTornError, StorageError
from mnist_core.idx import write_idx
from mnist_core.inputs import plan
from mnist_core.inputs.plan import plan_units

IMAGES = make_images(10)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory; ten images make units of 3, 3 and 4, in batches of three."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "ROWS_PER_UNIT", 4)
    return tmp_path


def assert_torn(items, num_whole, name, reason=""):
    *whole, error = items
    assert len(whole) == num_whole
    assert [item.id for item in items if isinstance(item.content, ContainerTornError)] == [error.id] == [name]
    assert error.label is None
    assert error.content.code == "container_torn"
    assert str(error.content).startswith(name)
    assert reason in str(error.content)
    assert "\n" not in str(error.content)


# gzip-compressed IDX files

WHOLE = [0, 1, 2, 3, 4, 5, 6, 9]


@pytest.mark.parametrize("num_whole", WHOLE)
@pytest.mark.parametrize("num_more", [0, 1, 700])
def test_a_gzip_file_that_was_cut_before_it_was_packed_has_one_tear(folder, num_whole, num_more):
    write_idx(folder / "whole", IMAGES)
    data = (folder / "whole").read_bytes()[: 16 + num_whole * 784 + num_more]
    (folder / "x-images.gz").write_bytes(gzip.compress(data))
    items = items_of("x-images.gz")
    assert_torn(items, num_whole, "x-images.gz", f"expected 7856 bytes, found {len(data)}")
    for item, image in zip(items[:-1], IMAGES, strict=False):
        np.testing.assert_array_equal(item.content, image)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.35, 0.5, 0.77, 0.95, 0.99])
def test_a_gzip_file_that_was_cut_gives_every_image_before_the_cut(folder, fraction):
    write_idx(folder / "x-images.gz", IMAGES)
    data = (folder / "x-images.gz").read_bytes()
    cut = data[: int(len(data) * fraction)]
    (folder / "x-images.gz").write_bytes(cut)
    num_bytes = len(zlib.decompressobj(wbits=31).decompress(cut))
    if num_bytes < 16:
        pytest.skip("refused at once")
    assert_torn(items_of("x-images.gz"), (num_bytes - 16) // 784, "x-images.gz", "ended before")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-4], "ended before"),
        (lambda data: data[:-8] + bytes(4) + data[-4:], "CRC check failed"),
        (lambda data: data + b"more", "Not a gzipped file"),
        (lambda data: data + gzip.compress(b"more"), "7856 bytes, found more"),
    ],
)
def test_what_is_wrong_behind_the_last_image_is_said_once(folder, change, reason):
    write_idx(folder / "x-images.gz", IMAGES)
    (folder / "x-images.gz").write_bytes(change((folder / "x-images.gz").read_bytes()))
    assert_torn(items_of("x-images.gz"), 10, "x-images.gz", reason)


def test_a_damaged_member_of_an_npz_has_one_tear(folder):
    np.savez_compressed("x.npz", x_train=IMAGES, y_train=np.zeros(10, int), x_test=IMAGES)
    data = bytearray((folder / "x.npz").read_bytes())
    middle = data.index(b"x_train.npy") + 4000
    data[middle : middle + 50] = bytes(50)
    (folder / "x.npz").write_bytes(data)
    items = items_of("x.npz")
    assert [item.id for item in items[:10]] == [f"x.npz#x_test/{index}" for index in range(10)]
    assert items[-1].id == "x.npz#x_train"
    assert items[-1].content.code == "container_torn"
    assert len(items) < 20


def test_a_compressed_file_that_is_written_anew_is_unpacked_anew(folder):
    write_idx(folder / "x-images.gz", IMAGES)
    items_of("x-images.gz")
    os.utime("x-images.gz", (1, 1))
    before = items_of("x-images.gz")
    write_idx(folder / "x-images.gz", IMAGES[::-1])
    for item, image in zip(reversed(items_of("x-images.gz")), before, strict=True):
        np.testing.assert_array_equal(item.content, image.content)


def test_no_room_to_unpack_is_no_fault_of_the_file(folder):
    write_idx(folder / "x-images.gz", np.concatenate([IMAGES] * 10))
    unit = plan_units(["x-images.gz"])[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot unpack x-images.gz .*; set TMPDIR to a folder with more room"):
            items_of_unit(unit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# files that change while the job runs


def write_tar(path, contents, mode="w"):
    with tarfile.open(path, mode) as archive:
        for index, content in enumerate(contents):
            member = tarfile.TarInfo(f"{index}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


CONTENTS = [png(seed) for seed in range(10)]
WRITERS = {
    "x.parquet": lambda path: pq.write_table(pa.table({"image": CONTENTS}), path, row_group_size=3),
    "x.npz": lambda path: np.savez(path, x_test=IMAGES),
    "x.npy": lambda path: np.save(path, IMAGES),
    "x.tar": lambda path: write_tar(path, CONTENTS),
    "x-images": lambda path: write_idx(path, IMAGES),
    "x-images.gz": lambda path: write_idx(path, IMAGES),
}


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def replace_by_a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("change", [shorten, replace_by_a_folder, lambda path: path.unlink()])
def test_every_unit_of_a_container_that_changed_says_so(folder, name, change):
    WRITERS[name](folder / name)
    units = plan_units([name])
    items_of_unit(units[0])
    change(folder / name)
    items = [item for unit in units for item in items_of_unit(unit)]
    assert [type(item.content) for item in items] == [ContainerTornError] * len(units)
    assert len({item.id for item in items}) == len(items)
    assert items[0].id == name.replace("npz", "npz#x_test")
    assert all(item.id.startswith(name) and str(item.content).startswith(name) for item in items)
    assert len(units) == (1 if name == "x.tar" else 3)


@pytest.mark.parametrize("name", ["x-images", "x.npy"])
def test_every_unit_of_an_array_that_became_another_file_of_its_size_says_so(folder, name):
    WRITERS[name](folder / name)
    units = plan_units([name])
    (folder / name).write_bytes(bytes((folder / name).stat().st_size))
    items = [item for unit in units for item in items_of_unit(unit)]
    assert [item.id for item in items] == [name, f"{name}#3", f"{name}#6"]
    assert {item.content.code for item in items} == {"container_torn"}


# tar archives


def test_an_archive_that_is_cut_anywhere_gives_its_whole_members_and_one_error(folder):
    write_tar("whole.tar", CONTENTS[:3])
    data = (folder / "whole.tar").read_bytes()
    ends, position = [], 0
    for content in CONTENTS[:3]:
        position += 512 + len(content)
        ends.append(position)
        position += -position % 512
    for cut in [*range(512, position + 512, 61), position, position + 511]:
        (folder / "x.tar").write_bytes(data[:cut])
        items = items_of("x.tar")
        num_whole = sum(end <= cut for end in ends)
        assert_torn(items, num_whole, "x.tar", "cut off")
        assert [item.content for item in items[:-1]] == CONTENTS[:num_whole]
    (folder / "x.tar").write_bytes(data[: position + 512])
    assert [item.content for item in items_of("x.tar")] == CONTENTS[:3]


@pytest.mark.parametrize(("mode", "num_files"), [("w:gz", 10), ("w:xz", 10), ("w:bz2", 100)])  # 900,000 bytes a block
def test_a_compressed_archive_that_is_cut_is_torn(folder, mode, num_files):
    noise = [np.random.default_rng(seed).bytes(20_000) for seed in range(num_files)]
    write_tar("x.tgz", noise, mode)
    data = (folder / "x.tgz").read_bytes()
    (folder / "x.tgz").write_bytes(data[: len(data) * 3 // 5])
    *whole, error = items_of("x.tgz")
    assert [item.content for item in whole] == noise[: len(whole)]
    assert 0.4 * num_files <= len(whole) <= 0.6 * num_files
    assert (error.id, error.content.code) == ("x.tgz", "container_torn")


def header(kind, size):
    member = tarfile.TarInfo("name")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.USTAR_FORMAT)


def pax(record):
    return header(tarfile.XHDTYPE, len(record)) + record.ljust(512, b"\0")


LONG_NAME = header(tarfile.GNUTYPE_LONGNAME, 2_000_000) + bytes(2_000_384)


@pytest.mark.parametrize(
    ("change", "num_whole", "reason"),
    [
        (lambda data, start: data[:start] + b"x" + data[start + 1 :], 1, "checksum is wrong"),
        (lambda data, start: data[: start + 148] + b"lettered" + data[start + 156 :], 1, "letters for a number"),
        (lambda data, _: data + b"more", 3, "more behind the mark"),
        (lambda data, _: data + data, 3, "more behind the mark"),
        (lambda data, start: data[:start] + LONG_NAME + data[start:], 1, "the name of a member takes 2000000 bytes"),
        (lambda data, start: data[:start] + pax(b"x path=a.png\n") + data[start:], 1, "pax header of an unknown form"),
        (lambda data, start: data[:start] + pax(b"99 path=a.png\n") + data[start:], 1, "pax header of an unknown form"),
        (lambda data, start: data[:start] + pax(b"11 size=-1\n") + data[start:], 1, "size that is no number"),
    ],
)
def test_an_archive_that_is_damaged_is_torn_there(folder, change, num_whole, reason):
    write_tar("x.tar", CONTENTS[:3])
    data = (folder / "x.tar").read_bytes()
    second = data.index(b"1.png")
    (folder / "x.tar").write_bytes(change(data, second))
    assert_torn(items_of("x.tar"), num_whole, "x.tar", reason)
