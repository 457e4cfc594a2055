import numpy as np
import pytest
from PIL import Image

from mnist_core.datasets import load_dataset
from mnist_core.errors import DatasetError
from mnist_core.idx import write_idx
from mnist_core.splits import read_splits


def make_images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def write_pair(folder, count, prefix="train-", suffix=".gz", seed=0):
    images, labels = make_images(count, seed), np.arange(count, dtype=np.uint8) % 10
    write_idx(folder / f"{prefix}images-idx3-ubyte{suffix}", images)
    write_idx(folder / f"{prefix}labels-idx1-ubyte{suffix}", labels)
    return images, labels


def refusal_of(path):
    with pytest.raises(DatasetError) as refusal:
        read_splits(path)
    message = str(refusal.value)
    assert "\n" not in message
    return message


# IDX files


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("prefixes", [("train-", "t10k-"), ("my-Train_", "my-TEST_"), ("latest-", "emnist-test-")])
def test_idx_pairs_of_any_name_in_a_folder_are_two_splits(tmp_path, prefixes, suffix):
    images, labels = write_pair(tmp_path, 4, prefixes[0], suffix)
    test_images, _ = write_pair(tmp_path, 3, prefixes[1], suffix, seed=1)
    train, test = read_splits(tmp_path)
    np.testing.assert_array_equal(train.images, images)
    np.testing.assert_array_equal(train.labels, labels)
    np.testing.assert_array_equal(test.images, test_images)


def test_both_forms_of_one_file_count_once(tmp_path):
    write_pair(tmp_path, 4)
    write_pair(tmp_path, 4, suffix="")
    train, test = read_splits(tmp_path)
    assert (len(train), len(test)) == (4, 0)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_one_half_of_a_pair_stands_for_both(tmp_path, suffix):
    write_pair(tmp_path, 4)
    written = {s: write_pair(tmp_path, 3, "t10k-", s, seed)[0] for seed, s in enumerate(["", ".gz"])}
    train, test = read_splits(tmp_path / f"t10k-images-idx3-ubyte{suffix}")
    assert (len(train), len(test)) == (3, 0)
    np.testing.assert_array_equal(train.images, written[suffix])
    assert len(read_splits(tmp_path / f"t10k-labels-idx1-ubyte{suffix}")[0]) == 3


def test_images_without_labels_are_refused(tmp_path):
    write_pair(tmp_path, 4)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    images = tmp_path / "train-images-idx3-ubyte.gz"
    assert refusal_of(tmp_path) == f"{images}: expected a file with its labels beside it, found none"
    assert refusal_of(images) == refusal_of(tmp_path)


def test_labels_without_images_are_refused(tmp_path):
    write_pair(tmp_path, 4)
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    assert "labels-idx1-ubyte.gz: expected a file with its images beside it" in refusal_of(tmp_path)


def test_two_pairs_for_one_split_are_refused(tmp_path):
    write_pair(tmp_path, 4, "a-")
    write_pair(tmp_path, 4, "b-")
    assert "expected one pair of IDX files for the train split, found more" in refusal_of(tmp_path)


def test_counts_that_differ_are_refused(tmp_path):
    write_pair(tmp_path, 4)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    write_idx(labels, np.zeros(3, np.uint8))
    message = refusal_of(tmp_path)
    assert message.startswith(f"{labels}: expected 4 labels, one for each image of ")
    assert message.endswith("found 3")


def test_a_label_above_9_is_refused(tmp_path):
    write_pair(tmp_path, 4)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    write_idx(labels, np.array([0, 9, 10, 11], np.uint8))
    assert refusal_of(tmp_path) == f"{labels}: expected labels from 0 to 9, found 10 at index 2"


def test_idx_images_that_are_not_28x28_are_refused(tmp_path):
    write_pair(tmp_path, 4)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    write_idx(images, np.zeros((4, 28, 27), np.uint8))
    assert refusal_of(tmp_path) == f"{images}: expected images as uint8 (N, 28, 28), found uint8 (4, 28, 27)"


def test_images_in_place_of_labels_are_refused(tmp_path):
    images, _ = write_pair(tmp_path, 4)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", images)
    assert "expected labels as uint8 (N,), found uint8 (4, 28, 28)" in refusal_of(tmp_path)


def test_idx_files_without_images_are_refused(tmp_path):
    write_idx(tmp_path / "images", np.zeros((0, 28, 28), np.uint8))
    write_idx(tmp_path / "labels", np.zeros(0, np.uint8))
    assert refusal_of(tmp_path) == f"{tmp_path / 'images'}: expected at least one image, found none"


def test_a_truncated_idx_file_is_named(tmp_path):
    write_pair(tmp_path, 4)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:100])
    assert refusal_of(tmp_path) == f"{images}: expected a whole gzip file, found it cut off after 100 bytes"


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "digits.csv").write_text("0,1,2")
    assert "digits.csv: expected an .npz, or an IDX file" in refusal_of(tmp_path / "digits.csv")


# .npz


def save_npz(folder, **arrays):
    np.savez_compressed(folder / "mnist.npz", **arrays)
    return folder / "mnist.npz"


def test_npz_in_the_layout_of_keras_is_two_splits(tmp_path):
    images, test_images = make_images(3), make_images(2, seed=1)
    labels = np.array([0, 1, 9])
    path = save_npz(tmp_path, x_train=images, y_train=labels, x_test=test_images, y_test=labels[:2])
    train, test = read_splits(path)
    np.testing.assert_array_equal(train.images, images)
    np.testing.assert_array_equal(test.images, test_images)
    assert train.labels.dtype == np.uint8
    assert train.labels.tolist() == [0, 1, 9]


def test_npz_with_one_split_is_a_training_split(tmp_path):
    train, test = read_splits(save_npz(tmp_path, x_test=make_images(2), y_test=np.zeros(2, np.uint8)))
    assert (len(train), len(test)) == (2, 0)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x": np.zeros(1)}, "expected the arrays x_train, y_train, x_test and y_test, found none"),
        ({"x_train": make_images(1)}, "expected both x_train and y_train, found only x_train"),
        ({"x_train": make_images(1), "y_train": np.zeros(2, int)}, "expected 1 labels"),
        ({"x_train": make_images(1), "y_train": np.array([-1])}, "found -1 at index 0"),
        ({"x_train": make_images(1), "y_train": np.zeros(1)}, "expected labels as uint8 (N,), found float64 (1,)"),
        ({"x_train": make_images(1) / 255, "y_train": np.zeros(1, int)}, "found float64 (1, 28, 28)"),
        ({"x_train": np.array([None]), "y_train": np.array([0])}, "cannot be read (Object arrays cannot be loaded"),
    ],
)
def test_npz_of_another_layout_is_refused(tmp_path, arrays, expected):
    path = save_npz(tmp_path, **arrays)
    message = refusal_of(path)
    assert message.startswith(str(path))
    assert expected in message


@pytest.mark.parametrize("keep", [0, 10, 500, -30])
def test_a_torn_npz_is_refused(tmp_path, keep):
    path = save_npz(tmp_path, x_train=make_images(3), y_train=np.zeros(3, int))
    path.write_bytes(path.read_bytes()[:keep])
    assert refusal_of(path).startswith(f"{path}: expected a whole .npz file, found one that cannot be read")


def test_a_flipped_byte_in_an_npz_is_refused(tmp_path):
    path = save_npz(tmp_path, x_train=make_images(3), y_train=np.zeros(3, int))
    content = bytearray(path.read_bytes())
    content[900] ^= 0xFF
    path.write_bytes(content)
    assert refusal_of(path).startswith(f"{path}: expected a whole .npz file, found one that cannot be read")


def test_an_npz_that_unpacks_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mnist_core.splits.MAX_BYTES", 1000)
    path = save_npz(tmp_path, x_train=np.zeros((2, 28, 28), np.uint8), y_train=np.zeros(2, np.uint8))
    assert "expected at most 1000 bytes of arrays" in refusal_of(path)


# All of them


def test_the_same_content_has_the_same_checksum_in_every_format(tmp_path):
    images, labels = make_images(10), np.arange(10, dtype=np.uint8)
    write_pair(tmp_path / "idx", 10, suffix="")
    write_pair(tmp_path / "zipped", 10)
    for image, label in zip(images, labels, strict=True):
        (tmp_path / "classes" / str(label)).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "classes" / str(label) / "image.png")
    paths = [*tmp_path.iterdir(), save_npz(tmp_path, x_train=images, y_train=labels)]
    loaded = [load_dataset(str(path)) for path in paths]
    assert len({dataset.sha256 for dataset in loaded}) == 1
    assert [dataset.source for dataset in loaded] == [str(path) for path in paths]


def test_moving_an_image_to_the_other_split_changes_the_checksum(tmp_path):
    images, labels = make_images(4), np.zeros(4, np.uint8)
    checksums = set()
    for cut in (1, 2, 3):
        split = {"x_train": images[:cut], "y_train": labels[:cut], "x_test": images[cut:], "y_test": labels[cut:]}
        checksums.add(load_dataset(str(save_npz(tmp_path, **split))).sha256)
    assert len(checksums) == 3
