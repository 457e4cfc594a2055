"""The file with API keys while an endpoint serves: a change is taken over, unless it is no good."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnist_core.errors import ConfigError, UnauthorizedError
from serve import api_keys
from serve.api_keys import ApiKeys
from serve.calls import Call

NO_GOOD = pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "received no key, expected one a line"),
        (b"# nobody\n\n  # yet\n", "received no key, expected one a line"),
        (b"k\xe9y\n", "cannot be read ("),
        (None, "cannot be read ("),
    ],
    ids=["empty", "comments", "not UTF-8", "gone"],
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(api_keys, "RELOAD_S", 0)  # every call looks at the file
    path = tmp_path / "keys"
    path.write_text("# who may ask\nfirst\n")
    return path


def put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def opens(keys: ApiKeys, key: bytes) -> bool:
    try:
        keys.check(Call(b"", {b"x-api-key": key}))
    except UnauthorizedError:
        return False
    return True


def test_a_changed_file_is_taken_over(path: Path):
    keys = ApiKeys(path)
    assert [opens(keys, key) for key in (b"first", b"second", b"third")] == [True, False, False]
    put(path, b"second\nthird\n")
    assert [opens(keys, key) for key in (b"first", b"second", b"third")] == [False, True, True]


@NO_GOOD
def test_a_file_that_is_no_good_any_more_is_told_of_and_the_known_keys_stay(
    content: bytes | None, reason: str, path: Path, caplog: pytest.LogCaptureFixture
):
    keys = ApiKeys(path)
    put(path, content)
    assert opens(keys, b"first")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("serve.api_keys", "ERROR")
    assert record.getMessage().startswith(f"the known API keys stay: --api-key-file {path}: {reason}")
    assert [opens(keys, key) for key in (b"", b"# nobody", b"k\xe9y", b"second")] == [False] * 4
    put(path, b"second\n")
    assert [opens(keys, key) for key in (b"first", b"second")] == [False, True]


@NO_GOOD
def test_nothing_starts_with_a_file_that_is_no_good(content: bytes | None, reason: str, path: Path):
    put(path, content)
    with pytest.raises(ConfigError) as caught:
        ApiKeys(path)
    assert str(caught.value).startswith(f"--api-key-file {path}: {reason}")
