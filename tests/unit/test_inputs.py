"""Which files an input means, what they are called, and how they are shared out."""

import json
import os
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_items import ids_of, items_of, refusal_of, write_files

from mnist_core.errors import DatasetNotFoundError
from mnist_core.inputs import plan as plan_module
from mnist_core.inputs.plan import Unit, plan_inputs, plan_units
from mnist_core.inputs.readers import utf8_id


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


# folders


def test_a_folder_is_its_files_at_any_depth_sorted_and_named_as_it_was_given(folder):
    contents = write_files(folder, "data/b.png", "data/7/x.png", "data/train/3/deep/y.jpg", "data/a.png")
    items = items_of("data")
    assert [item.id for item in items] == ["data/7/x.png", "data/a.png", "data/b.png", "data/train/3/deep/y.jpg"]
    assert {item.id: item.content for item in items} == contents
    assert ids_of(folder / "data") == [f"{folder}/data/{name[5:]}" for name in sorted(contents)]


@pytest.mark.parametrize("spelling", ["data", "data/", "./data", "data/.", "data//", ".//data/./"])
def test_a_name_is_written_the_same_however_it_is_spelled(folder, spelling):
    write_files(folder, "data/a.png")
    assert ids_of(spelling) == ["data/a.png"]


def test_the_working_directory_adds_nothing_to_a_name(folder):
    write_files(folder, "a.png", "7/b.png")
    assert ids_of(".") == ["7/b.png", "a.png"]


def test_a_parent_folder_stays_a_parent_folder(folder, monkeypatch):
    write_files(folder, "a.png", "sub/b.png")
    monkeypatch.chdir(folder / "sub")
    assert ids_of("../a.png", "../sub") == ["../a.png", "../sub/b.png"]


def test_the_labels_of_files_are_their_class_folders(folder):
    write_files(folder, "d/7/x.png", "d/train/0/x.png", "d/12/x.png", "d/x/x.png", "d/7/sub/x.png", "d/-1/x.png")
    labels = {item.id: item.label for item in items_of("d")}
    assert labels == {
        "d/7/x.png": 7,
        "d/train/0/x.png": 0,
        "d/12/x.png": None,
        "d/x/x.png": None,
        "d/7/sub/x.png": None,
        "d/-1/x.png": None,
    }
    assert [item.label for item in items_of(folder / "d" / "7")] == [None, 7]


def test_every_file_counts_but_hidden_ones_and_what_lies_beside_images(folder):
    write_files(folder, "d/a.png", "d/x.bin", "d/no_suffix", "d/photo.HEIC", "d/images_1.jpg", "d/images_2", "d/z.gz")
    write_files(folder, "d/.hidden.png", "d/_SUCCESS", "d/.git/a.png", "d/a.json", "d/b.JSON", "d/notes.txt", "d/c.cls")
    os.mkfifo("d/pipe")
    plan = plan_inputs(["d"])
    names = ["a.png", "images_1.jpg", "images_2", "no_suffix", "photo.HEIC", "x.bin", "z.gz"]
    assert ids_of("d") == [f"d/{name}" for name in names]
    assert plan.skipped == {".cls": 1, ".json": 2, ".txt": 1, "hidden": 3, "special": 1}


@pytest.mark.parametrize("names", [[], ["readme.md", ".hidden.png", "_x/a.png"]])
def test_a_folder_without_images_is_refused(folder, names):
    (folder / "d").mkdir()
    write_files(folder / "d", *names)
    write_files(folder, "a.png")
    assert refusal_of("a.png", "d") == "d: expected at least one image, found none"


@pytest.mark.parametrize("given", ["absent", "a.png/b", "absent/*.png", "x" * 300, "@absent.txt"])
def test_an_input_that_is_missing_is_refused_by_name(folder, given):
    write_files(folder, "a.png")
    assert refusal_of("a.png", given).startswith(given.removeprefix("@")[:4])


def test_a_missing_input_has_an_error_of_its_own():
    with pytest.raises(DatasetNotFoundError, match="absent: expected a file or folder, found nothing"):
        plan_units(["absent"])


@pytest.mark.parametrize("given", ["", "a\0b", "http://host/a.png", "s3://", "hdfs://a/b"])
def test_an_input_that_means_nothing_is_refused(given):
    assert "expected" in refusal_of(given) or "null byte" in refusal_of(given)


def test_no_input_is_refused():
    assert "expected at least one" in refusal_of()


def test_a_pipe_is_refused_and_not_waited_for():
    os.mkfifo("pipe")
    assert refusal_of("pipe") == "pipe: expected a file or a folder, found a device, pipe or socket"


def test_an_input_that_cannot_be_looked_at_is_refused(folder):
    (folder / "self").symlink_to("self")
    assert refusal_of("self").startswith("self: cannot be read (too many levels")


# several inputs


def test_a_file_that_is_named_in_several_ways_counts_once_under_its_first_name(folder):
    write_files(folder, "d/1/a.png", "d/1/b.png", "d/c.png")
    (folder / "link").symlink_to("d")
    (folder / "all.txt").write_text(f"d/c.png\n{folder}/d/c.png\nd/1/b.png\n")
    expected = ["d/1/a.png", "d/1/b.png", "d/c.png"]
    assert ids_of("d", "d", "d/*/*.png", "./d/1", "d/c.png", folder / "d", "link", "all.txt", "d/../d") == expected
    assert ids_of("d/1", "link") == ["d/1/a.png", "d/1/b.png", "link/c.png"]


def test_two_folders_with_files_of_one_name_are_all_their_files(folder):
    write_files(folder, "d/a.png", "e/a.png")
    assert ids_of("e", folder / "d") == [f"{folder}/d/a.png", "e/a.png"]


def test_a_file_that_is_named_counts_whatever_its_name(folder):
    write_files(folder, "d/a.png", "d/b.json", "d/.c.png", "d/_d")
    assert ids_of("d", "d/b.json") == ids_of("d/b.json", "d") == ["d/a.png", "d/b.json"]
    assert plan_inputs(["d", "d/b.json"]).skipped == {"hidden": 2}
    assert plan_inputs(["d/b.json", "d"]).skipped == {"hidden": 2}
    assert ids_of("d/.c.png", "d/_d") == ["d/.c.png", "d/_d"]


def test_skipped_files_count_once_however_often_they_are_met(folder):
    write_files(folder, "d/a.png", "d/b.json")
    assert plan_inputs(["d", "d/*", f"{folder}/d"]).skipped == {".json": 1}


def test_a_file_whose_name_could_be_the_id_of_another_item_is_refused(folder):
    write_files(folder, "d/a.tar!x.png", "d/b.png")
    (folder / "d/a.tar").write_bytes(bytes(10240))
    assert refusal_of("d") == "d/a.tar!x.png: looks like an item of d/a.tar; rename one of the two"


# names that are no UTF-8


def test_names_that_are_no_utf8_have_ids_that_are_and_stay_different(folder):
    names = [b"a\xff.png", b"a\\xff.png", b"a\\\\xff.png", "é.png".encode(), b"a\nb.png"]
    (folder / "d").mkdir()
    for name in names:
        (folder / "d" / os.fsdecode(name)).write_bytes(name)
    items = items_of("d")
    assert sorted(item.content for item in items) == sorted(names)
    assert {item.id for item in items} == {
        "d/a\\xff.png",
        "d/a\\\\xff.png",
        "d/a\\\\\\\\xff.png",
        "d/é.png",
        "d/a\nb.png",
    }
    (folder / "list.txt").write_bytes(b"\n".join(b"d/" + name for name in names[:-1]))
    assert set(ids_of("list.txt")) == {item.id for item in items if "\n" not in item.id}


@given(st.lists(st.binary(max_size=6), min_size=2, max_size=2, unique=True))
@settings(deadline=None, max_examples=300)
def test_different_names_have_different_ids(names):
    first, second = (utf8_id(os.fsdecode(name)) for name in names)
    assert first != second
    first.encode()


@given(st.lists(st.text(alphabet='\\xf"\udcff\udc8f', max_size=8), min_size=2, max_size=2, unique=True))
@settings(deadline=None, max_examples=300)
def test_names_made_to_be_confused_have_different_ids(names):
    assert utf8_id(names[0]) != utf8_id(names[1])


# units


def test_files_are_shared_out_evenly_in_units_of_bounded_size(folder, monkeypatch):
    monkeypatch.setattr(plan_module, "FILES_PER_UNIT", 4)
    write_files(folder, *(f"d/{index:02}.png" for index in range(9)), "/".join(["d", "x" * 50, "y.png"]))
    units = plan_units(["d"])
    assert [unit.num_items for unit in units] == [3, 3, 4]
    assert [name for unit in units for name in unit.names] == ids_of("d")
    assert (units[0].prefix, units[0].paths) == ("d/", ("00.png", "01.png", "02.png"))
    assert plan_inputs(["d"]).num_items == 10


def test_a_unit_is_read_from_another_working_directory(folder, monkeypatch):
    write_files(folder, "d/a.png")
    (unit,) = plan_units(["d"])
    monkeypatch.chdir("/")
    copy = Unit(**json.loads(json.dumps(asdict(unit))))
    assert copy == unit
    assert copy.root == str(folder)


def test_a_plan_is_the_same_for_the_same_inputs(folder):
    write_files(folder, "d/b.png", "d/a.png", "d/7/c.png", "d/n.txt")
    assert plan_inputs(["d", "d/*.png"]) == plan_inputs(["d/*.png", "d"])


def test_mnist_as_70000_files_makes_35_units():
    names = [f"d/{index:05}.png" for index in range(70_000)]
    units = list(plan_module._file_units(names, "/"))
    assert (len(units), {unit.num_items for unit in units}) == (35, {2000})
