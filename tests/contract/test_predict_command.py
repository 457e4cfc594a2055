"""``mnist predict`` of many files: how many are held at once, and that nobody notices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lines import encode, glyph

from jobs import predict
from mnist_core.config import PredictConfig
from mnist_core.cutting import cut_picture
from mnist_core.scoring import score_batch


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    """Ten digits, a file that is none and one that is not there."""
    for digit in range(10):
        (tmp_path / f"{digit}.png").write_bytes(encode(np.pad(255 - glyph(digit), 30, constant_values=255)))
    (tmp_path / "text").write_bytes(b"a text that is long enough to be no image")
    return [str(tmp_path / name) for name in ("missing", *(f"{digit}.png" for digit in range(10)), "text")]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command does: 1 for a file that is read, a list of one number for images that are computed."""
    done: list[Any] = []

    def noting(function: Callable[..., Any], note: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            done.append(note(*args))
            return function(*args)

        return noted

    monkeypatch.setattr(predict, "_read", noting(predict._read, lambda *_: 1))
    monkeypatch.setattr(predict, "score_batch", noting(score_batch, lambda batch, *_: [len(batch)]))
    monkeypatch.setattr(predict, "cut_picture", noting(cut_picture, lambda *_: [1]))
    return done


def test_files_are_read_no_more_at_once_than_their_bytes_allow(names, steps, model_storage, monkeypatch):
    config = PredictConfig(storage=model_storage, images=names)
    expected = predict.run(config)
    assert steps == [*[1] * 12, [12]]
    assert [image["file"] for image in expected["images"]] == names
    assert [image["error_code"] for image in expected["images"]] == ["item_unreadable", *[None] * 10, "not_an_image"]
    for limit, value, size in (("_BATCH_BYTES", 1, 1), ("BATCH_SIZE", 5, 5)):
        steps.clear()
        with monkeypatch.context() as patch:
            patch.setattr(predict, limit, value)
            assert predict.run(config) == expected
        sizes = [step[0] for step in steps if step != 1]
        assert sum(sizes) == 12
        assert max(sizes) <= size + (limit == "_BATCH_BYTES")  # what cannot be read has no bytes
        assert steps[: sizes[0] + 1] == [*[1] * sizes[0], [sizes[0]]]


def test_of_pictures_one_is_held_at_a_time(names, steps, model_storage):
    result = predict.run(PredictConfig(storage=model_storage, images=names, split_digits=True))
    assert [image["file"] for image in result["images"]] == names
    assert steps == [1, *[1, [1]] * 11]
