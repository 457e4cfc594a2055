"""Checkpoints come back whole or not at all, and a broken one costs only the work since the one before."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest

from mnist_core.checkpoints import (
    Checkpoint,
    checkpoint_writer,
    decode_checkpoint,
    encode_checkpoint,
    newest_checkpoint,
    read_checkpoint,
)
from mnist_core.errors import CheckpointError, ObjectNotFoundError, StorageError
from mnist_core.storage import open_storage
from mnist_core.training import EpochReport, Progress

FOLDER = "runs/a/checkpoints"
REPORT = EpochReport(1, 0.25, 0.875, 0.3, 0.8125, 1e-3, 12.5)


def checkpoint(step: int = 3, epoch: int = 1) -> Checkpoint:
    rng = np.random.default_rng(step)
    arrays = {name: rng.normal(size=50).astype(np.float32) for name in ("weights", "first_moment", "selected")}
    return Checkpoint(Progress(epoch, step, 0.1 + 0.2, 17, 1 / 3, (REPORT,)), arrays)


@pytest.fixture
def storage(tmp_path):
    return open_storage(str(tmp_path))


def write(storage, *checkpoints, keep=10):
    """Write checkpoints as a run does, one after the other."""
    for one in checkpoints:
        writer = checkpoint_writer(storage, FOLDER, keep)
        writer.submit(one)
        writer.close()


def corrupt(storage, one):
    data = storage.read_bytes(f"{FOLDER}/{one.key}")
    storage.write_bytes(f"{FOLDER}/{one.key}", data[:-1] + bytes([data[-1] ^ 1]))


def steps_left(storage):
    return [int(key[-13:-5]) for key in storage.list_keys(FOLDER)]


def assert_same(one, other):
    assert one.progress == other.progress
    assert one.arrays.keys() == other.arrays.keys()
    for name, values in one.arrays.items():
        assert values.dtype == other.arrays[name].dtype
        assert np.array_equal(values, other.arrays[name])


def test_a_checkpoint_comes_back_bit_for_bit():
    assert_same(decode_checkpoint(encode_checkpoint(checkpoint())), checkpoint())


def test_the_header_can_be_read_by_anything_that_reads_json():
    header = encode_checkpoint(checkpoint())[44:].partition(b"PK")[0]
    assert json.loads(header)["history"][0]["validation_accuracy"] == 0.8125


def test_a_flipped_bit_anywhere_is_refused():
    data = encode_checkpoint(checkpoint())
    for position in [*range(60), *range(60, len(data), 7), len(data) - 1]:
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        with pytest.raises(CheckpointError):
            decode_checkpoint(bytes(flipped))


def test_a_cut_off_checkpoint_is_refused_at_any_length():
    data = encode_checkpoint(checkpoint())
    for length in [*range(60), *range(60, len(data), 7), len(data) - 1]:
        with pytest.raises(CheckpointError):
            decode_checkpoint(data[:length])
    with pytest.raises(CheckpointError):
        decode_checkpoint(data + b"\0")


def test_something_else_is_refused_and_what_was_expected_is_said():
    with pytest.raises(CheckpointError, match=r"expected a checkpoint that starts with b'MNISTCK1', found b'PK"):
        decode_checkpoint(b"PK\x03\x04 a zip file")


def test_names_sort_in_the_order_of_training():
    order = [checkpoint(step, epoch).key for epoch, step in [(0, 9), (0, 10), (0, 99_999), (1, 0), (2, 5), (10, 1)]]
    assert sorted(order) == order


def test_a_new_run_has_no_checkpoint(storage):
    assert newest_checkpoint(storage, FOLDER) is None
    with pytest.raises(ObjectNotFoundError):
        read_checkpoint(storage, f"{FOLDER}/{checkpoint().key}")


def test_the_newest_checkpoint_is_found(storage, caplog):
    write(storage, checkpoint(3), checkpoint(20), checkpoint(1, epoch=2))
    key, found = newest_checkpoint(storage, FOLDER)
    assert key == f"{FOLDER}/{checkpoint(1, epoch=2).key}"
    assert_same(found, checkpoint(1, epoch=2))
    assert_same(read_checkpoint(storage, key), found)
    assert not caplog.records


def test_broken_checkpoints_are_skipped_with_a_warning_that_names_them(storage, caplog):
    write(storage, checkpoint(1), checkpoint(2), checkpoint(3))
    corrupt(storage, checkpoint(2))
    storage.write_bytes(f"{FOLDER}/{checkpoint(3).key}", b"")
    _, found = newest_checkpoint(storage, FOLDER)
    assert_same(found, checkpoint(1))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [
        storage.path(f"{FOLDER}/{checkpoint(step).key}") in text for step, text in zip((3, 2), warnings, strict=True)
    ]
    assert "checksum" in warnings[1]


def test_none_is_found_if_all_are_broken(storage, caplog):
    write(storage, checkpoint(1))
    corrupt(storage, checkpoint(1))
    assert newest_checkpoint(storage, FOLDER) is None
    assert len(caplog.records) == 1


def test_as_many_checkpoints_stay_as_asked(storage):
    for step, left in [(1, [1]), (2, [1, 2]), (3, [2, 3]), (4, [3, 4])]:
        write(storage, checkpoint(step), keep=2)
        assert steps_left(storage) == left


def test_broken_checkpoints_never_push_out_a_whole_one(storage):
    """A run that fell back writes names that sort before those of the broken checkpoints it skipped."""
    write(storage, checkpoint(10), checkpoint(30), checkpoint(40))
    corrupt(storage, checkpoint(30))
    corrupt(storage, checkpoint(40))
    for step in (20, 25):
        write(storage, checkpoint(step), keep=2)
        assert_same(newest_checkpoint(storage, FOLDER)[1], checkpoint(step))


def test_a_storage_that_refuses_to_delete_is_one_warning_and_every_checkpoint_is_written(storage, monkeypatch, caplog):
    def refuse(key):
        raise StorageError(f"cannot delete {storage.path(key)}: access refused")

    monkeypatch.setattr(storage, "delete", refuse)
    writer = checkpoint_writer(storage, FOLDER, keep=1)
    for step in (1, 2, 3):
        writer.submit(checkpoint(step))
        while steps_left(storage) != list(range(1, step + 1)):
            time.sleep(0.01)
    writer.close()
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("old checkpoints stay: cannot delete")


def test_what_writers_killed_long_ago_left_is_removed_and_nothing_else(storage, tmp_path):
    write(storage, checkpoint(1))
    day = 24 * 3600
    ages = {f".{'0a' * 16}.tmp": day + 60, f".{'0b' * 16}.tmp": day - 60, ".short.tmp": 9 * day, "other.tmp": 9 * day}
    for name, age in ages.items():
        (tmp_path / FOLDER / name).write_bytes(b"half a checkpoint")
        os.utime(tmp_path / FOLDER / name, (time.time() - age,) * 2)
    (tmp_path / FOLDER / "below").mkdir()
    os.utime(tmp_path / FOLDER / checkpoint(1).key, (0, 0))
    checkpoint_writer(storage, FOLDER, keep=2).close()
    left = {path.name for path in (tmp_path / FOLDER).iterdir()}
    assert left == {*list(ages)[1:], "below", checkpoint(1).key}


def test_leftovers_that_cannot_be_removed_keep_no_run_from_writing(storage, monkeypatch, caplog):
    def refuse(prefix):
        raise StorageError(f"cannot tidy {storage.path(prefix)}: permission denied")

    monkeypatch.setattr(storage, "remove_leftovers", refuse)
    write(storage, checkpoint(1))
    assert steps_left(storage) == [1]
    assert "cannot tidy" in caplog.text


def test_a_storage_that_fails_is_a_warning_and_an_error_at_the_end(storage, tmp_path, caplog):
    (tmp_path / "runs").write_text("in the way of the folder")
    writer = checkpoint_writer(storage, FOLDER, keep=2)
    writer.submit(checkpoint())
    with pytest.raises(StorageError, match="cannot write"):
        writer.close()
    assert "a checkpoint could not be written" in caplog.text


def test_a_checkpoint_that_cannot_replace_the_last_one_leaves_that_alone(storage):
    write(storage, checkpoint(1))
    blocked = f"{FOLDER}/{checkpoint(2).key}"
    storage.write_bytes(f"{blocked}/in-the-way", b"")
    writer = checkpoint_writer(storage, FOLDER, keep=2)
    writer.submit(checkpoint(2))
    with pytest.raises(StorageError, match="cannot write"):
        writer.close()
    storage.delete(f"{blocked}/in-the-way")
    assert_same(newest_checkpoint(storage, FOLDER)[1], checkpoint(1))
