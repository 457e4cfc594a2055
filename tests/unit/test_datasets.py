import gzip
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mnist_core.datasets import PUBLISHED, list_datasets, load_dataset
from mnist_core.errors import DatasetError, DatasetNotFoundError

FILES = tuple(PUBLISHED["mnist"].sha256)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "share"))
    return tmp_path / "cache" / "mnist-on-ray"


@pytest.fixture
def contents(monkeypatch):
    """Tiny stand-ins for the published datasets, without mirrors: dataset -> file name -> bytes."""
    made = {}
    for index, name in enumerate(PUBLISHED):
        made[name] = {}
        for file_name in FILES:
            count = 4 if file_name.startswith("train") else 2
            sides, ndim = ((28, 28), 3) if "images" in file_name else ((), 1)
            header = bytes([0, 0, 8, ndim]) + b"".join(side.to_bytes(4, "big") for side in (count, *sides))
            made[name][file_name] = header + bytes([index]) * (count * int(np.prod(sides)))
        checksums = {file_name: hashlib.sha256(data).hexdigest() for file_name, data in made[name].items()}
        monkeypatch.setitem(PUBLISHED, name, replace(PUBLISHED[name], sha256=checksums, mirrors=()))
    return made


def write_files(folder, files, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, data in files.items():
        (folder / f"{file_name}{suffix}").write_bytes(gzip.compress(data) if suffix else data)


# Where a published dataset is found


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("mnist", ""),
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", ""),
        ("fashion-mnist", "fashion-mnist"),
        ("fashion-mnist", "FashionMNIST/raw"),
    ],
)
def test_a_dataset_is_found_in_the_data_dir(tmp_path, contents, name, below, suffix):
    write_files(tmp_path / "data" / below, contents[name], suffix)
    dataset = load_dataset(name, tmp_path / "data", download=False)
    assert (dataset.name, len(dataset.train), len(dataset.test)) == (name, 4, 2)
    assert dataset.source == str(tmp_path / "data" / below)
    assert dataset.train.images.shape == (4, 28, 28)
    assert dataset.train.labels.tolist() == [list(PUBLISHED).index(name)] * 4


def test_the_data_dir_comes_before_the_cache(tmp_path, cache, contents):
    write_files(tmp_path / "data", contents["mnist"])
    write_files(cache / "mnist", contents["mnist"])
    assert load_dataset("mnist", tmp_path / "data").source == str(tmp_path / "data")
    assert load_dataset("mnist").source == str(cache / "mnist")


def test_a_data_dir_without_the_dataset_is_passed_over(tmp_path, cache, contents):
    (tmp_path / "data").mkdir()
    write_files(cache / "mnist", contents["mnist"])
    assert load_dataset("mnist", tmp_path / "data").source == str(cache / "mnist")


def test_the_cache_is_in_the_home_folder_by_default(tmp_path, contents, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    write_files(tmp_path / ".cache" / "mnist-on-ray" / "mnist", contents["mnist"])
    assert load_dataset("mnist", download=False).name == "mnist"


def test_a_dataset_is_found_where_packages_of_the_system_put_it(tmp_path, contents):
    write_files(tmp_path / "share" / "datasets" / "fashion-mnist", contents["fashion-mnist"])
    assert load_dataset("fashion-mnist", download=False).source == str(
        tmp_path / "share" / "datasets" / "fashion-mnist"
    )


def test_a_data_dir_of_mnist_does_not_stand_in_for_fashion_mnist(tmp_path, cache, contents):
    write_files(tmp_path / "data", contents["mnist"])
    with pytest.raises(DatasetNotFoundError):
        load_dataset("fashion-mnist", tmp_path / "data", download=False)
    write_files(cache / "fashion-mnist", contents["fashion-mnist"])
    assert load_dataset("fashion-mnist", tmp_path / "data").source == str(cache / "fashion-mnist")


# What is refused


def test_other_files_in_the_data_dir_are_refused_with_both_checksums(tmp_path, contents):
    write_files(tmp_path / "data", contents["mnist"] | {FILES[1]: contents["fashion-mnist"][FILES[1]]})
    with pytest.raises(DatasetError) as refusal:
        load_dataset("mnist", tmp_path / "data")
    expected, found = (PUBLISHED[name].sha256[FILES[1]] for name in ("mnist", "fashion-mnist"))
    path = tmp_path / "data" / f"{FILES[1]}.gz"
    assert str(refusal.value) == f"{path}: expected the uncompressed SHA-256 {expected}, found {found}"


def test_a_file_missing_from_the_data_dir_is_named(tmp_path, contents):
    write_files(tmp_path / "data", contents["mnist"])
    (tmp_path / "data" / f"{FILES[3]}.gz").unlink()
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte: expected this file, or with \.gz, found neither"):
        load_dataset("mnist", tmp_path / "data")


def test_a_truncated_file_in_the_data_dir_is_named(tmp_path, contents):
    write_files(tmp_path / "data", contents["mnist"])
    path = tmp_path / "data" / f"{FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte\.gz: expected a whole gzip file"):
        load_dataset("mnist", tmp_path / "data")


def test_a_wrong_file_in_a_folder_of_the_datasets_name_is_refused(tmp_path, contents):
    write_files(tmp_path / "data" / "fashion-mnist", contents["mnist"])
    with pytest.raises(DatasetError, match="expected the uncompressed SHA-256"):
        load_dataset("fashion-mnist", tmp_path / "data")


def test_a_torn_cache_is_refused_when_nothing_may_be_downloaded(cache, contents):
    write_files(cache / "mnist", contents["mnist"] | {FILES[0]: b"torn"})
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte\.gz: expected the uncompressed SHA-256"):
        load_dataset("mnist", download=False)


def test_a_data_dir_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"typo: expected a folder as --data-dir \(or MNIST_DATA_DIR\), found none"):
        load_dataset("mnist", tmp_path / "typo")


def test_a_dataset_that_is_nowhere_says_the_three_ways_out_in_one_line(cache):
    with pytest.raises(DatasetNotFoundError) as refusal:
        load_dataset("mnist", download=False)
    message = str(refusal.value)
    for way_out in (
        "--data-dir or MNIST_DATA_DIR",
        f"'mnist data fetch mnist' on a machine with network and copy {cache}",
        "--dataset uci-digits",
    ):
        assert way_out in message
    assert "\n" not in message


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        DatasetNotFoundError, match="mnits: expected mnist, fashion-mnist, uci-digits or a path, found no"
    ):
        load_dataset("mnits")


def test_a_path_that_cannot_be_looked_at_is_refused(tmp_path):
    too_long = tmp_path / ("a" * 5000)
    for name, data_dir in ((str(too_long), None), ("mnist", too_long)):
        with pytest.raises(DatasetError, match="aaa: "):
            load_dataset(name, data_dir)


# The list


def test_the_list_says_where_each_dataset_is(tmp_path, contents):
    write_files(tmp_path / "data", contents["mnist"])
    assert {row["name"]: row["found"] for row in list_datasets(tmp_path / "data")} == {
        "mnist": str(tmp_path / "data"),
        "fashion-mnist": None,
        "uci-digits": "embedded",
    }
    assert [row["problem"] for row in list_datasets(tmp_path / "data")] == [None, None, None]


def test_the_list_says_what_is_wrong_with_a_dataset(cache, contents):
    write_files(cache / "mnist", contents["mnist"] | {FILES[0]: b"torn"})
    row = list_datasets()[0]
    assert row["found"] is None
    assert "train-images-idx3-ubyte.gz: expected the uncompressed SHA-256" in row["problem"]


# What they hold


@pytest.fixture(scope="module")
def uci_digits():
    return load_dataset("uci-digits")


def test_uci_digits_have_mnists_form(uci_digits):
    assert (len(uci_digits.train), len(uci_digits.test)) == (1437, 360)
    for split in (uci_digits.train, uci_digits.test):
        assert split.images.shape == (len(split), 28, 28)
        assert split.images.dtype == split.labels.dtype == np.uint8
        assert np.bincount(split.labels).min() >= 33
        assert split.images.min() == 0
        assert split.images.max(axis=(1, 2)).min() >= 220


def test_uci_digits_have_their_centre_of_mass_where_mnist_has_it(uci_digits):
    images = np.concatenate([uci_digits.train.images, uci_digits.test.images]).astype(float)
    mass, positions = images.sum(axis=(1, 2)), np.arange(28)
    for axis in (1, 2):
        centre = images.sum(axis=axis) @ positions / mass
        assert np.abs(centre - 14).max() <= 0.51


def test_uci_digits_fill_the_box_that_mnists_digits_fill(uci_digits):
    heights = [np.ptp(np.flatnonzero(image.max(axis=1) > 127)) + 1 for image in uci_digits.train.images]
    assert 17 <= np.median(heights) <= 20


def test_uci_digits_are_the_same_every_time(uci_digits):
    assert load_dataset("uci-digits").sha256 == uci_digits.sha256


def test_real_mnist_is_found_whole():
    data_dir = os.environ.get("MNIST_DATA_DIR")
    if not data_dir:
        pytest.skip("MNIST_DATA_DIR is not set: no folder with MNIST's files on this machine")
    dataset = load_dataset("mnist", Path(data_dir), download=False)
    assert (dataset.train.images.shape, dataset.test.images.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert np.bincount(dataset.train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(dataset.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert dataset.sha256 == "625c86df0a1319fc9ee83afae9b44174ea5c67d979d470d0a9945b3682b01ff3"
    by_path = load_dataset(data_dir)
    assert by_path.sha256 == dataset.sha256
