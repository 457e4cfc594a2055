"""The published datasets: which files they are, by checksum, and how to fetch them from public mirrors."""

from __future__ import annotations

import hashlib
import http.client
import logging
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mnist_core.errors import DatasetError, DatasetNotFoundError
from mnist_core.idx import read_uncompressed, uncompress, write_atomically

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]
"""Told how a download goes: its URL, the bytes received so far, the bytes expected (None if the server is silent)."""

TIMEOUT_S: Final = 20.0
"""How long a mirror may take to connect, and to send the next bytes."""
MAX_DOWNLOAD_BYTES: Final = 64 * 2**20
"""More than twice the largest file that is fetched; a server that sends more sends something else."""
_CHUNK_BYTES: Final = 2**16


@dataclass(frozen=True)
class Published:
    """A dataset that its authors published as four IDX files.

    Attributes:
        description: One line for people.
        torchvision_folder: Where torchvision keeps the files, below its root.
        mirrors: Addresses below which the files are, gzip-compressed.
        sha256: File name -> SHA-256 of the uncompressed file: images and labels for training, then for the test.
    """

    description: str
    torchvision_folder: str
    mirrors: tuple[str, ...]
    sha256: Mapping[str, str]


PUBLISHED: Final[dict[str, Published]] = {
    "mnist": Published(
        description="handwritten digits, 60,000 + 10,000 (LeCun, Cortes, Burges)",
        torchvision_folder="MNIST/raw",
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        sha256={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion-mnist": Published(
        description="clothes in MNIST's form, 60,000 + 10,000 (Xiao, Rasul, Vollgraf)",
        torchvision_folder="FashionMNIST/raw",
        mirrors=(
            # The authors' bucket speaks plain HTTP only; the checksums make that safe.
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        sha256={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
    ),
}
"""The datasets that can be fetched, by name."""


def find_published_file(folder: Path, file_name: str) -> Path | None:
    """Find one of the four files in a folder, compressed or not."""
    paths = (folder / f"{file_name}.gz", folder / file_name)
    return next((path for path in paths if path.is_file()), None)


def read_published_file(folder: Path, file_name: str, sha256: str) -> bytes:
    """Read one of the four files and check that it is what was published.

    Args:
        folder: Where it is, compressed or not.
        file_name: Its name without ``.gz``.
        sha256: SHA-256 of the uncompressed file: there are several gzip wrappers of the same content about.

    Returns:
        The uncompressed bytes.

    Raises:
        DatasetError: The file is missing, torn, or another one.
    """
    path = find_published_file(folder, file_name)
    if path is None:
        raise DatasetError(f"{folder / file_name}: expected this file, or with .gz, found neither")
    data = read_uncompressed(path)
    _check_sha256(data, sha256, str(path))
    return data


def fetch_published(published: Published, folder: Path, progress: Progress | None = None) -> None:
    """Fetch into a folder those of the four files that are missing there or torn.

    Args:
        published: The dataset.
        folder: Made if it is not there.
        progress: Told how it goes.

    Raises:
        DatasetNotFoundError: No mirror has a file; the message gives the reason of each.
        DatasetError: The folder cannot be written.
    """
    for file_name, sha256 in published.sha256.items():
        try:
            read_published_file(folder, file_name, sha256)
        except DatasetError:
            urls = [f"{mirror}{file_name}.gz" for mirror in published.mirrors]
            download_file(urls, folder / f"{file_name}.gz", sha256, progress)


def download_file(urls: Sequence[str], path: Path, sha256: str, progress: Progress | None = None) -> None:
    """Fetch a file from the first mirror that has it whole.

    The bytes stay in memory until they are checked, so a download that breaks off leaves nothing on disk.

    Args:
        urls: Where to look, in this order.
        path: Where the file goes, as it was sent, in one step.
        sha256: SHA-256 of the file without its gzip wrapper.
        progress: Told how it goes.

    Raises:
        DatasetNotFoundError: No mirror had it; the message gives the reason of each.
        DatasetError: The file cannot be written.
    """
    failures = []
    for url in urls:
        try:
            content = _get(url, progress)
            _check_sha256(uncompress(content, url), sha256, url)
        except (OSError, http.client.HTTPException) as err:
            failures.append(f"{url}: {err}")
        except DatasetError as err:
            failures.append(str(err))
        else:
            write_atomically(path, content)
            return
        logger.info("mirror failed: %s", failures[-1])
    raise DatasetNotFoundError("; ".join(failures))


def _get(url: str, progress: Progress | None) -> bytes:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - addresses are constants above
        expected: int | None = response.length
        content = bytearray()
        while True:
            if progress is not None:
                progress(url, len(content), expected)
            chunk = response.read(_CHUNK_BYTES)
            if not chunk:
                break
            content += chunk
            if len(content) > MAX_DOWNLOAD_BYTES:
                raise DatasetError(f"{url}: expected at most {MAX_DOWNLOAD_BYTES} bytes, found more")
    return bytes(content)


def _check_sha256(data: bytes, expected: str, name: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise DatasetError(f"{name}: expected the uncompressed SHA-256 {expected}, found {found}")
