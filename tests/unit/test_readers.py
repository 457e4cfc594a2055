"""Reading files: what of them, in which batches, and what becomes of those that cannot be read."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
from scored_items import items_of, items_of_unit, png, write_files

from mnist_core.errors import ImageError, StorageError
from mnist_core.inputs.plan import Unit, plan_units
from mnist_core.inputs.readers import read_unit


def batches_of(folder, names, **options):
    unit = Unit("files", tuple(names), prefix=f"{folder}/", num_items=len(names))
    return list(read_unit(unit, **{"max_image_bytes": 1000} | options))


def test_files_come_in_order_in_batches_of_the_size_that_was_asked_for(tmp_path):
    names = [f"{index}.png" for index in range(7)]
    contents = write_files(tmp_path, *names)
    batches = batches_of(tmp_path, names, batch_size=3)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert [content for batch in batches for content in batch.contents] == list(contents.values())
    assert [item_id for batch in batches for item_id in batch.ids] == [f"{tmp_path}/{name}" for name in names]


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 2**14 - 1, 2**14, 2**14 + 1, 100_000, 200_000])
@pytest.mark.parametrize("limit", [1000, 2**14 - 1, 2**14, 150_000])
def test_of_a_large_file_one_byte_more_than_the_limit_is_read(tmp_path, size, limit):
    content = np.random.default_rng(0).bytes(size)
    (tmp_path / "file").write_bytes(content)
    ((read,),) = (batch.contents for batch in batches_of(tmp_path, ["file"], max_image_bytes=limit))
    assert read == content[: limit + 1]


def test_a_file_without_end_is_not_read_to_its_end(tmp_path):
    (tmp_path / "endless").symlink_to("/dev/zero")
    ((content,),) = (batch.contents for batch in batches_of(tmp_path, ["endless"], max_image_bytes=100))
    assert content == bytes(101)


def test_batches_of_large_images_are_cut_short(tmp_path):
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        (tmp_path / name).write_bytes(bytes(2**23))
    sizes = [len(batch) for batch in batches_of(tmp_path, names, max_image_bytes=2**23)]
    assert sizes == [3, 2]


def test_a_file_that_cannot_be_read_is_its_error_and_costs_no_other(tmp_path):
    write_files(tmp_path, "a.png", "gone.png", "z.png")
    (unit,) = plan_units([str(tmp_path)])
    (tmp_path / "gone.png").unlink()
    items = items_of_unit(unit)
    assert [isinstance(item.content, bytes) for item in items] == [True, False, True]
    assert items[1].content.code == "item_unreadable"
    assert isinstance(items[1].content, ImageError)
    assert str(items[1].content) == f"{tmp_path}/gone.png: cannot be read (no such file or directory)"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "is a directory"),
        ("file/below", "not a directory"),
        ("x" * 300, "file name too long"),
        ("self", "too many levels of symbolic links"),
        ("private", "permission denied"),
    ],
)
def test_the_reason_is_that_of_the_operating_system(tmp_path, name, reason):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "private").write_bytes(b"")
    (tmp_path / "private").chmod(0)
    if name == "private" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    ((error,),) = (batch.contents for batch in batches_of(tmp_path, [name]))
    assert str(error) == f"{tmp_path}/{name}: cannot be read ({reason})"


def test_what_is_said_of_a_name_that_is_no_utf8_can_be_written_as_utf8(tmp_path):
    ((error,),) = (batch.contents for batch in batches_of(tmp_path, ["\udcff.png"]))
    assert str(error).encode() == f"{tmp_path}/\\xff.png: cannot be read (no such file or directory)".encode()


def test_a_process_that_can_open_no_file_blames_none(tmp_path):
    write_files(tmp_path, "a.png")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"a.png: too many open files; give this process more"):
            batches_of(tmp_path, ["a.png"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    ((content,),) = (batch.contents for batch in batches_of(tmp_path, ["pipe"]))
    assert content == b""


def test_no_descriptor_stays_open(tmp_path):
    names = [f"{index}" for index in range(50)]
    write_files(tmp_path, *names[:40])
    before = len([*Path("/proc/self/fd").iterdir()])
    batches_of(tmp_path, names)
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_files_are_read_where_they_lie_and_not_where_the_process_works(tmp_path, monkeypatch):
    (tmp_path / "7").mkdir()
    monkeypatch.chdir(tmp_path / "7")
    (tmp_path / "7/a.png").write_bytes(png())
    (unit,) = plan_units(["a.png"])
    monkeypatch.chdir("/")
    (item,) = items_of_unit(unit)
    assert item == ("a.png", 7, png())


def test_files_and_containers_come_together(tmp_path):
    write_files(tmp_path, "z.png", "a.png")
    np.save(tmp_path / "b.npy", np.zeros((2, 28, 28), np.uint8))
    ids = [item.id.removeprefix(f"{tmp_path}/") for item in items_of(tmp_path)]
    assert ids == ["a.png", "z.png", "b.npy#0", "b.npy#1"]
