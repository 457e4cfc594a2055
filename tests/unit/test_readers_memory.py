"""The memory of a reader does not grow with its container: each is read in a process of its own that says its peak."""

import gzip
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

MEGABYTE = 2**20
NUM_IMAGES = 60_000  # 47 MB
IDX_HEADER = bytes([0, 0, 8, 3]) + NUM_IMAGES.to_bytes(4, "big") + bytes([0, 0, 0, 28]) * 2
READ = """
import json, sys
from mnist_core.inputs.plan import plan_units
from mnist_core.inputs.readers import read_unit

def peak_bytes():  # not getrusage: that begins with the peak of the process that started this one
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

if sys.argv[1].endswith("parquet"):
    import mnist_core.inputs.parquet_files
before, num_items = peak_bytes(), 0
for unit in plan_units(sys.argv[1:]):
    for batch in read_unit(unit, max_image_bytes=10_000_000):
        num_items += len(batch)
print(json.dumps({"num_items": num_items, "grown_bytes": peak_bytes() - before}))
"""


def sparse(path, header):
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + NUM_IMAGES * 784)


def npy(path):
    np.save(path, np.empty((0, 28, 28), np.uint8))
    sparse(path, path.read_bytes().replace(b"(0, 28, 28), }    ", b"(60000, 28, 28), }")[:128])


def idx_gz(path):
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(IDX_HEADER)
        for _ in range(NUM_IMAGES // 1000):
            file.write(bytes(784_000))


def npz(path):
    np.savez_compressed(path, images=np.zeros((NUM_IMAGES, 28, 28), np.uint8))


def parquet(path):
    pq.write_table(pa.table({"image": [bytes(2000)] * 30_000}), path, compression="none", use_dictionary=False)


def tar(path):
    with tarfile.open(path, "w") as archive, Path("/dev/zero").open("rb") as zeros:
        for index in range(60):
            member = tarfile.TarInfo(f"{index}.png")
            member.size = MEGABYTE
            archive.addfile(member, zeros)


CASES = {
    "a-images": (lambda path: sparse(path, IDX_HEADER), NUM_IMAGES, 12),
    "a.npy": (npy, NUM_IMAGES, 12),
    "a-images.gz": (idx_gz, NUM_IMAGES, 15),
    "a.npz": (npz, NUM_IMAGES, 15),
    "a.parquet": (parquet, 30_000, 30),
    "a.tar": (tar, 60, 45),  # a batch of large images is 16 MB, and the next begins before it is let go
}


@pytest.mark.parametrize("name", CASES)
def test_a_container_is_read_in_a_fraction_of_its_size(tmp_path, name):
    write, num_items, most = CASES[name]
    write(tmp_path / name)
    command = [sys.executable, "-c", READ, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(done.stdout)
    assert found["num_items"] == num_items
    assert found["grown_bytes"] / MEGABYTE < most
