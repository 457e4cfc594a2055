"""Containers that are refused before a job starts, in one line that names the file."""

import errno
import gzip
import io
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scored_items import ids_of, make_images, png, refusal_of

from mnist_core.errors import ItemUnreadableError, StorageError
from mnist_core.inputs.faults import reading, unreadable

IMAGES = make_images(3)
LABELS = np.array([7, 2, 1], np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def idx(array):
    codes = {"uint8": 8, "float32": 13}
    header = struct.pack(f">HBB{array.ndim}I", 0, codes[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def parquet(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


OBJECTS = np.array([None, {}], dtype=object)
REFUSED = {
    "empty idx": ("x-images-idx3-ubyte", b"", "expected an IDX file", "found an empty file"),
    "idx of another magic": ("x-images-idx3-ubyte", b"\x89PNG", "begins with 00 00 08 03", "found 89 50 4e 47"),
    "cut idx header": ("x-images-idx3-ubyte", idx(IMAGES)[:9], "expected an IDX header of 16 bytes", "found 9"),
    "cut idx": ("x-images-idx3-ubyte", idx(IMAGES)[:-1], "expected 2368 bytes", "found 2367"),
    "idx with more": ("x-images-idx3-ubyte", idx(IMAGES) + b"1", "expected 2368 bytes", "found 2369"),
    "idx of other shape": ("x-images-idx3-ubyte", idx(IMAGES[:, :20]), "uint8 (N, 28, 28)", "found uint8 (3, 20, 28)"),
    "idx of other type": ("x.idx", idx(IMAGES.astype("f4")), "uint8 (N, 28, 28)", "found float32 (3, 28, 28)"),
    "labels for images": ("x-labels", idx(LABELS), "expected images, found labels", "name the images file"),
    "no idx in gzip": ("x-images-idx3-ubyte.gz", gzip.compress(b"some text"), "expected an IDX file", "found 73 6f 6d"),
    "torn gzip header": ("x-images-idx3-ubyte.gz", gzip.compress(idx(IMAGES))[:8], "cannot be read", "ended before"),
    "empty npy": ("x.npy", b"", "cannot be read", "EOF"),
    "npy that is none": ("x.npy", b"x" * 100, "cannot be read", "magic string"),
    "cut npy header": ("x.npy", npy(IMAGES)[:60], "cannot be read", "EOF"),
    "npy with a broken header": ("x.npy", npy(IMAGES).replace(b"}", b" "), "cannot be read", "its header is no"),
    "cut npy": ("x.npy", npy(IMAGES)[:-1], "expected 2480 bytes", "found 2479"),
    "npy of other type": ("x.npy", npy(IMAGES.astype(float)), "expected images as uint8", "float64 (3, 28, 28)"),
    "npy of objects": ("x.npy", npy(OBJECTS), "x.npy: its header says object", "expected"),
    "npy of rows": ("x.npy", npy(IMAGES.reshape(3, 784)), "expected images as uint8 (N, 28, 28)", "uint8 (3, 784)"),
    "npy of colours": ("x.npy", npy(np.stack([IMAGES] * 3, -1)), "uint8 (N, 28, 28)", "uint8 (3, 28, 28, 3)"),
    "npy of five axes": ("x.npy", npy(IMAGES[None, ..., None]), "uint8 (N, 28, 28)", "uint8 (1, 3, 28, 28, 1)"),
    "npy of one value": ("x.npy", npy(np.uint8(3)), "uint8 (N, 28, 28)", "found uint8 ()"),
    "npy in Fortran's order": ("x.npy", npy(np.asfortranarray(IMAGES)), "expected an array in C order", "ascontiguous"),
    "npz that is none": ("x.npz", b"PK\3\4" + b"x" * 100, "cannot be read", "zip file"),
    "cut npz": ("x.npz", npz(images=IMAGES)[:-30], "cannot be read", "zip file"),
    "npz of other names": ("x.npz", npz(a=IMAGES, b=LABELS), "expected arrays named images, or x_train", "found a, b"),
    "npz of other type": ("x.npz", npz(images=IMAGES.astype("f4")), "x.npz[images]: expected images", "float32"),
    "npz of objects": ("x.npz", npz(images=OBJECTS), "expected images as uint8", "object"),
    "npz with too few labels": ("x.npz", npz(x_test=IMAGES, y_test=LABELS[:2]), "x.npz[y_test]: expected 3", "found 2"),
    "npz with wrong labels": ("x.npz", npz(images=IMAGES, labels=LABELS + 9), "from 0 to 9", "found 16"),
    "npz with object labels": ("x.npz", npz(images=IMAGES, labels=OBJECTS), "x.npz[labels]: cannot", "allow_pickle"),
    "parquet that is none": ("x.parquet", b"PAR1" + b"x" * 100 + b"PAR1", "cannot be read", "x.parquet: "),
    "empty parquet": ("x.parquet", b"", "cannot be read", "x.parquet: "),
    "cut parquet": ("x.parquet", parquet(image=[png()])[:-1], "cannot be read", "x.parquet: "),
    "parquet of no images": ("x.parquet", parquet(a=[1], b=["t"]), "expected encoded images", "a (int64), b (string)"),
    "parquet with image paths": ("x.parquet", parquet(image=["a.png"]), "expected encoded images", "image (string)"),
    "tar that is none": ("x.tar", b"x" * 1000, "cannot be read", "not the header of a tar"),
    "empty tar": ("x.tar", b"", "cannot be read", "cut off before the mark"),
    "cut tar header": ("x.tar", b"x" * 100, "cannot be read", "cut off in a header"),
    "tar.gz that is none": ("x.tar.gz", b"\x1f\x8bxxxxxxxxxxxxxx", "cannot be read", "x.tar.gz: "),
    "tar.xz that is none": ("x.tar.xz", b"\xfd7zXZxxxxxxxxxxxx", "cannot be read", "x.tar.xz: "),
    "tar.bz2 that is none": ("x.tar.bz2", b"BZxxxxxxxxxxxxxxxx", "cannot be read", "x.tar.bz2: "),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("is_named", [True, False], ids=["named", "found"])
def test_a_container_that_is_broken_is_refused(folder, case, is_named):
    name, content, expected, found = REFUSED[case]
    (folder / "d").mkdir()
    (folder / "d" / name).write_bytes(content)
    message = refusal_of(f"d/{name}" if is_named else "d")
    if case == "labels for images" and not is_named:
        assert message == "d: expected at least one image, found none"
        return
    assert message.startswith("d/x")
    assert expected in message
    assert found in message


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (idx(LABELS[:2]), "labels-idx1-ubyte: expected 3 labels, one for each image of x-images-idx3-ubyte, found 2"),
        (idx(LABELS + 5), "labels-idx1-ubyte: expected labels from 0 to 9, found 12 at index 0"),
        (idx(IMAGES), "labels-idx1-ubyte: expected labels as uint8 (N,), found uint8 (3, 28, 28)"),
        (idx(LABELS)[:-1], "labels-idx1-ubyte: its header says uint8 (3), so expected 11 bytes, found 10"),
        (gzip.compress(idx(LABELS))[:-9], "labels-idx1-ubyte: cannot be read (Compressed file ended before"),
    ],
)
def test_labels_that_do_not_belong_to_their_images_are_refused(folder, labels, expected):
    (folder / "x-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (folder / "x-labels-idx1-ubyte").write_bytes(labels)
    assert refusal_of("x-images-idx3-ubyte").startswith(f"x-{expected}")


def test_labels_that_are_given_must_belong_to_one_array(folder):
    (folder / "images").write_bytes(idx(IMAGES))
    (folder / "a.npy").write_bytes(npy(IMAGES))
    (folder / "a.png").write_bytes(png())
    (folder / "labels").write_bytes(idx(LABELS))
    assert "expected exactly one IDX or .npy file" in refusal_of("images", "a.npy", labels="labels")
    assert "expected exactly one IDX or .npy file" in refusal_of("a.png", labels="labels")
    assert "absent: expected a file or folder, found nothing" in refusal_of("a.npy", labels="absent")
    assert len(ids_of("images", "a.png", labels="labels")) == 4


def test_columns_that_are_asked_for_must_be_there(folder):
    (folder / "a.parquet").write_bytes(parquet(image=[png(), png()], n=[1, 1], s=["x", None]))
    assert "a.parquet: expected a column 'pixels', found image, n, s" in refusal_of("a.parquet", image_column="pixels")
    assert "expected a column 'y'" in refusal_of("a.parquet", label_column="y")
    assert "expected a column 'z'" in refusal_of("a.parquet", id_column="z")
    assert "in a column named n, found image (binary), n (int64)" in refusal_of("a.parquet", image_column="n")
    assert "expected ids that tell the rows apart in column 'n', found '1' 2 times" in refusal_of(
        "a.parquet", id_column="n"
    )
    assert "expected an id in each row, found 1 empty in column 's'" in refusal_of("a.parquet", id_column="s")


def test_ids_must_tell_the_rows_of_all_files_apart(folder):
    (folder / "a.parquet").write_bytes(parquet(image=[png()], n=[1]))
    (folder / "b.parquet").write_bytes(parquet(image=[png()], n=["1"]))
    assert "found '1' 2 times" in refusal_of(".", id_column="n")


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EMFILE, "give this process more"), (errno.ENOTCONN, "see to the file system")]
)
def test_what_is_not_the_files_fault_stops_the_job_instead_of_becoming_its_row(number, remedy):
    err = OSError(number, "what the system says")
    with pytest.raises(StorageError, match=f"cannot read a.png: what the system says; {remedy}"):
        unreadable("a.png", err)
    with pytest.raises(StorageError, match=remedy), reading("a.tar"):
        raise err
    assert isinstance(unreadable("a.png", OSError(errno.EIO, "input/output error")), ItemUnreadableError)
