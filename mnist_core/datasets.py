"""Datasets as arrays: the named ones, found or fetched, and a user's own.

``mnist`` and ``fashion-mnist`` are looked for in a folder of the user's, then where the system's packages put datasets
(Debian has one, dataset-fashion-mnist), then in the cache, then on public mirrors;
``uci-digits`` is embedded. Any other name is a path, which ``mnist_core.splits`` reads.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from mnist_core.config_fields import expand_home
from mnist_core.download import (
    PUBLISHED,
    Progress,
    Published,
    fetch_published,
    find_published_file,
    read_published_file,
)
from mnist_core.errors import DatasetError, DatasetNotFoundError
from mnist_core.idx import parse_idx
from mnist_core.splits import Split, read_splits

__all__ = ["PUBLISHED", "UCI_DIGITS", "Dataset", "Progress", "Split", "fetch_dataset", "list_datasets", "load_dataset"]

logger = logging.getLogger(__name__)

UCI_DIGITS: Final = "uci-digits"
_UCI_TRAIN: Final = 1437
_EMBEDDED: Final = "embedded"
_MIDDLE: Final = 14
"""Row and column of the centre of mass: measured on MNIST, where it is 14.0 on average and at most 0.52 away."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training split and a test split.

    Attributes:
        name: What was asked for: a dataset's name, or a path.
        train: The training split; everything, if the source has one split.
        test: The test split; empty, if the source has one split.
        source: Where it was found: a path, or ``embedded``.
        sha256: SHA-256 over the images and labels of both splits: the same content gives the same checksum, whatever
            files it came from.
    """

    name: str
    train: Split
    test: Split
    source: str
    sha256: str


def load_dataset(
    name: str, data_dir: Path | None = None, *, download: bool = True, progress: Progress | None = None
) -> Dataset:
    """Find a dataset, check it, and read it.

    Args:
        name: ``mnist``, ``fashion-mnist``, ``uci-digits``, or a path to class folders, IDX files or an ``.npz``
            (``./mnist`` is a folder of that name).
        data_dir: Where a published dataset is looked for before the cache: a folder with its four IDX files, or with
            a folder of the dataset's name, or one that torchvision filled (``MNIST/raw``).
        download: Fetch a published dataset that is neither in ``data_dir`` nor in the cache.
        progress: Told how a download goes.

    Returns:
        The dataset.

    Raises:
        DatasetNotFoundError: There is no such dataset; the message says the ways out.
        DatasetError: A file is missing, torn or not what was published; the message names it.
    """
    try:
        if name in PUBLISHED:
            return _load_published(name, data_dir, download, progress)
        if name == UCI_DIGITS:
            return _make_dataset(name, *_load_uci_digits(), _EMBEDDED)
        return _load_path(name)
    except OSError as err:
        raise DatasetError(f"{err.filename or name}: cannot be read ({err.strerror})") from err


def fetch_dataset(name: str, *, progress: Progress | None = None) -> Path:
    """Make sure that a published dataset is whole in the cache, fetching what is missing or torn.

    Args:
        name: One of ``PUBLISHED``.
        progress: Told how the download goes.

    Returns:
        The dataset's folder in the cache.

    Raises:
        DatasetNotFoundError: No mirror has a file; the message says the ways out.
        DatasetError: The cache cannot be written.
    """
    cache = _cache_folder(name)
    try:
        fetch_published(PUBLISHED[name], cache, progress)
    except DatasetNotFoundError as err:
        raise DatasetNotFoundError(f"{name} cannot be downloaded ({err}); {_ways_out(name)}") from err
    return cache


def list_datasets(data_dir: Path | None = None) -> list[dict[str, Any]]:
    """Say which datasets have a name, and which of them are on this machine and whole; nothing is fetched.

    Args:
        data_dir: As for ``load_dataset``.

    Returns:
        For each: ``name``, ``description``, ``found`` (a path, ``embedded``, or None) and ``problem`` (why files that
        are there are no good, or None).
    """
    rows: list[dict[str, Any]] = []
    for name, published in PUBLISHED.items():
        row: dict[str, Any] = {"name": name, "description": published.description, "found": None, "problem": None}
        try:
            row["found"] = load_dataset(name, data_dir, download=False).source
        except DatasetNotFoundError:
            pass
        except DatasetError as err:
            row["problem"] = str(err)
        rows.append(row)
    description = "handwritten digits, 1,437 + 360, brought from 8x8 to MNIST's form (Alpaydin, Kaynak)"
    return [*rows, {"name": UCI_DIGITS, "description": description, "found": _EMBEDDED, "problem": None}]


def _load_published(name: str, data_dir: Path | None, download: bool, progress: Progress | None) -> Dataset:
    published = PUBLISHED[name]
    for folder in [*_user_folders(name, published, data_dir), *_system_folders(name)]:
        if not _files_in(folder, published):
            continue
        try:
            return _read_published(name, folder)
        except DatasetError as err:
            # All published datasets use the same file names: a bare folder is MNIST's, unless the checksums differ.
            if folder != data_dir or name == "mnist":
                raise
            logger.info("%s is not %s: %s", folder, name, err)
    cache = _cache_folder(name)  # not before: who gives a folder needs no home
    if not download and len(_files_in(cache, published)) < len(published.sha256):
        raise DatasetNotFoundError(f"{name} is not on this machine; {_ways_out(name)}")
    try:
        return _read_published(name, cache)
    except DatasetError:
        if not download:
            raise
    return _read_published(name, fetch_dataset(name, progress=progress))


def _user_folders(name: str, published: Published, data_dir: Path | None) -> Iterator[Path]:
    if data_dir is None:
        return
    if not data_dir.is_dir():
        raise DatasetError(f"{data_dir}: expected a folder as --data-dir (or MNIST_DATA_DIR), found none")
    yield from (data_dir / name, data_dir / published.torchvision_folder, data_dir)


def _system_folders(name: str) -> list[Path]:
    roots = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [Path(root, "datasets", name) for root in roots.split(":")]


def _files_in(folder: Path, published: Published) -> list[str]:
    return [file_name for file_name in published.sha256 if find_published_file(folder, file_name)]


def _read_published(name: str, folder: Path) -> Dataset:
    train_images, train_labels, test_images, test_labels = (
        parse_idx(read_published_file(folder, file_name, sha256), file_name)
        for file_name, sha256 in PUBLISHED[name].sha256.items()
    )
    return _make_dataset(name, Split(train_images, train_labels), Split(test_images, test_labels), str(folder))


def _load_path(name: str) -> Dataset:
    path = _expand_home(name, f"{name}:")
    if not path.exists():
        raise DatasetNotFoundError(
            f"{name}: expected {', '.join(PUBLISHED)}, {UCI_DIGITS} or a path, found no file or folder of that name"
        )
    return _make_dataset(name, *read_splits(path), str(path))


def _make_dataset(name: str, train: Split, test: Split, source: str) -> Dataset:
    digest = hashlib.sha256()
    for split in (train, test):
        # The count keeps 3 + 1 images apart from 1 + 3.
        digest.update(len(split).to_bytes(8, "big"))
        digest.update(split.images.tobytes())
        digest.update(split.labels.tobytes())
    return Dataset(name, train, test, source, digest.hexdigest())


def _cache_folder(name: str) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expand_home(root, f"the cache (XDG_CACHE_HOME): received {root},").absolute() / "mnist-on-ray" / name


def _expand_home(path: str, received: str) -> Path:
    try:
        return expand_home(Path(path))
    except ValueError as err:
        raise DatasetError(f"{received} expected {err}") from err


def _ways_out(name: str) -> str:
    return (
        f"put its four IDX files in a folder and give it as --data-dir or MNIST_DATA_DIR, or run 'mnist data fetch "
        f"{name}' on a machine with network and copy {_cache_folder(name)}, or use --dataset {UCI_DIGITS}, "
        "which is embedded"
    )


def _load_uci_digits() -> tuple[Split, Split]:
    """Bring scikit-learn's 1,797 digits of 8x8 pixels, 0 to 16, to MNIST's form.

    As MNIST was made: the digit fills 20x20 pixels of grey, with its centre of mass in the middle of 28x28
    (http://yann.lecun.com/exdb/mnist/). The test split is the end of the source, not a draw from it: the nearest
    training image alone tells 96.1% of these digits, but 98.3 to 99.7% of 360 drawn at random, as if a draw put the
    digits of one writer in both splits.
    """
    from sklearn.datasets import load_digits  # takes a second

    digits, labels = load_digits(return_X_y=True)
    # Padded first, so that the outermost strokes fade out as the others do; 16 -> 40 is 8 -> 20.
    padded = np.pad(digits.reshape(-1, 8, 8).astype(np.float32), ((0, 0), (4, 4), (4, 4)))
    images = np.stack([_crop_around_mass(_enlarge(image)) for image in padded])
    labels = labels.astype(np.uint8)
    return Split(images[:_UCI_TRAIN], labels[:_UCI_TRAIN]), Split(images[_UCI_TRAIN:], labels[_UCI_TRAIN:])


def _enlarge(image: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    large = Image.fromarray(image).resize((40, 40), Image.Resampling.BICUBIC)
    return np.clip(np.rint(np.asarray(large) * (255 / 16)), 0, 255).astype(np.uint8)


def _crop_around_mass(image: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    positions, mass = np.arange(len(image)), image.sum()
    top = round(image.sum(axis=1) @ positions / mass) - _MIDDLE
    left = round(image.sum(axis=0) @ positions / mass) - _MIDDLE
    return image[top : top + 28, left : left + 28]
