"""No key, whatever it holds, leads out of the storage's folder."""

import contextlib
import string
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mnist_core.errors import StorageError
from mnist_core.storage import open_storage

NASTY = st.text(alphabet="./\\~-_a1 \n\0%#:*é", max_size=12)
PLAIN = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._=-]{0,9}(/[A-Za-z0-9_][A-Za-z0-9._=-]{0,9}){0,3}", fullmatch=True)


@settings(deadline=None, max_examples=200)
@given(key=NASTY | st.text(max_size=20))
@example("../secret")
@example("a/../../secret")
@example("/etc/passwd")
@example("a\n")
@example("a" * 151)
@example("/".join("a" * 17))
def test_a_key_is_refused_or_stays_below_the_root(key):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "secret").write_bytes(b"secret")
        storage = open_storage(f"{folder}/storage")
        with contextlib.suppress(StorageError):
            assert storage.read_bytes(key) != b"secret"
        for act in (storage.delete, lambda key: storage.write_bytes(key, b"1"), lambda key: storage.create(key, b"1")):
            with contextlib.suppress(StorageError):
                act(key)
        outside = [path for path in Path(folder).rglob("*") if "storage" not in path.relative_to(folder).parts[0]]
        assert [path.name for path in outside] == ["secret"]
        assert (Path(folder) / "secret").read_bytes() == b"secret"


@settings(deadline=None, max_examples=50)
@given(key=PLAIN, data=st.binary(max_size=50))
@example("runs/a=1/checkpoint_000001/weights.npz", b"")
@example("a" * 150, b"")
def test_a_plain_key_is_written_listed_and_read_back(key, data):
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(folder)
        storage.write_bytes(key, data)
        assert storage.read_bytes(key) == data
        assert storage.list_keys() == [key]
        assert Path(storage.path(key)).read_bytes() == data


def test_files_that_no_key_can_name_are_not_listed(tmp_path):
    for name in (".hidden", "with space", "umlaut-ä", "kept"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".folder").mkdir()
    (tmp_path / ".folder" / "file").write_bytes(b"")
    assert open_storage(str(tmp_path)).list_keys() == ["kept"]


def test_a_folder_given_relative_is_where_it_was_when_it_was_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = open_storage("storage")
    monkeypatch.chdir("/")
    storage.write_bytes("a", b"1")
    assert (tmp_path / "storage" / "a").read_bytes() == b"1"


def test_the_registry_loads_without_tensorflow_ray_and_numpy():
    heavy = {"tensorflow", "keras", "ray", "numpy", "matplotlib"}
    script = f"import sys, mnist_core.registry; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_letters_digits_and_a_few_marks_are_all_that_a_name_may_hold():
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(folder)
        for char in string.printable:
            try:
                storage.write_bytes(f"a{char}b", b"")
            except StorageError:
                continue
        assert {key for key in storage.list_keys() if "/" not in key} == {
            f"a{char}b" for char in string.ascii_letters + string.digits + "._=-"
        }
