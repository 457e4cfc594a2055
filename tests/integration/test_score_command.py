"""``mnist score`` and ``mnist predict`` on small datasets, where they need no Ray: every item is accounted for."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image

from jobs import evaluate, predict, score
from jobs.cli import main
from mnist_core.config import EvaluateConfig, PredictConfig, ScoreConfig
from mnist_core.datasets import load_dataset
from mnist_core.errors import ConfigError, OutputConflictError

BROKEN = {
    "image_empty": lambda _: b"",
    "not_an_image": lambda _: b"no image at all, though it is called so",
    "image_truncated": lambda png: png[: len(png) // 2],
    "image_blank": lambda _: encode(np.zeros((28, 28), np.uint8)),
    "image_too_many_pixels": lambda _: encode(np.zeros((3000, 3000), np.uint8)),
}


def encode(pixels: np.ndarray[Any, Any], kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    """All rows by id; an id that occurs twice is an error."""
    rows = ds.dataset(output, format="parquet").to_table().to_pylist()
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded digits' test split as PNG files in class folders."""
    folder = tmp_path_factory.mktemp("digits")
    test = load_dataset("uci-digits").test
    for index, (image, label) in enumerate(zip(test.images, test.labels, strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        (folder / str(label) / f"{index}.png").write_bytes(encode(image))
    return folder


@pytest.fixture
def configure(model_storage: str, digits: Path, tmp_path: Path):
    def make(*paths: Path, **fields: Any) -> ScoreConfig:
        places = [str(path) for path in paths or (digits, tmp_path / "out")]
        return ScoreConfig(**{"storage": model_storage, "paths": places, **fields})

    return make


def test_every_file_gives_a_row_and_the_accuracy_is_that_of_evaluate(configure, digits, model_storage, tmp_path):
    result = score.run(configure(probabilities=True))
    rows = rows_of(tmp_path / "out")
    assert result["items"] == len(rows) == sum(result["digits"]) == 360
    assert (result["errors"], result["model_version"]) == ({}, "mnist/1")
    evaluation = evaluate.run(EvaluateConfig(storage=model_storage, model="mnist", dataset="uci-digits"))
    assert result["accuracy"] == evaluation["accuracy"]
    assert result["confusion"] == evaluation["confusion"]
    for path in digits.rglob("*.png"):
        row = rows[str(path)]
        assert (row["label"], row["status"], row["error"]) == (int(path.parent.name), "ok", None)
        assert row["correct"] == (row["digit"] == row["label"])
        assert row["digit"] == np.argmax(row["probabilities"])
        assert row["confidence"] == max(row["probabilities"])
    assert json.loads((tmp_path / "out/_SUCCESS.json").read_text()) == result
    assert "360 images scored by mnist/1" in score.render(result)


def test_each_bad_file_costs_one_row_and_says_why(configure, digits, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    png = next(digits.rglob("*.png")).read_bytes()
    random.seed(0)
    for index in range(100):
        (folder / f"good{index}.png").write_bytes(png)
    expected: dict[str, str] = {}
    for code, spoil in BROKEN.items():
        for index in range(random.randint(1, 3)):
            path = folder / f"{code}{index}.png"
            path.write_bytes(spoil(png))
            expected[str(path)] = code
    options = {"max_image_pixels": 1_000_000, "max_bad_fraction": 0.5}
    result = score.run(configure(folder, tmp_path / "out", **options))
    rows = rows_of(tmp_path / "out")
    assert {name: row["error_code"] for name, row in rows.items() if row["status"] == "error"} == expected
    assert result["errors"] == dict(Counter(expected.values()))
    assert len(rows) == result["items"] == 100 + len(expected)
    bad = [row for row in rows.values() if row["status"] == "error"]
    assert all(row["digit"] is row["confidence"] is row["rejected"] is None and row["error"] for row in bad)


def test_an_animation_gets_its_digit_from_the_first_frame_and_says_so(configure, digits, tmp_path):
    frames = [Image.open(path).convert("L") for path in sorted(digits.rglob("*.png"))[:3]]
    folder = tmp_path / "animated"
    folder.mkdir()
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    result = score.run(configure(folder, tmp_path / "out"))
    (row,) = rows_of(tmp_path / "out").values()
    assert (row["status"], row["error_code"]) == ("ok", "first_frame_only")
    assert result["remarks"] == {"first_frame_only": 1}


def test_too_many_bad_items_fail_the_job_and_keep_its_output(digits, model_storage, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "bad.png").write_bytes(b"")
    (folder / "good.png").write_bytes(next(digits.rglob("*.png")).read_bytes())
    words = ["score", str(folder), str(tmp_path / "out"), "--storage", model_storage, "--json"]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("error: 1 of 2 items are bad, more than --max-bad-fraction 0.05")
    assert "bad.png (image_empty)" in captured.err
    assert json.loads(captured.out)["items"] == 2
    assert (tmp_path / "out/_FAILED.json").exists()
    assert len(rows_of(tmp_path / "out")) == 2
    assert main([*words, "--resume", "--max-bad-fraction", "0.5"]) == 0
    assert not (tmp_path / "out/_FAILED.json").exists()
    assert (tmp_path / "out/_SUCCESS.json").exists()


def test_an_existing_output_is_refused_and_left_alone(configure, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and nothing is overwritten"):
        score.run(configure())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_resumed_job_must_be_the_same_job(configure):
    with pytest.raises(ConfigError, match="found no job"):
        score.run(configure(resume=True))
    score.run(configure())
    with pytest.raises(OutputConflictError, match="format was 'parquet', asked for 'csv'"):
        score.run(configure(resume=True, format="csv"))


def test_a_job_is_finished_without_doing_again_what_is_done(configure, tmp_path):
    first = score.run(configure())
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    again = score.run(configure(resume=True))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")} == parts
    assert again["resumed_units"] == len(parts)
    assert [again[name] for name in ("seconds", "images_per_second")] == [first["seconds"], first["images_per_second"]]
    assert again["confusion"] == first["confusion"]


def test_the_formats_say_the_same(configure, digits, tmp_path):
    for name in ("parquet", "csv", "jsonl"):
        score.run(configure(digits, tmp_path / name, format=name, probabilities=True))
    expected = rows_of(tmp_path / "parquet")
    lines = [json.loads(line) for line in (tmp_path / "jsonl/part-000000.jsonl").read_text().splitlines()]
    assert {row["id"]: row for row in lines} == expected
    with next((tmp_path / "csv").glob("part-*")).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(expected)
    for row in table:
        wanted = expected[row["id"]]
        assert int(row["digit"]) == wanted["digit"]
        assert [float(row[f"probability_{digit}"]) for digit in range(10)] == wanted["probabilities"]
        assert row["correct"] == str(wanted["correct"]).lower()


def test_batch_and_predict_agree_bit_for_bit_on_files_and_arrays(configure, digits, model_storage, tmp_path):
    paths = sorted(digits.rglob("*.png"))[:40]
    array = tmp_path / "digits.npy"
    np.save(array, np.stack([np.asarray(Image.open(path)) for path in paths]))
    score.run(configure(digits, array, tmp_path / "out", probabilities=True))
    rows = rows_of(tmp_path / "out")
    asked = predict.run(PredictConfig(storage=model_storage, images=[str(path) for path in paths]))
    for index, (path, answer) in enumerate(zip(paths, asked["images"], strict=True)):
        assert answer["probabilities"] == rows[str(path)]["probabilities"] == rows[f"{array}#{index}"]["probabilities"]


def test_predict_prints_a_table_reads_standard_input_and_fails_for_what_has_no_digit(
    digits, model_storage, capsys, monkeypatch
):
    path = str(next(digits.rglob("*.png")))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(path).read_bytes())))
    assert main(["predict", path, "-", "--storage", model_storage]) == 0
    _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.split()[1:] == second.split()[1:]
    assert main(["predict", path, "/no/such.png", "--storage", model_storage]) == 1
    captured = capsys.readouterr()
    assert "item_unreadable" in captured.out
    assert captured.err == "error: 1 of 2 images have no digit: /no/such.png\n"


def test_a_job_from_and_to_a_bucket_says_what_a_local_one_says(configure, digits, s3_bucket, tmp_path):
    from mnist_core.storage import open_storage

    bucket = open_storage(f"{s3_bucket}/images")
    for path in sorted(digits.rglob("*.png"))[:50]:
        bucket.write_bytes(f"{path.parent.name}/{path.name}", path.read_bytes())
    result = score.run(configure(f"{s3_bucket}/images", f"{s3_bucket}/scored", format="jsonl", probabilities=True))
    score.run(configure(probabilities=True))
    expected = rows_of(tmp_path / "out")
    lines = open_storage(f"{s3_bucket}/scored").read_bytes("part-000000.jsonl").decode().splitlines()
    assert result["items"] == len(lines) == 50
    for row in map(json.loads, lines):
        same = expected[str(digits / row["id"].split("images/")[1])]
        assert row["probabilities"] == same["probabilities"]


def test_names_of_any_bytes_are_predicted_and_printed(model_storage, tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.png"
    Path(os.fsdecode(name)).write_bytes(encode(np.zeros((28, 28), np.uint8)))
    command = [sys.executable, "-m", "jobs.cli", "predict", name, "--storage", model_storage]
    done = subprocess.run(command, capture_output=True, timeout=100)
    assert done.stdout.splitlines()[1].split()[0] == name.replace(b"\xff", rb"\udcff"), done.stderr
