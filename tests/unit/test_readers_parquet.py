"""Reading Parquet files: whichever column holds the images, whatever the row groups, labels and ids of any type."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scored_items import ids_of, items_of, items_of_unit, png

from mnist_core.errors import ItemUnreadableError
from mnist_core.inputs import plan
from mnist_core.inputs.plan import plan_inputs, plan_units

IMAGES = [png(seed) for seed in range(10)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory; units of four rows, batches of three."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "ROWS_PER_UNIT", 4)
    return tmp_path


def write(name, rows_a_group=10, **columns):
    pq.write_table(pa.table(columns), name, row_group_size=rows_a_group)


@pytest.mark.parametrize("column", ["image", "Image", "img", "bytes", "data", "content"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_the_column_of_images_is_found_by_name_and_type(column, kind):
    write("a.parquet", other=[b"?"] * 10, **{column: pa.array(IMAGES, kind)})
    items = items_of("a.parquet")
    assert [item.content for item in items] == IMAGES
    assert [item.id for item in items] == [f"a.parquet#{index}" for index in range(10)]
    assert {item.label for item in items} == {None}


def test_a_column_of_that_name_that_holds_no_bytes_is_passed_over():
    write("a.parquet", image=["a.png"] * 10, data=IMAGES)
    assert [item.content for item in items_of("a.parquet")] == IMAGES


def test_hugging_faces_struct_of_bytes_and_path_is_read_with_its_labels():
    image = [{"bytes": content, "path": f"{index}.png"} for index, content in enumerate(IMAGES)]
    write("a.parquet", rows_a_group=3, image=image, label=list(range(10)))
    items = items_of("a.parquet")
    assert [item.content for item in items] == IMAGES
    assert [item.label for item in items] == list(range(10))


def test_other_columns_can_be_named():
    write("a.parquet", image=[b"?"] * 10, scan=IMAGES, label=[0] * 10, truth=list(range(10)), key=list("abcdefghij"))
    items = items_of("a.parquet", image_column="scan", label_column="truth", id_column="key")
    assert [(item.id, item.label, item.content) for item in items] == list(
        zip("abcdefghij", range(10), IMAGES, strict=True)
    )


def test_ids_of_numbers_are_their_digits():
    write("a.parquet", image=IMAGES, n=list(range(100, 110)))
    assert ids_of(".", id_column="n") == [str(number) for number in range(100, 110)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([7, -1, 10, None], [7, None, None, None]),
        ([7.0, float("nan"), 7.5, None], [7, None, None, None]),
        (["7", "", "seven", None], [7, None, None, None]),
        (pa.array([7, 2, 1, 0], pa.uint8()), [7, 2, 1, 0]),
        (pa.array(["7", "2", "1", "0"]).dictionary_encode(), [7, 2, 1, 0]),
    ],
)
def test_labels_of_any_type_are_digits_or_none(labels, expected):
    write("a.parquet", image=IMAGES[:4], label=labels)
    assert [item.label for item in items_of("a.parquet")] == expected


@pytest.mark.parametrize("struct", [False, True])
def test_an_empty_cell_is_an_item_that_cannot_be_read(struct):
    cells = [{"bytes": IMAGES[0]}, None, {"bytes": None}] if struct else [IMAGES[0], None, None]
    write("a.parquet", image=cells)
    items = items_of("a.parquet")
    assert items[0].content == IMAGES[0]
    assert [type(item.content) for item in items[1:]] == [ItemUnreadableError] * 2
    assert str(items[1].content) == "a.parquet#1: expected an encoded image, found an empty cell"


def test_of_a_large_image_one_byte_more_than_the_limit_is_given():
    write("a.parquet", image=[bytes(100), bytes(10)])
    (unit,) = plan_units(["a.parquet"])
    assert [len(item.content) for item in items_of_unit(unit, max_image_bytes=50)] == [51, 10]


@pytest.mark.parametrize("rows_a_group", [1, 2, 3, 4, 5, 7, 10])
def test_row_groups_of_any_size_make_units_of_bounded_size(rows_a_group):
    write("a.parquet", rows_a_group, image=IMAGES)
    assert [item.content for item in items_of("a.parquet")] == IMAGES
    assert max(unit.num_items for unit in plan_units(["a.parquet"])) <= 4
    assert plan_inputs(["a.parquet"]).num_items == 10


def test_a_large_row_group_is_cut_into_few_units_as_each_reads_it_from_its_beginning(monkeypatch):
    monkeypatch.setattr("mnist_core.inputs.plan.ROWS_PER_UNIT", 1)
    write("a.parquet", image=IMAGES)
    assert len(plan_units(["a.parquet"])) == 4
    assert [item.content for item in items_of("a.parquet")] == IMAGES


def test_small_row_groups_are_read_together_and_none_is_cut():
    write("a.parquet", 2, image=IMAGES)
    assert [(unit.start, unit.stop) for unit in plan_units(["a.parquet"])] == [(0, 4), (4, 8), (8, 10)]


def test_a_file_without_rows_adds_none():
    write("a.parquet", image=pa.array([], pa.binary()))
    write("b.parquet", image=IMAGES[:1])
    assert ids_of(".") == ["b.parquet#0"]


def test_a_damaged_row_group_costs_its_own_unit_only(folder):
    noise = [np.random.default_rng(seed).bytes(1000) for seed in range(12)]
    pq.write_table(pa.table({"image": noise}), "a.parquet", row_group_size=4, use_dictionary=False)
    start = pq.ParquetFile("a.parquet").metadata.row_group(1).column(0).data_page_offset
    data = bytearray((folder / "a.parquet").read_bytes())
    data[start : start + 20] = bytes(20)
    (folder / "a.parquet").write_bytes(data)
    items = items_of("a.parquet")
    torn = items.pop(4)
    assert [item.content for item in items] == noise[:4] + noise[8:]
    assert (torn.id, torn.content.code) == ("a.parquet#4", "container_torn")
    assert str(torn.content).startswith("a.parquet: cannot be read (")
    assert "\n" not in str(torn.content)
