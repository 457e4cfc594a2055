import json

import numpy as np
import pytest

from jobs import cli, data
from mnist_core.config import DataConfig
from mnist_core.idx import write_idx


@pytest.fixture(autouse=True)
def _own_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "share"))
    monkeypatch.delenv("MNIST_DATA_DIR", raising=False)


@pytest.fixture
def own_dataset(tmp_path):
    folder = tmp_path / "own"
    write_idx(folder / "train-images-idx3-ubyte.gz", np.zeros((3, 28, 28), np.uint8))
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.array([0, 9, 9], np.uint8))
    return folder


def test_info_counts_every_class_of_every_split(own_dataset):
    result = data.run(DataConfig(action="info", name=str(own_dataset)))
    assert result["train"] == {"count": 3, "classes": [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]}
    assert result["test"] == {"count": 0, "classes": [0] * 10}
    assert (result["shape"], result["dtype"], result["source"]) == ([28, 28], "uint8", str(own_dataset))
    assert len(result["sha256"]) == 64


def test_info_is_json_on_request_and_a_table_otherwise(own_dataset, capsys):
    assert cli.main(["data", "info", str(own_dataset), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["count"] == 3
    assert cli.main(["data", "info", str(own_dataset)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1] == f"source   {own_dataset}"
    assert table[-2].split() == ["train", "1", *["0"] * 8, "2", "3"]


def test_list_shows_every_name_and_where_it_is(capsys):
    assert cli.main(["data", "list"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("mnist ")
    assert lines[1] == "not on this machine; mnist data fetch mnist"
    assert lines[-2].startswith("uci-digits ")
    assert lines[-1] == "embedded"


def test_info_never_downloads(capsys):
    assert cli.main(["data", "info", "mnist"]) == 1
    assert capsys.readouterr().err.startswith("error: mnist is not on this machine; ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info"], "mnist data info: expected a name, such as mnist data info mnist"),
        (["fetch"], "mnist data fetch: expected a name, such as mnist data fetch mnist"),
        (["list", "mnist"], "mnist data list: received the name 'mnist', expected none; see mnist data info"),
        (
            ["fetch", "uci-digits"],
            "mnist data fetch: received 'uci-digits', expected one that is published: mnist or fashion-mnist",
        ),
    ],
)
def test_an_action_and_a_name_that_do_not_fit_are_wrong_usage(capsys, words, message):
    assert cli.main(["data", *words]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_without_a_terminal_a_download_is_one_line_a_file(capsys):
    url = "https://example.org/[train]/images.gz"
    with data.download_progress() as progress:
        for received in (0, 500, 1000):
            progress(url, received, 1000)
        progress("https://example.org/labels.gz", 0, None)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        f"fetching {url} (1.0 kB)",
        "fetching https://example.org/labels.gz (unknown size)",
    ]
    assert captured.out == ""


def test_on_a_terminal_a_download_is_a_bar_on_stderr(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    with data.download_progress() as progress:
        for received in (0, 500, 1000):
            progress("https://example.org/images.gz", received, 1000)
    captured = capsys.readouterr()
    assert "images.gz" in captured.err
    assert "fetching" not in captured.err
    assert captured.out == ""
