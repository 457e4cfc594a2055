"""A split of labelled images, and the readers that make one from a user's own files.

Class folders, pairs of IDX files and Keras's ``.npz`` end in the same checks here; published datasets and their
checksums are in ``mnist_core.datasets``.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnist_core.errors import DatasetError
from mnist_core.idx import MAX_BYTES, read_idx

IMAGE_SIZE: Final = (28, 28)
NUM_CLASSES: Final = 10
IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm"})

_EIGHT_BIT_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
_IDX_NAME: Final = re.compile(r"(?P<before>(?!\.).*)(?P<kind>images|labels)(?P<after>.*?)(\.gz)?", re.IGNORECASE)
_OF_TEST_SPLIT: Final = re.compile(r"t10k|(?<![a-z])test", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images.

    Attributes:
        images: uint8 (N, 28, 28), white on black.
        labels: uint8 (N,), 0 to 9.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)


def make_split(images: npt.NDArray[Any], labels: npt.NDArray[Any], images_name: str, labels_name: str) -> Split:
    """Check arrays that came from outside and make a split of them.

    Args:
        images: Must be uint8 (N, 28, 28), N at least 1.
        labels: Must be of an integer type, (N,), 0 to 9.
        images_name: What to call the images in a message: their file.
        labels_name: What to call the labels in a message.

    Returns:
        The split.

    Raises:
        DatasetError: The arrays are of another form or do not belong together.
    """
    if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SIZE:
        raise DatasetError(
            f"{images_name}: expected images as uint8 (N, 28, 28), found {images.dtype} {tuple(images.shape)}"
        )
    if len(images) == 0:
        raise DatasetError(f"{images_name}: expected at least one image, found none")
    check_labels(labels, len(images), images_name, labels_name)
    return Split(images, labels.astype(np.uint8, copy=False))


def check_labels(labels: npt.NDArray[Any], num_images: int, images_name: str, labels_name: str) -> None:
    """Refuse labels that are no digits or too few or too many.

    Raises:
        DatasetError: They are not of an integer type, (N,) with N = ``num_images``, each 0 to 9.
    """
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DatasetError(f"{labels_name}: expected labels as uint8 (N,), found {labels.dtype} {tuple(labels.shape)}")
    if len(labels) != num_images:
        raise DatasetError(
            f"{labels_name}: expected {num_images} labels, one for each image of {images_name}, found {len(labels)}"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= NUM_CLASSES))
    if wrong.size:
        raise DatasetError(f"{labels_name}: expected labels from 0 to 9, found {labels[wrong[0]]} at index {wrong[0]}")


def read_splits(path: Path) -> tuple[Split, Split]:
    """Read a user's dataset: class folders, IDX files or an ``.npz``.

    A folder holds folders ``0`` to ``9`` of images; or ``train`` and ``test``, each with such folders; or IDX files in
    pairs, ``...images...`` and ``...labels...``, those of the test split with ``test`` or ``t10k`` in their names.
    A file is an ``.npz`` in Keras's layout (``x_train``, ``y_train``, ``x_test``, ``y_test``) or one half of an IDX
    pair.

    Args:
        path: The file or folder.

    Returns:
        The training split and the test split. A source with one split gives it as the training split, whatever its
        name, and an empty test split.

    Raises:
        DatasetError: A file is missing, torn or of another form; the message names it.
        OSError: A folder cannot be read.
    """
    found = _read_file(path) if path.is_file() else _read_folder(path)
    if len(found) == 1:
        (only,) = found.values()
        return only, Split(np.empty((0, *IMAGE_SIZE), np.uint8), np.empty(0, np.uint8))
    return found["train"], found["test"]


def _read_file(path: Path) -> dict[str, Split]:
    return _read_npz(path) if path.suffix.lower() == ".npz" else {"train": _read_idx_half(path)}


def _read_folder(folder: Path) -> dict[str, Split]:
    split_folders = {name: folder / name for name in ("train", "test") if (folder / name).is_dir()}
    if split_folders:
        return {name: _read_class_folders(split_folder) for name, split_folder in split_folders.items()}
    if any((folder / str(label)).is_dir() for label in range(NUM_CLASSES)):
        return {"train": _read_class_folders(folder)}
    return _read_idx_folder(folder)


def _read_class_folders(folder: Path) -> Split:
    images, labels = [], []
    for child in sorted(folder.iterdir()):
        if not child.is_dir() or child.name.startswith((".", "_")):
            continue
        if not re.fullmatch("[0-9]", child.name):
            raise DatasetError(f"{child}: expected class folders named 0 to 9, found {child.name!r}")
        paths = sorted(path for path in child.iterdir() if _is_image_name(path))
        if not paths:
            raise DatasetError(f"{child}: expected images in this class folder, found none; remove it if it has none")
        images += [_read_image(path) for path in paths]
        labels += [int(child.name)] * len(paths)
    if not images:
        raise DatasetError(f"{folder}: expected class folders named 0 to 9, found none")
    return Split(np.stack(images), np.array(labels, np.uint8))


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read one 28x28 image; its size is known, and checked, before any pixel is decoded."""
    try:
        with Image.open(path) as image:
            if image.size != IMAGE_SIZE:
                raise DatasetError(f"{path}: expected an image of 28x28 pixels, found {image.width}x{image.height}")
            if image.mode not in _EIGHT_BIT_MODES:
                raise DatasetError(f"{path}: expected 8 bits a channel, found Pillow's mode {image.mode}")
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                # Without its background the digit may be black on black.
                raise DatasetError(f"{path}: expected an opaque image, found transparent pixels")
            return np.asarray(image.convert("L"))
    except DatasetError:
        raise
    except Exception as err:  # a decoder of Pillow raises whatever its parser meets
        raise DatasetError(f"{path}: expected an image of 28x28 pixels, found one that cannot be read ({err})") from err


def _read_idx_folder(folder: Path) -> dict[str, Split]:
    found: dict[str, Split] = {}
    for name, pair in _idx_pairs(folder).items():
        split = "test" if _OF_TEST_SPLIT.search(name) else "train"
        if split in found:
            raise DatasetError(
                f"{folder}: expected one pair of IDX files for the {split} split, found more; "
                "give the path of one images file instead"
            )
        found[split] = _read_idx_pair(pair)
    if not found:
        raise DatasetError(
            f"{folder}: expected class folders named 0 to 9, train and test folders, or IDX files "
            "(...images... and ...labels...), found none of them"
        )
    return found


def _read_idx_half(path: Path) -> Split:
    match = _IDX_NAME.fullmatch(path.name)
    if not match:
        raise DatasetError(f"{path}: expected an .npz, or an IDX file with 'images' or 'labels' in its name")
    return _read_idx_pair(_idx_pairs(path.parent)[_pair_name(match)] | {match["kind"].lower(): path})


def _idx_pairs(folder: Path) -> dict[str, dict[str, Path]]:
    names = [path.name for path in folder.iterdir() if _IDX_NAME.fullmatch(path.name) and path.is_file()]
    return {
        shared: {kind: folder / name for kind, name in pair.items()} for shared, pair in pair_idx_names(names).items()
    }


def pair_idx_names(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Pair the files of a folder by what their names share: shared name -> ``images`` or ``labels`` -> file name."""
    pairs: dict[str, dict[str, str]] = {}
    for name in sorted(names):  # name.gz comes after name and replaces it
        if match := _IDX_NAME.fullmatch(name):
            pairs.setdefault(_pair_name(match), {})[match["kind"].lower()] = name
    return pairs


def find_labels_name(images_name: str, pairs: Mapping[str, Mapping[str, str]]) -> str | None:
    """Name the file with the labels of an images file, where `pair_idx_names` has found one beside it."""
    match = _IDX_NAME.fullmatch(images_name)
    return pairs.get(_pair_name(match), {}).get("labels") if match and match["kind"].lower() == "images" else None


def _pair_name(match: re.Match[str]) -> str:
    return f"{match['before']}*{match['after'].replace('idx3', 'idx1')}".lower()


def _read_idx_pair(pair: Mapping[str, Path]) -> Split:
    for kind, other in (("images", "labels"), ("labels", "images")):
        if kind not in pair:
            raise DatasetError(f"{pair[other]}: expected a file with its {kind} beside it, found none")
    images, labels = pair["images"], pair["labels"]
    return make_split(read_idx(images), read_idx(labels), str(images), str(labels))


def _read_npz(path: Path) -> dict[str, Split]:
    try:
        with zipfile.ZipFile(path) as archive:
            size_bytes = sum(member.file_size for member in archive.infolist())
        if size_bytes > MAX_BYTES:
            raise DatasetError(f"{path}: expected at most {MAX_BYTES} bytes of arrays, found {size_bytes}")
        with np.load(path, allow_pickle=False) as archive:
            names = [name for name in ("x_train", "y_train", "x_test", "y_test") if name in archive]
            arrays = {name: np.asarray(archive[name]) for name in names}
    except DatasetError:
        raise
    except Exception as err:  # zipfile, zlib and NumPy's header parser each raise errors of their own
        raise DatasetError(f"{path}: expected a whole .npz file, found one that cannot be read ({err})") from err
    found = {}
    for split in ("train", "test"):
        images, labels = f"x_{split}", f"y_{split}"
        if (images in arrays) != (labels in arrays):
            raise DatasetError(f"{path}: expected both {images} and {labels}, found only {' '.join(arrays)}")
        if images in arrays:
            found[split] = make_split(arrays[images], arrays[labels], f"{path}[{images}]", f"{path}[{labels}]")
    if not found:
        raise DatasetError(f"{path}: expected the arrays x_train, y_train, x_test and y_test, found none of them")
    return found
