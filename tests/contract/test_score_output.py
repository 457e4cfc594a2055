"""The output of a scoring job, on a folder and in a bucket: one plan, records that make units count, one verdict."""

from __future__ import annotations

import pickle

import pytest

from jobs.score_output import Output, open_output
from mnist_core.errors import ConfigError, OutputConflictError
from mnist_core.inputs.plan import Unit
from mnist_core.scoring import Tally

UNITS = [Unit("files", ("a.png", "b\\.png"), prefix="d/", stop=2, num_items=2), Unit("tar", ("x.tar",), size_bytes=512)]
SETTINGS = {"inputs": ["d", "x.tar"], "format": "parquet"}


@pytest.fixture
def output(storage):
    return Output(storage)


def test_a_plan_comes_back_as_it_was_written(output):
    output.create(SETTINGS | {"model": "mnist/1"}, UNITS, {".txt": 2})
    assert output.resume(SETTINGS) == (SETTINGS | {"model": "mnist/1"}, UNITS, {".txt": 2})


def test_of_two_jobs_that_begin_at_once_one_is_refused(output):
    output.create(SETTINGS, UNITS, {})
    with pytest.raises(OutputConflictError, match="another job began there"):
        output.create(SETTINGS, UNITS, {})


def test_a_job_with_other_settings_is_refused_field_by_field(output):
    output.create(SETTINGS, UNITS, {})
    with pytest.raises(OutputConflictError, match=r"inputs was .*'x.tar'.*, asked for .*'y'.*; format was 'parquet'"):
        output.resume({"inputs": ["y"], "format": "csv"})


def test_an_output_that_holds_anything_is_refused(output):
    output.refuse_used()
    output.storage.write_bytes("mine", b"")
    with pytest.raises(ConfigError, match="is not empty"):
        output.refuse_used()


def test_a_unit_counts_only_with_its_record_and_the_same_when_it_is_written_twice(output):
    output.storage.write_bytes("part-000000.parquet", b"torn off before its record")
    assert output.records() == {}
    for _ in range(2):
        output.write_unit(7, b"rows", "parquet", Tally(items=3, errors={"image_blank": 1}).to_dict())
    assert output.records() == {7: Tally(items=3, errors={"image_blank": 1})}
    assert output.storage.read_bytes("part-000007.parquet") == b"rows"


def test_a_verdict_replaces_the_other(output):
    output.finish({"items": 1}, good=False)
    output.finish({"items": 1}, good=True)
    assert [key for key in output.storage.list_keys() if key.endswith(".json")] == ["_SUCCESS.json"]


def test_it_travels_to_an_actor(output):
    assert pickle.loads(pickle.dumps(output)).storage.uri == output.storage.uri


def test_a_folder_with_names_of_others_is_in_use_and_a_file_is_no_folder(tmp_path):
    (tmp_path / "IMG 001.png").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        open_output(str(tmp_path)).refuse_used()
    with pytest.raises(ConfigError, match=r"is a file, expected a new folder: INPUT\.\.\. OUTPUT"):
        open_output(str(tmp_path / "IMG 001.png")).refuse_used()
