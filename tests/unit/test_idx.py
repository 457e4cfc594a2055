import contextlib
import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mnist_core import idx
from mnist_core.errors import DatasetError
from mnist_core.idx import read_idx, write_atomically, write_idx

DTYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]
LABELS = bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1])
IMAGES = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3]) + bytes(range(6))
ZIPPED = gzip.compress(LABELS, mtime=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


def test_labels_are_read_as_the_format_says(tmp_path):
    (tmp_path / "labels").write_bytes(LABELS)
    labels = read_idx(tmp_path / "labels")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [7, 2, 1]


def test_images_are_read_row_by_row(tmp_path):
    (tmp_path / "images").write_bytes(IMAGES)
    assert read_idx(tmp_path / "images").tolist() == [[[0, 1, 2]], [[3, 4, 5]]]


def test_content_and_not_the_name_tells_whether_a_file_is_compressed(tmp_path):
    (tmp_path / "labels").write_bytes(ZIPPED)
    (tmp_path / "labels.gz").write_bytes(LABELS)
    assert read_idx(tmp_path / "labels").tolist() == read_idx(tmp_path / "labels.gz").tolist() == [7, 2, 1]


@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
    ),
    name=st.sampled_from(["array", "array.gz"]),
)
@settings(deadline=None)
def test_what_is_written_is_read_back(folder, array, name):
    write_idx(folder / name, array)
    read = read_idx(folder / name)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array)


def test_a_name_that_ends_in_gz_is_written_compressed_and_always_the_same(tmp_path):
    for name in ("a.gz", "b.gz"):
        write_idx(tmp_path / name, np.arange(3, dtype=np.uint8))
    written = (tmp_path / "a.gz").read_bytes()
    assert gzip.decompress(written)[8:] == bytes([0, 1, 2])
    assert written == (tmp_path / "b.gz").read_bytes()


BAD_FILES = {
    "empty": (b"", "an empty file"),
    "short magic": (b"\0\0\x08", "found 00 00 08"),
    "wrong magic": (b"\x89PNG" + LABELS, "found 89 50 4e 47"),
    "unknown type": (b"\0\0\x07\x01" + LABELS[4:], "found 00 00 07 01"),
    "no dimensions": (b"\0\0\x08\0\1", "found 00 00 08 00"),
    "too many dimensions": (b"\0\0\x08\xff" + bytes(4 * 255), "found 00 00 08 ff"),
    "short header": (LABELS[:6], "expected an IDX header of 8 bytes, found 6"),
    "short data": (LABELS[:-1], "expected 11 bytes, found 10"),
    "trailing data": (LABELS + b"\0", "expected 11 bytes, found 12"),
    "promise of more than memory": (struct.pack(">HBBIII", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "found 16"),
    "nothing of a huge shape": (struct.pack(">HBBIIII", 0, 8, 4, 0, *[2**32 - 1] * 3), "holds nothing"),
    "truncated gzip": (ZIPPED[:-9], f"cut off after {len(ZIPPED) - 9} bytes"),
    "gzip without its checksum": (ZIPPED[:-8], "cut off"),
    "gzip with a wrong checksum": (ZIPPED[:-8] + bytes(4) + ZIPPED[-4:], "damaged"),
    "gzip header only": (ZIPPED[:2], "cut off after 2 bytes"),
    "data behind the gzip": (ZIPPED + b"more", "found 4 more bytes"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line_that_names_it(tmp_path, name):
    content, found = BAD_FILES[name]
    path = tmp_path / "labels-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(DatasetError) as refusal:
        read_idx(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ")
    assert found in message
    assert "\n" not in message


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="expected a file, found nothing"):
        read_idx(tmp_path / "absent")


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(DatasetError, match="expected a file, found no file"):
        read_idx(tmp_path)


@pytest.mark.parametrize("content", [bytes(101), gzip.compress(bytes(101))])
def test_a_file_is_never_read_beyond_the_limit(tmp_path, monkeypatch, content):
    (tmp_path / "bomb").write_bytes(content)
    monkeypatch.setattr(idx, "MAX_BYTES", 100)
    with pytest.raises(DatasetError, match="bomb: expected at most 100 bytes"):
        read_idx(tmp_path / "bomb")


def test_a_path_that_cannot_be_looked_at_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"aaa: (cannot be read|expected a file)"):
        read_idx(tmp_path / ("a" * 5000))


@given(
    st.one_of(
        st.binary(max_size=64),
        st.binary(max_size=64).map(lambda tail: ZIPPED[:10] + tail),
        st.binary(max_size=64).map(gzip.compress),
        st.tuples(st.integers(0, 14), st.integers(0, 5), st.binary(max_size=40)).map(
            lambda parts: bytes([0, 0, *parts[:2]]) + parts[2]
        ),
        st.tuples(st.integers(0, len(ZIPPED) - 1), st.binary(min_size=1, max_size=3)).map(
            lambda change: ZIPPED[: change[0]] + change[1] + ZIPPED[change[0] + 1 :]
        ),
    )
)
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_an_array_or_a_dataset_error(folder, content):
    path = folder / "anything"
    path.write_bytes(content)
    with contextlib.suppress(DatasetError):
        assert 1 <= read_idx(path).ndim <= 4


@pytest.mark.parametrize("array", [np.zeros(3, np.int64), np.zeros((), np.uint8), np.zeros((1,) * 5, np.uint8)])
def test_an_array_the_format_cannot_hold_is_refused(tmp_path, array):
    with pytest.raises(DatasetError, match="expected an array of 1 to 4 dimensions and one of uint8, int8, int16"):
        write_idx(tmp_path / "array", array)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(DatasetError, match="taken: cannot be written"):
        write_atomically(tmp_path / "taken", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "data", b"data")
