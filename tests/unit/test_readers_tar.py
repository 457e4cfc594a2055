"""Reading tar archives: class folders and WebDataset's samples, in every format that Python's tarfile can write."""

import io
import subprocess
import tarfile

import pytest
from scored_items import items_of, items_of_unit, png

from mnist_core.errors import ItemUnreadableError
from mnist_core.inputs.plan import plan_units


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def add(archive, name, content=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(content))


def write(name, members, mode="w", **options):
    with tarfile.open(name, mode, **options) as archive:
        for member, content in members.items():
            add(archive, member, content)


def test_a_sample_is_an_image_and_the_label_beside_it():
    write("a.tar", {"0.png": b"A", "0.cls": b"7", "1.cls": b"2\n", "1.png": b"B", "2.png": b"C", "3.png": b"D"})
    assert items_of("a.tar") == [
        ("a.tar!0.png", 7, b"A"),
        ("a.tar!1.png", 2, b"B"),
        ("a.tar!2.png", None, b"C"),
        ("a.tar!3.png", None, b"D"),
    ]


def test_all_images_of_a_sample_have_its_label():
    write("a.tar", {"d/x.left.png": b"A", "d/x.right.png": b"B", "d/x.cls": b"7", "d/y.png": b"C", "e/x.png": b"D"})
    assert [item.label for item in items_of("a.tar")] == [7, 7, None, None]


def test_labels_are_told_apart_where_names_have_more_dots():
    members = {f"digit.{index:04}.{suffix}": b"%d" % (index % 10) for index in range(200) for suffix in ("png", "cls")}
    write("a.tar", members)
    items = items_of("a.tar")
    assert [item.label for item in items] == [index % 10 for index in range(200)]


def test_without_a_label_the_class_folder_tells_it():
    write("a.tar", {"train/7/a.png": b"A", "./2/b.png": b"B", "3/c.png": b"C", "3/c.cls": b"4"})
    assert [(item.id, item.label) for item in items_of("a.tar")] == [
        ("a.tar!train/7/a.png", 7),
        ("a.tar!./2/b.png", 2),
        ("a.tar!3/c.png", 4),
    ]


@pytest.mark.parametrize("label", [b"", b"ten", b"10", b"-1", b"\xff"])
def test_a_label_that_is_no_digit_is_none(label):
    write("a.tar", {"0.png": b"A", "0.cls": label})
    assert items_of("a.tar") == [("a.tar!0.png", None, b"A")]


def test_what_is_no_image_is_passed_over_and_what_may_be_one_is_not():
    names = ["a.json", "b.txt", ".hidden.png", "._a.png", "_x/a.png", "d/.h/a.png", "e.npy", "f.png", "g.bin", "h"]
    write("a.tar", dict.fromkeys(names, b"A"))
    assert [item.id for item in items_of("a.tar")] == ["a.tar!f.png", "a.tar!g.bin", "a.tar!h"]


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "name",
    ["a.png", "d" * 95 + ".png", "d" * 120 + "/" + "e" * 90 + ".png", "é/ü.png", "x" * 100, "with space=and.png"],
)
def test_names_of_any_length_are_read_in_every_format(style, name):
    write("a.tar", {name: b"A", "b.png": b"B"}, format=style)
    assert items_of("a.tar") == [(f"a.tar!{name}", None, b"A"), ("a.tar!b.png", None, b"B")]


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_more_than_256_bytes_and_of_no_utf8_are_read(style):
    long = "/".join(["x" * 200] * 3) + ".png"
    write("a.tar", {long: b"A", "\udcff.png": b"B"}, format=style, errors="surrogateescape")
    assert items_of("a.tar") == [(f"a.tar!{long}", None, b"A"), ("a.tar!\\xff.png", None, b"B")]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 10_000])
def test_members_of_any_size_are_read_from_any_compressor(mode, size):
    write("a.tar", {"a.png": bytes(size), "b.png": png()}, mode)
    assert items_of("a.tar") == [("a.tar!a.png", None, bytes(size)), ("a.tar!b.png", None, png())]


def test_a_size_beyond_octal_digits_is_understood(folder):
    write("a.tar", {"a.png": b"A" * 700, "b.png": b"B"}, format=tarfile.GNU_FORMAT)
    data = bytearray((folder / "a.tar").read_bytes())
    data[124:136] = b"\x80" + (700).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (folder / "a.tar").write_bytes(data)
    assert [item.content for item in items_of("a.tar")] == [b"A" * 700, b"B"]


def test_a_size_in_a_pax_header_counts():
    with tarfile.open("a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        add(archive, "a.png", b"A" * 700, pax_headers={"size": "700", "comment": "x = y"})
        add(archive, "b.png", b"B")
    assert [item.content for item in items_of("a.tar")] == [b"A" * 700, b"B"]


def test_of_a_large_member_one_byte_more_than_the_limit_is_given():
    write("a.tar", {"a.png": bytes(10_000), "b.png": b"B"})
    (unit,) = plan_units(["a.tar"])
    assert [len(item.content) for item in items_of_unit(unit, max_image_bytes=5000)] == [5001, 1]


def test_links_are_items_that_cannot_be_read_and_folders_and_pipes_are_none():
    with tarfile.open("a.tar", "w") as archive:
        add(archive, "d/", type=tarfile.DIRTYPE)
        add(archive, "d/a.png", b"A")
        add(archive, "d/b.png", type=tarfile.SYMTYPE, linkname="a.png")
        add(archive, "d/c.png", type=tarfile.LNKTYPE, linkname="d/a.png")
        add(archive, "pipe", type=tarfile.FIFOTYPE)
        add(archive, "d/e.png", b"E", type=tarfile.CONTTYPE)
    items = items_of("a.tar")
    assert [item.id for item in items] == ["a.tar!d/a.png", "a.tar!d/b.png", "a.tar!d/c.png", "a.tar!d/e.png"]
    assert [type(item.content) for item in items] == [bytes, ItemUnreadableError, ItemUnreadableError, bytes]
    assert str(items[1].content) == "a.tar!d/b.png: expected a plain file in the archive, found a link"


def test_a_sparse_file_is_an_item_that_cannot_be_read():
    with tarfile.open("a.tar", "w") as archive:
        add(archive, "a.png", b"A" * 10, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.name": "real.png"})
        add(archive, "b.png", b"B" * 600, type=tarfile.GNUTYPE_SPARSE)
        add(archive, "c.png", b"C")
    items = items_of("a.tar")
    assert [item.id for item in items] == ["a.tar!real.png", "a.tar!b.png", "a.tar!c.png"]
    assert "found a sparse file" in str(items[0].content)
    assert items[2].content == b"C"


def test_what_follows_a_sparse_file_of_many_pieces_is_read(folder):
    with (folder / "a.png").open("wb") as file:
        for piece in range(40):
            file.seek(piece * 2**17)
            file.write(b"x")
    (folder / "b.png").write_bytes(b"B")
    subprocess.run(["tar", "--format=gnu", "--sparse", "-cf", "a.tar", "a.png", "b.png"], check=True)
    first, second = items_of("a.tar")
    assert (first.id, str(first.content).rpartition(", ")[2]) == ("a.tar!a.png", "found a sparse file")
    assert second == ("a.tar!b.png", None, b"B")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_first_bytes_tell_that_a_named_file_is_an_archive(folder, mode):
    write("a.tar", {"a.png": b"A"}, mode)
    (folder / "a.tar").rename(folder / "a.dat")
    assert items_of("a.dat") == [("a.dat!a.png", None, b"A")]


def test_members_of_one_name_have_ids_that_differ():
    with tarfile.open("a.tar", "w") as archive:
        for name in ("a.png", "a.png", "a.png#1", "a.png"):
            add(archive, name, b"A")
    assert [item.id.removeprefix("a.tar!") for item in items_of("a.tar")] == [
        "a.png",
        "a.png#1",
        "a.png#1#2",
        "a.png#3",
    ]


def test_an_archive_without_images_is_one_item_that_says_so():
    write("a.tar", {"a.json": b"{}", "b.cls": b"7"})
    (item,) = items_of("a.tar")
    assert (item.id, item.content.code) == ("a.tar", "item_unreadable")
    assert str(item.content) == "a.tar: expected images in the archive, found none"


def test_an_archive_without_members_adds_none():
    write("a.tar", {})
    write("b.tgz", {"a.png": b"A"}, "w:gz")
    assert [item.id for item in items_of(".")] == ["b.tgz!a.png"]


def test_a_shard_is_one_unit_of_unknown_size():
    write("a.tar", {"a.png": b"A"})
    (unit,) = plan_units(["a.tar"])
    assert (unit.kind, unit.paths, unit.num_items) == ("tar", ("a.tar",), None)
