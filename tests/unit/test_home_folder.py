"""A ``~`` that stands for no folder: one line says so, wherever it was written."""

from __future__ import annotations

import pwd
import re
from pathlib import Path

import pytest

from mnist_core.config import ScoreConfig, TrainConfig
from mnist_core.config_fields import CommandConfig
from mnist_core.config_sources import load_config
from mnist_core.datasets import list_datasets, load_dataset
from mnist_core.errors import ConfigError, DatasetError, DatasetNotFoundError

NOBODY = "~no-such-user/x"
EXPECTED = "expected a path whose '~' is a known home folder (write it in full, or set HOME)"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without HOME whose user has no entry, as in a container that runs as some number."""

    def nobody(_uid: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_DIRS", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


@pytest.mark.parametrize(
    ("cls", "argv", "received"),
    [
        (TrainConfig, ["--storage", NOBODY], f"--storage: received '{NOBODY}'"),
        (TrainConfig, ["--data-dir", NOBODY], "--data-dir: received "),
        (ScoreConfig, [NOBODY, "out"], f"PATHS: received ['{NOBODY}', 'out']"),
        (ScoreConfig, ["in", NOBODY], f"PATHS: received ['in', '{NOBODY}']"),
    ],
)
def test_a_path_below_the_home_of_nobody_is_refused(cls: type[CommandConfig], argv: list[str], received: str):
    with pytest.raises(ConfigError, match=f"^{re.escape(received)}.*, {re.escape(EXPECTED)}$"):
        load_config(cls, argv)


@pytest.mark.usefixtures("homeless")
def test_a_path_below_no_home_is_refused():
    with pytest.raises(ConfigError, match=f"^--storage: received '~/x', {re.escape(EXPECTED)}$"):
        load_config(TrainConfig, ["--storage", "~/x"])


def test_a_dataset_below_the_home_of_nobody_is_refused():
    with pytest.raises(DatasetError, match=f"^{NOBODY}: {re.escape(EXPECTED)}$"):
        load_dataset(NOBODY)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_there_is_no_cache_unless_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DatasetError) as caught:
        load_dataset("mnist", download=False)
    assert str(caught.value) == f"the cache (XDG_CACHE_HOME): received ~/.cache, {EXPECTED}"
    assert list_datasets()[0]["problem"] == str(caught.value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DatasetNotFoundError):
        load_dataset("mnist", download=False)


@pytest.mark.usefixtures("homeless")
def test_who_gives_a_folder_needs_no_home(tmp_path: Path):
    for name in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        kind = "idx3" if "images" in name else "idx1"
        (tmp_path / f"{name}-{kind}-ubyte").write_bytes(b"not what was published")
    with pytest.raises(DatasetError, match="train-images"):  # read, not looked for in a cache
        load_dataset("mnist", tmp_path, download=False)
