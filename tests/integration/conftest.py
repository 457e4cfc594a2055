"""One undisturbed run of two workers, which runs that are disturbed or placed elsewhere must equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import started, words, write_digits


@pytest.fixture(scope="session")
def small_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,860 training samples: 37 full batches of 128 and a short one of 124, in micro-batches of 32 and one of 28."""
    return write_digits(tmp_path_factory.mktemp("data") / "digits.npz")


@pytest.fixture(scope="session")
def small_storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where ``reference`` is, and runs that are held against it may be."""
    return str(tmp_path_factory.mktemp("storage"))


@pytest.fixture(scope="session")
def reference(small_digits: Path, small_storage: str) -> dict[str, Any]:
    """What the run called ``reference`` came to."""
    with started(*words(small_digits, small_storage, "reference")) as command:
        return command.result()
