"""Whatever happens to a container: it is refused in one line, or gives items and errors; nothing else is raised."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_items import items_of, make_images

from mnist_core.errors import DatasetError, MnistError
from mnist_core.idx import write_idx

IMAGES = make_images(4) * (np.arange(28) < 14).astype(np.uint8)


def write_tar(path):
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in (("é" * 60 + ".png", IMAGES[0].tobytes()), ("b.png", b"B"), ("b.cls", b"7")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


WRITERS = {
    "x-images": lambda path: write_idx(path, IMAGES),
    "x-images.gz": lambda path: write_idx(path, IMAGES),
    "x.npy": lambda path: np.save(path, IMAGES),
    "x.npz": lambda path: np.savez_compressed(path, x_test=IMAGES, y_test=np.arange(4)),
    "x.parquet": lambda path: pq.write_table(pa.table({"image": [each.tobytes() for each in IMAGES]}), path),
    "x.tar": write_tar,
    "x.tgz": write_tar,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for name, write in WRITERS.items():
        write(folder / name)
    return folder


@given(
    name=st.sampled_from(list(WRITERS)),
    place=st.floats(0, 1),
    length=st.integers(0, 40),
    replacement=st.one_of(st.binary(max_size=40), st.none()),
)
@settings(deadline=None, max_examples=200)
def test_a_damaged_container_is_refused_or_gives_items_and_errors(whole, name, place, length, replacement):
    data = (whole / name).read_bytes()
    start = int(place * len(data))
    rest = b"" if replacement is None else replacement + data[start + length :]
    (whole / "damaged").mkdir(exist_ok=True)
    (whole / "damaged" / name).write_bytes(data[:start] + rest)
    try:
        found = [item.content for item in items_of(whole / "damaged" / name)]
    except DatasetError as refusal:
        found = [refusal]
    assert all(len(str(each).splitlines()) == 1 for each in found if isinstance(each, MnistError))
