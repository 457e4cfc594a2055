"""The benchmarks start, measure in turn, and answer with the one JSON object that DESIGN section 5 asks for."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in BENCHMARKS.glob("[a-z]*.py"))

ASK_FOR_HELP = """
import contextlib, io, json, runpy, sys, traceback
folder, *names = sys.argv[1:]
path, answers = [folder, *sys.path[1:]], {}  # as where Python is given a script
for name in names:
    sys.path[:], sys.argv, code = path, [name, "--help"], None
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            runpy.run_path(f"{folder}/{name}.py", run_name="__main__")
        except SystemExit as end:
            code = end.code
        except Exception:
            code = traceback.format_exc()
    answers[name] = code, text.getvalue()
print(json.dumps(answers))
"""


@pytest.fixture
def common() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("benchmarks_common", BENCHMARKS / "_common.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_benchmark(name: str, *options: str) -> str:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=500).stdout


def check_shape(answer: dict, benchmark: str) -> None:
    assert list(answer) == ["benchmark", "versions", "cores", "rounds", "rows", "ratios", "must"]
    assert answer["benchmark"] == benchmark
    assert answer["versions"].keys() >= {"python", "keras", "ray", "tensorflow"}
    assert answer["rows"]
    for row in answer["rows"]:
        assert list(row) == ["way", "unit", "median", "min", "max"]
        assert row["min"] <= row["median"] <= row["max"]
    for check in answer["must"].values():
        assert list(check) == ["value", "bound", "met"]


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[int | str | None, str]]:
    """How each benchmark ends when asked for help, and what it says; all in one process, which loads libraries once."""
    command = [sys.executable, "-c", ASK_FOR_HELP, str(BENCHMARKS), *NAMES]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_says_what_it_measures_when_asked_for_help(helps, name):
    code, text = helps[name]
    assert code == 0
    assert "--rounds" in text
    assert "Read the ratio" in text or "Reported are" in text


def test_train_throughput_ends_with_its_json_object():
    *table, last_line = run_benchmark("train_throughput", "--smoke", "--ways", "keras-fit").splitlines()
    answer = json.loads(last_line)
    check_shape(answer, "train_throughput")
    assert answer["rows"][0]["unit"] == "img/s"
    assert answer["rows"][0]["min"] > 0
    assert any("Keras 3 fit" in line for line in table)


@pytest.mark.ray
def test_score_compares_the_command_with_a_plain_loop():
    answer = json.loads(run_benchmark("score", "--smoke", "--forms", "idx").splitlines()[-1])
    check_shape(answer, "score")
    assert [row["way"] for row in answer["rows"]] == [
        "engine: steady",
        "ours, idx: whole",
        "ours on Ray, idx: steady",
        "loop, idx: whole",
        "loop, idx: steady",
    ]


@pytest.mark.ray
def test_scaling_of_inference_tells_where_the_time_goes():
    answer = json.loads(run_benchmark("scaling_inference", "--smoke").splitlines()[-1])
    check_shape(answer, "scaling_inference")
    costs = {row["way"]: row["median"] for row in answer["rows"]}
    for kind in ("scoring idx", "scoring png", "endpoint"):
        # One thread: an actor or a replica cannot take more than a second a second.
        assert 0 < costs[f"{kind}, 1"] * costs[f"{kind}, 1: own"] * 1e-6 < 1.2


def test_scaling_counts_what_a_ring_sends():
    answer = json.loads(run_benchmark("scaling", "--smoke", "--loopback", "--workers", "2").splitlines()[-1])
    check_shape(answer, "scaling")
    sent = next(row["median"] for row in answer["rows"] if row["way"] == "2 workers: sent by each")
    # 34,826 weights and three counts of 8 bytes, of which each of two workers sends half twice.
    assert pytest.approx(answer["ratios"]["KB of gradient in fixed point"], rel=0.01) == 34_829 * 8 / 1e3
    assert answer["ratios"]["KB of gradient in fixed point"] <= sent < 3 * 34_829 * 8 / 1e3


@pytest.mark.ray
def test_fast_compares_seconds_of_training():
    answer = json.loads(run_benchmark("fast", "--smoke", "--json-only", "--goals", "to 99%"))
    check_shape(answer, "fast")
    notebook, seconds, accuracy = (row["median"] for row in answer["rows"])
    assert answer["ratios"] == {"to 99% / notebook": pytest.approx(seconds / notebook, rel=0.01)}
    assert set(answer["must"]) == {"to 99% / notebook", "to 99%: worst accuracy"}
    assert answer["must"]["to 99%: worst accuracy"]["value"] == pytest.approx(accuracy)


@pytest.mark.ray
def test_startup_tells_the_phases_of_both_ways():
    answer = json.loads(run_benchmark("startup", "--smoke", "--json-only"))
    check_shape(answer, "startup")
    medians = {row["way"]: row["median"] for row in answer["rows"]}
    assert min(medians.values()) > 0
    phases = [medians[f"ours: {phase}"] for phase in ("command", "ray", "worker", "tensorflow", "first_step")]
    assert sum(phases) == pytest.approx(medians["ours: process start to first step"], abs=0.01)
    for ratio, place, bound in (("first line", "the loop's first line", 0.7), ("first step", "first step", 0.5)):
        check = answer["must"][f"ours / plain, {ratio}"]
        plain = medians[f"plain: process start to {place}"]
        assert check["value"] == pytest.approx(medians["ours: process start to first step"] / plain, rel=0.01)
        assert check["met"] == (check["value"] <= bound)


def test_engines_are_measured_at_three_batch_sizes_and_give_the_same_answers():
    engines = ["ours", "ours-int8", "litert", "litert-int8"]  # the others would be installed first
    answer = json.loads(run_benchmark("engines", "--smoke", "--json-only", "--engines", *engines))
    check_shape(answer, "engines")
    assert answer["versions"].keys() >= {"ai-edge-litert", "onnxruntime", "openvino"}
    assert [row["way"] for row in answer["rows"][:4]] == [f"{engine}, batch 1" for engine in engines]
    assert min(row["min"] for row in answer["rows"]) > 0
    assert answer["must"]["same answers"]["met"]
    assert set(answer["must"]) == {"same answers", *(f"ours / best peer, batch {size}" for size in (1, 64, 1024))}


def test_split_reads_pictures_whose_truth_is_known(model_storage):
    answer = json.loads(run_benchmark("split", "--smoke", "--json-only", "--storage", model_storage).splitlines()[-1])
    check_shape(answer, "split")
    rows = {row["way"]: row for row in answer["rows"]}
    for way in ("ours", "pieces"):
        assert rows[f"{way}: pictures a second"]["median"] > 0
        assert 0 <= rows[f"{way}: pictures wholly right"]["median"] <= 100
    assert answer["must"]["digits right and found"]["bound"] == ">= 0.97"


@pytest.mark.ray
def test_serve_loads_the_endpoint_and_a_plain_server_alike():
    answer = json.loads(run_benchmark("serve", "--smoke", "--json-only", "--ways", "ours", "fastapi"))
    check_shape(answer, "serve")
    assert answer["versions"].keys() >= {"fastapi", "litserve", "bentoml", "wrk"}
    rows = {row["way"]: row for row in answer["rows"]}
    for way in ("ours", "fastapi"):
        assert rows[f"{way}: peak"]["median"] == max(rows[f"{way}: {n} connections"]["median"] for n in (32, 64)) > 0
        assert 0 < rows[f"{way}: p50 at 1 connection"]["median"] < 1000
    assert rows["ours: 256 images a request"]["unit"] == "img/s"
    assert answer["ratios"].keys() == {"peak, ours / fastapi", "p50 at 1 connection, ours / fastapi"}
    assert set(answer["must"]) == {
        *answer["ratios"],
        "ours: p99 / p50 at half of the peak",
        "ours: memory",
        "same answers",
    }
    assert answer["must"]["same answers"]["met"]


@pytest.mark.ray
def test_accuracy_trains_with_the_real_command_and_makes_tables():
    *tables, last_line = run_benchmark("accuracy", "--smoke", "--recipes", "notebook").splitlines()
    answer = json.loads(last_line)
    check_shape(answer, "accuracy")
    rows = {row["way"]: row["median"] for row in answer["rows"]}
    assert rows["notebook: accuracy"] == rows["notebook: mean"] > 0
    assert rows["notebook: training"] > 0
    assert rows["notebook: parameters"] == 34_826
    assert answer["must"]["notebook"]["bound"] == ">= 98.9"
    assert any(line.startswith("| notebook | ") for line in tables)


@pytest.mark.usefixtures("mnist_data_dir")
def test_corruptions_are_judged_one_by_one(model_storage, tmp_path):
    options = ("--smoke", "--json-only", "--storage", model_storage, "--picture", str(tmp_path / "grid.png"))
    answer = json.loads(run_benchmark("corruptions", *options))
    check_shape(answer, "corruptions")
    assert answer["versions"]["model"] == "mnist/1"
    accuracies = {row["way"]: row["median"] for row in answer["rows"] if row["unit"] == "%"}
    fifteen = [value for way, value in accuracies.items() if way not in ("clean", "mean of 15")]
    assert len(fifteen) == 15
    assert accuracies["mean of 15"] == pytest.approx(sum(fifteen) / 15, abs=0.001)
    assert not answer["must"]["mean of 15"]["met"]  # nobody has trained this model
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("mnist_data_dir")
def test_robustness_asks_for_accuracy_and_for_refusal(model_storage, tmp_path):
    options = ("--smoke", "--json-only", "--storage", model_storage, "--picture", str(tmp_path / "grid.png"))
    answer = json.loads(run_benchmark("robustness", *options))
    check_shape(answer, "robustness")
    figures = {row["way"]: row["median"] for row in answer["rows"]}
    assert figures.keys() >= {"mnist", "uci-digits", "fonts", "corruptions", "calibration error", "rejected: mnist"}
    assert figures.keys() >= {"rejected: letters", "rejected: scribbles", "corruption fog"}
    assert sum(name.startswith("font ") for name in figures) == 2
    assert sum(name.startswith("corruption ") for name in figures) == 15
    assert set(answer["must"]) >= {"uci-digits", "corruptions", "calibration error"}
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_a_benchmark_without_its_model_says_how_to_get_one(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "corruptions.py"), "--smoke", "--storage", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "mnist train" in done.stderr
    assert "Traceback" not in done.stderr


def test_ways_are_measured_in_turn(common):
    order = []
    results = common.interleave({way: lambda way=way: order.append(way) or len(order) for way in "ab"}, rounds=2)
    assert order == ["a", "b", "a", "b"]
    assert results == {"a": [1, 3], "b": [2, 4]}


def test_a_ratio_is_the_median_of_the_rounds_ratios(common):
    assert common.median_ratio([1.0, 2.0, 30.0], [1.0, 4.0, 10.0]) == 1.0


def test_a_bound_is_met_on_its_edge_and_not_beyond(common):
    assert common.at_least(3.0, 3.0) == {"value": 3.0, "bound": ">= 3", "met": True}
    assert not common.at_least(2.99, 3.0)["met"]
    assert common.at_most(0.7, 0.7)["met"]
    assert not common.at_most(0.71, 0.7)["met"]


def test_the_report_is_a_table_and_then_one_json_object(common, capsys):
    rows = [common.make_row("ours", "s", [2.0, 1.0, 4.0]), common.make_row("theirs", "s", [5.0])]
    must = {"ours / theirs": common.at_most(0.4, 0.7), "same model": {"value": False, "bound": True, "met": False}}
    common.print_report("example", 3, rows, {"ours / theirs": 0.4}, must, json_only=False)
    *table, last_line = capsys.readouterr().out.splitlines()
    check_shape(json.loads(last_line), "example")
    assert json.loads(last_line)["rows"][0] == {"way": "ours", "unit": "s", "median": 2.0, "min": 1.0, "max": 4.0}
    assert any(line.endswith("NOT MET") for line in table)


def test_a_command_is_run_without_the_callers_settings(common, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_EPOCHS", "99")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    with common.started([sys.executable, "-c", code], tmp_path, TF_CONFIG="{}") as command:
        environment = command.result()
    assert not environment.keys() & {"MNIST_EPOCHS", "RAY_AUTH_MODE"}
    assert environment["TF_CONFIG"] == "{}"


def test_no_process_of_a_command_outlives_it(common, tmp_path, monkeypatch):
    monkeypatch.setattr(common, "EXIT_GRACE_S", 0.2)
    sleeper = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeper!r}])"
    with common.started([sys.executable, "-c", code], tmp_path) as command:
        (output,) = tmp_path.glob("*.out")
        command.wait_for(lambda: output.read_text() or None)
        assert len(command.processes()) == 2
    assert not command.processes()


def test_a_command_that_fails_is_reported_with_its_last_words(common, tmp_path):
    code = "import sys; print('no luck', file=sys.stderr); sys.exit(3)"
    with (
        pytest.raises(RuntimeError, match=r"ended with 3, last words:\nno luck"),
        common.started([sys.executable, "-c", code], tmp_path) as command,
    ):
        command.result()


@pytest.mark.parametrize("data_dir", ["", "real"])
def test_digits_are_written_in_the_form_that_mnist_train_reads(common, tmp_path, monkeypatch, request, data_dir):
    if data_dir:
        request.getfixturevalue("mnist_data_dir")
    else:
        monkeypatch.delenv("MNIST_DATA_DIR", raising=False)
    from mnist_core.datasets import load_dataset

    dataset = load_dataset(str(common.write_digits(tmp_path / "digits.npz", 300, 20)))
    assert (len(dataset.train), len(dataset.test)) == (300, 20)
