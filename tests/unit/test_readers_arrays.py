"""Reading IDX files, .npy and .npz: pixels, ids and labels."""

import numpy as np
import pytest
from scored_items import ids_of, items_of, items_of_unit, make_images, refusal_of

from mnist_core.idx import write_idx
from mnist_core.inputs import plan
from mnist_core.inputs.plan import plan_inputs, plan_units

IMAGES = make_images(10)
LABELS = np.array([7, 2, 1, 0, 4, 1, 4, 9, 5, 9], np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory; units of four items, batches of three."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "ROWS_PER_UNIT", 4)
    return tmp_path


def assert_items(items, images=IMAGES, labels=LABELS):
    np.testing.assert_array_equal(np.stack([item.content for item in items]), images)
    assert [item.label for item in items] == ([None] * len(images) if labels is None else list(labels))


def write(folder, name):
    {
        "x-images-idx3-ubyte": lambda: write_idx(folder / "x-images-idx3-ubyte", IMAGES),
        "x-images-idx3-ubyte.gz": lambda: write_idx(folder / "x-images-idx3-ubyte.gz", IMAGES),
        "x.npy": lambda: np.save(folder / "x.npy", IMAGES),
        "x.npz": lambda: np.savez(folder / "x.npz", images=IMAGES, labels=LABELS),
        "packed.npz": lambda: np.savez_compressed(folder / "packed.npz", images=IMAGES, labels=LABELS),
    }[name]()


KINDS = ["x-images-idx3-ubyte", "x-images-idx3-ubyte.gz", "x.npy", "x.npz", "packed.npz"]


@pytest.mark.parametrize("name", KINDS)
def test_an_array_is_its_images_with_their_index_as_id(folder, name):
    write(folder, name)
    items = items_of(name)
    assert_items(items, labels=LABELS if name.endswith("npz") else None)
    assert [item.id for item in items] == [f"{name}#{index}" for index in range(10)]
    assert ids_of(".") == ids_of(name)
    assert [unit.num_items for unit in plan_units([name])] == [3, 3, 4]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_labels_of_an_idx_file_are_found_beside_it(folder, suffix):
    write_idx(folder / f"t10k-images-idx3-ubyte{suffix}", IMAGES)
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", LABELS)
    assert_items(items_of(f"t10k-images-idx3-ubyte{suffix}"))
    assert_items(items_of("."))
    assert plan_inputs(["."]).skipped == {}


def test_real_mnist_is_read_with_its_labels(mnist_data_dir, monkeypatch):
    monkeypatch.setattr(plan, "ROWS_PER_UNIT", 5000)
    units = plan_units([str(mnist_data_dir / "t10k-images-idx3-ubyte.gz")])
    first = items_of_unit(units[0], batch_size=512)[0]
    assert [unit.num_items for unit in units] == [5000, 5000]
    assert (units[0].labels[:10], first.label, int(first.content.sum())) == ("7210414959", 7, 18454)


def test_labels_may_be_given_and_then_none_are_looked_for(folder):
    write_idx(folder / "images", IMAGES)
    write_idx(folder / "labels", LABELS)
    np.save(folder / "mine.npy", LABELS[::-1].astype(np.int64))
    assert_items(items_of("images", labels="mine.npy"), labels=LABELS[::-1])
    np.save(folder / "digits.npy", IMAGES)
    assert_items(items_of("digits.npy", labels="labels"))


def test_labels_of_npy_files_are_found_by_the_same_names(folder):
    np.save(folder / "a_images.npy", IMAGES)
    np.save(folder / "a_labels.npy", LABELS)
    np.save(folder / "b_labels.npy", LABELS)
    assert_items(items_of("."))
    assert plan_inputs(["."]).skipped == {"labels": 1}


@pytest.mark.parametrize("shape", [(10, 28, 28, 1), (10, 28, 28)])
def test_a_channel_axis_makes_no_difference(folder, shape):
    np.save(folder / "a.npy", IMAGES.reshape(shape))
    assert_items(items_of("a.npy"), labels=None)


def test_a_single_image_is_an_array_of_one(folder):
    np.save(folder / "a.npy", IMAGES[0])
    (item,) = items_of("a.npy")
    assert item.id == "a.npy#0"
    np.testing.assert_array_equal(item.content, IMAGES[0])


def test_keras_layout_is_all_its_splits(folder):
    np.savez(folder / "mnist.npz", x_train=IMAGES[:6], y_train=LABELS[:6], x_test=IMAGES[6:], y_test=LABELS[6:])
    items = items_of("mnist.npz")
    assert_items(items, IMAGES[[6, 7, 8, 9, 0, 1, 2, 3, 4, 5]], LABELS[[6, 7, 8, 9, 0, 1, 2, 3, 4, 5]])
    assert [item.id for item in items[3:5]] == ["mnist.npz#x_test/3", "mnist.npz#x_train/0"]


def test_the_only_array_of_an_npz_is_its_images(folder):
    np.savez(folder / "a.npz", IMAGES)
    assert_items(items_of("a.npz"), labels=None)


def test_first_bytes_tell_what_a_named_file_is(folder):
    for index, name in enumerate(KINDS):
        write(folder, name)
        (folder / name).rename(folder / f"{index}.dat")
        assert len(items_of(f"{index}.dat")) == 10


def test_an_array_without_images_adds_none_and_alone_is_refused(folder):
    np.save(folder / "none.npy", IMAGES[:0])
    assert refusal_of("none.npy") == "none.npy: expected at least one image, found none"
    np.save(folder / "some.npy", IMAGES[:2])
    assert ids_of("none.npy", "some.npy") == ["some.npy#0", "some.npy#1"]
