"""Links, globs and lists: what a user may write in place of a folder or a file."""

import numpy as np
import pytest
from scored_items import ids_of, items_of, refusal_of, write_files

from mnist_core.idx import write_idx


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


# links


def test_linked_files_and_folders_are_read_and_loops_end(folder):
    write_files(folder, "d/3/a.png", "other/b.png")
    (folder / "d/4").mkdir()
    (folder / "d/4/link.png").symlink_to("../3/a.png")
    (folder / "d/linked").symlink_to(folder / "other")
    (folder / "d/3/loop").symlink_to("..")
    (folder / "d/0_alias").symlink_to("3")
    (folder / "other/back").symlink_to(folder / "d")
    items = items_of("d")
    assert [(item.id, item.label) for item in items] == [
        ("d/3/a.png", 3),
        ("d/4/link.png", 4),
        ("d/linked/b.png", None),
    ]
    assert items[0].content == items[1].content


def test_many_links_across_are_no_maze(folder):
    for name in "abcdefghijkl":
        write_files(folder, f"d/{name}/{name}.png")
        for other in "abcdefghijkl":
            (folder / "d" / name / f"to_{other}").symlink_to(f"../{other}")
    assert ids_of("d") == ids_of("d/**") == [f"d/{name}/{name}.png" for name in "abcdefghijkl"]


def test_a_link_that_leads_nowhere_is_an_item_that_cannot_be_read(folder):
    write_files(folder, "d/a.png")
    (folder / "d/gone.png").symlink_to("nowhere")
    (folder / "d/self.png").symlink_to("self.png")
    (folder / "d/images").symlink_to("nowhere")
    items = items_of("d")
    assert [item.id for item in items] == ["d/a.png", "d/gone.png", "d/images", "d/self.png"]
    assert str(items[1].content) == "d/gone.png: cannot be read (no such file or directory)"
    assert {item.content.code for item in items[1:]} == {"item_unreadable"}


# globs

TREE = [
    "d/a.png",
    "d/b.jpg",
    "d/7/a.png",
    "d/7/c.png",
    "d/7/x/a.png",
    "d/.h/a.png",
    "d/_u/a.png",
    "d/.h.png",
    "d/n.txt",
]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("d/*.png", ["d/a.png"]),
        ("d/?.png", ["d/a.png"]),
        ("d/[ab].*", ["d/a.png", "d/b.jpg"]),
        ("d/[!a].*", ["d/b.jpg"]),
        ("d/**/a.png", ["d/7/a.png", "d/7/x/a.png", "d/a.png"]),
        ("d/**/*.png", ["d/7/a.png", "d/7/c.png", "d/7/x/a.png", "d/a.png"]),
        ("**/c.png", ["d/7/c.png"]),
        ("*/*/c.png", ["d/7/c.png"]),
        ("./d/**", ["d/7/a.png", "d/7/c.png", "d/7/x/a.png", "d/a.png", "d/b.jpg"]),
        ("d/[0-9]", ["d/7/a.png", "d/7/c.png", "d/7/x/a.png"]),
        ("d/*/x", ["d/7/x/a.png"]),
        ("d/.h/*", ["d/.h/a.png"]),
        ("d/*h/*", []),
        ("d/.*/*", ["d/.h/a.png"]),
        ("d/7/**/x/*", ["d/7/x/a.png"]),
        ("d/*.txt", []),
    ],
)
def test_a_glob_means_what_a_shell_means_by_it(folder, pattern, expected):
    write_files(folder, *TREE)
    assert (ids_of(pattern) if expected else refusal_of(pattern)) == (
        expected or f"{pattern}: expected at least one image, found none"
    )


def test_a_file_with_wildcards_in_its_name_can_be_named(folder):
    write_files(folder, "d[1]/a*.png", "d[1]/ab.png", "d1/c.png")
    assert ids_of("d[1]") == ["d[1]/a*.png", "d[1]/ab.png"]
    assert ids_of("d[1]/a*.png") == ["d[1]/a*.png"]


# lists


def test_a_list_names_files_relative_to_itself(folder):
    write_files(folder, "lists/sub/a.png", "b.png", "lists/c.png", "lists/with space .png", "lists/d.json")
    lines = ["sub/a.png", "", "../b.png\r", f"{folder}/lists/c.png", "with space .png", "d.json", "sub/gone.png"]
    (folder / "lists/all.txt").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    items = items_of("lists/all.txt")
    assert [item.id for item in items] == [
        f"{folder}/lists/c.png",
        "lists/../b.png",
        "lists/d.json",
        "lists/sub/a.png",
        "lists/sub/gone.png",
        "lists/with space .png",
    ]
    assert str(items[4].content) == "lists/sub/gone.png: cannot be read (no such file or directory)"


def test_a_list_may_name_containers(folder):
    write_files(folder, "a.png")
    write_idx(folder / "images", np.zeros((2, 28, 28), np.uint8))
    write_idx(folder / "labels", np.array([7, 2], np.uint8))
    (folder / "all.list").write_text("images\na.png\nlabels\nimages\n")
    assert [(item.id, item.label) for item in items_of("all.list")] == [
        ("a.png", None),
        ("images#0", 7),
        ("images#1", 2),
    ]


def test_any_file_is_a_list_behind_an_at_sign(folder):
    write_files(folder, "a.png")
    (folder / "which").write_text("a.png\n")
    assert ids_of("@which") == ["a.png"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"one\ntwo\n", "found none that exists"),
        (b"# Read me\n\nThis is text.\n" * 30, "found none that exists"),
        (b"a.png\n\x89PNG\0\0", "found something else in line 2"),
        (b"a.png\n" + b"x" * 10_000, "found something else in line 2"),
        (b"a.png\nd\n", "line 2: expected a file, found the folder d; name it as an input instead"),
        (b"\n\n", "found none"),
        (b"", "found none"),
    ],
)
def test_a_text_that_is_no_list_is_refused(folder, text, found):
    write_files(folder, "a.png", "d/b.png")
    (folder / "list.txt").write_bytes(text)
    message = refusal_of("list.txt")
    assert message.startswith("list.txt")
    assert found in message
