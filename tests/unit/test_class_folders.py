import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mnist_core.errors import DatasetError
from mnist_core.splits import read_splits


def make_images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def write_class_folders(folder, images, labels, suffix=".png"):
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{index:03}{suffix}")


def refusal_of(path):
    with pytest.raises(DatasetError) as refusal:
        read_splits(path)
    message = str(refusal.value)
    assert "\n" not in message
    return message


def test_class_folders_are_read_sorted_by_class_and_file_name(tmp_path):
    images = make_images(4)
    write_class_folders(tmp_path, images, [3, 1, 3, 1])
    train, test = read_splits(tmp_path)
    np.testing.assert_array_equal(train.images, images[[1, 3, 0, 2]])
    assert train.labels.tolist() == [1, 1, 3, 3]
    assert train.images.dtype == train.labels.dtype == np.uint8
    assert len(test) == 0
    assert test.images.shape == (0, 28, 28)


def test_class_folders_below_train_and_test_are_two_splits(tmp_path):
    write_class_folders(tmp_path / "train", make_images(3), [0, 1, 2])
    write_class_folders(tmp_path / "test", make_images(2), [4, 5])
    train, test = read_splits(tmp_path)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2], [4, 5])


def test_a_lone_test_folder_is_the_training_split(tmp_path):
    write_class_folders(tmp_path / "test", make_images(2), [4, 5])
    train, test = read_splits(tmp_path)
    assert (len(train), len(test)) == (2, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_images_of_any_8_bit_mode_are_read_as_grey(tmp_path, mode):
    (tmp_path / "7").mkdir()
    black_and_white = np.where(make_images(1)[0] > 127, 255, 0).astype(np.uint8)
    Image.fromarray(black_and_white).convert(mode).save(tmp_path / "7" / "a.png")
    train, _ = read_splits(tmp_path)
    np.testing.assert_array_equal(train.images[0], black_and_white)


def test_jpeg_images_are_read_to_a_few_grey_levels(tmp_path):
    smooth = np.add.outer(np.arange(28), np.arange(28)).astype(np.uint8) * 4
    write_class_folders(tmp_path, [smooth], [7], ".jpg")
    train, _ = read_splits(tmp_path)
    assert np.abs(train.images[0].astype(int) - smooth).max() <= 8


def test_hidden_files_and_files_of_other_kinds_are_ignored(tmp_path):
    write_class_folders(tmp_path, make_images(1), [7])
    (tmp_path / "7" / "notes.txt").write_text("seven")
    (tmp_path / "7" / ".hidden.png").write_bytes(b"")
    (tmp_path / "README.md").write_text("sevens")
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    train, _ = read_splits(tmp_path)
    assert train.labels.tolist() == [7]


def test_an_image_of_another_size_is_refused(tmp_path):
    (tmp_path / "7").mkdir()
    Image.new("L", (32, 30)).save(tmp_path / "7" / "big.png")
    assert refusal_of(tmp_path) == f"{tmp_path / '7' / 'big.png'}: expected an image of 28x28 pixels, found 32x30"


def test_an_image_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5000, 5000, 8, 0, 0, 0, 0))
    (tmp_path / "7").mkdir()
    bomb = tmp_path / "7" / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    assert refusal_of(tmp_path) == f"{bomb}: expected an image of 28x28 pixels, found 5000x5000"


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"not an image at all"])
def test_a_file_that_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "bad.png").write_bytes(content)
    assert refusal_of(tmp_path).startswith(f"{tmp_path / '7' / 'bad.png'}: expected an image of 28x28 pixels, found")


def test_a_truncated_image_is_refused(tmp_path):
    write_class_folders(tmp_path, make_images(1), [7])
    path = tmp_path / "7" / "000.png"
    path.write_bytes(path.read_bytes()[:-400])
    assert refusal_of(tmp_path).startswith(f"{path}: expected an image of 28x28 pixels, found one that cannot be read")


def test_an_image_with_transparent_pixels_is_refused(tmp_path):
    (tmp_path / "7").mkdir()
    Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(tmp_path / "7" / "a.png")
    assert "expected an opaque image, found transparent pixels" in refusal_of(tmp_path)


def test_an_image_of_16_bits_is_refused(tmp_path):
    (tmp_path / "7").mkdir()
    Image.fromarray(np.full((28, 28), 4095, np.uint16)).save(tmp_path / "7" / "a.png")
    assert "expected 8 bits a channel, found Pillow's mode I;16" in refusal_of(tmp_path)


def test_a_class_above_9_is_refused(tmp_path):
    write_class_folders(tmp_path, make_images(2), [1, 10])
    assert refusal_of(tmp_path) == f"{tmp_path / '10'}: expected class folders named 0 to 9, found '10'"


def test_a_class_folder_without_images_is_refused(tmp_path):
    write_class_folders(tmp_path, make_images(1), [1])
    (tmp_path / "2").mkdir()
    assert refusal_of(tmp_path).startswith(f"{tmp_path / '2'}: expected images in this class folder, found none")


def test_an_empty_folder_is_refused(tmp_path):
    assert refusal_of(tmp_path).startswith(f"{tmp_path}: expected class folders named 0 to 9, train and test folders")


def test_an_empty_split_folder_is_refused(tmp_path):
    write_class_folders(tmp_path / "train", make_images(1), [1])
    (tmp_path / "test").mkdir()
    assert refusal_of(tmp_path) == f"{tmp_path / 'test'}: expected class folders named 0 to 9, found none"
