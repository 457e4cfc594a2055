"""``mnist data``: list the named datasets, fetch one into the cache, say what one holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mnist_core import datasets
from mnist_core.config import DataConfig
from mnist_core.errors import ConfigError


def run(config: DataConfig) -> dict[str, Any]:
    """Carry the command out.

    Args:
        config: Its configuration.

    Returns:
        A JSON object. list: ``datasets``. fetch: ``name``, ``folder``. info: ``name``, ``source``, ``sha256``,
        ``shape`` and ``dtype`` of an image, ``train`` and ``test`` with ``count`` and ``classes`` (how many of each).

    Raises:
        ConfigError: The action and the name do not fit together.
        DatasetError: The dataset is missing or wrong.
    """
    if config.action == "list":
        if config.name is not None:
            raise ConfigError(f"mnist data list: received the name {config.name!r}, expected none; see mnist data info")
        return {"datasets": datasets.list_datasets(config.data_dir)}
    if config.name is None:
        raise ConfigError(f"mnist data {config.action}: expected a name, such as mnist data {config.action} mnist")
    return _fetch(config.name) if config.action == "fetch" else _info(config)


def render(result: dict[str, Any]) -> str:
    """Put a result of ``run`` in words for a terminal."""
    if "datasets" in result:
        return "\n".join(_render_row(row) for row in result["datasets"])
    if "folder" in result:
        return f"{result['name']} is whole in {result['folder']}"
    rows, columns = result["shape"]
    lines = [
        f"dataset  {result['name']}",
        f"source   {result['source']}",
        f"sha256   {result['sha256']}",
        f"images   {rows}x{columns} {result['dtype']}",
        "class    " + "".join(f"{label:>8}" for label in range(10)) + "     all",
    ]
    for split in ("train", "test"):
        counts = [*result[split]["classes"], result[split]["count"]]
        lines.append(f"{split:<9}" + "".join(f"{count:>8,}" for count in counts))
    return "\n".join(lines)


def tell_downloads(console: Console) -> datasets.Progress:
    """Say what is downloaded, in one line a file."""

    def say(url: str, received_bytes: int, expected_bytes: int | None) -> None:
        if received_bytes == 0:
            size = "unknown size" if expected_bytes is None else decimal(expected_bytes)
            console.print(f"fetching {url} ({size})", markup=False, highlight=False, soft_wrap=True)

    return say


@contextmanager
def download_progress() -> Iterator[datasets.Progress]:
    """Show downloads on stderr: a bar on a terminal, else one line a file."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield tell_downloads(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
        tasks = {}

        def advance(url: str, received_bytes: int, expected_bytes: int | None) -> None:
            if url not in tasks:
                tasks[url] = bars.add_task(url.rpartition("/")[2])
            bars.update(tasks[url], completed=received_bytes, total=expected_bytes)

        yield advance


def _fetch(name: str) -> dict[str, Any]:
    if name not in datasets.PUBLISHED:
        raise ConfigError(
            f"mnist data fetch: received {name!r}, expected one that is published: {' or '.join(datasets.PUBLISHED)}"
        )
    with download_progress() as progress:
        folder = datasets.fetch_dataset(name, progress=progress)
    return {"name": name, "folder": str(folder)}


def _info(config: DataConfig) -> dict[str, Any]:
    assert config.name is not None
    dataset = datasets.load_dataset(config.name, config.data_dir, download=False)
    return {
        "name": dataset.name,
        "source": dataset.source,
        "sha256": dataset.sha256,
        "shape": list(dataset.train.images.shape[1:]),
        "dtype": str(dataset.train.images.dtype),
        "train": _describe(dataset.train),
        "test": _describe(dataset.test),
    }


def _describe(split: datasets.Split) -> dict[str, Any]:
    return {"count": len(split), "classes": np.bincount(split.labels, minlength=10).tolist()}


def _render_row(row: dict[str, Any]) -> str:
    absent = f"not on this machine; mnist data fetch {row['name']}"
    return f"{row['name']:<14} {row['description']}\n{'':14} {row['found'] or row['problem'] or absent}"
