"""The tables of benchmarks/accuracy.py."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def accuracy():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("accuracy")


@pytest.fixture
def summaries(accuracy):
    def run(percent, seconds):
        return accuracy.Trained(percent, seconds, 10, "artifact", 34_826)

    return [
        accuracy.summarise("notebook", [run(98.9, 80.0), run(99.0, 100.0), run(99.1, 90.0)]),
        accuracy.summarise("default", [run(99.68, 1500.0)]),
    ]


def test_a_recipe_has_mean_and_deviation_of_its_seeds(summaries):
    assert (summaries[0].mean, summaries[0].deviation) == (pytest.approx(99.0), pytest.approx(0.1))
    assert (summaries[1].mean, summaries[1].deviation) == (99.68, None)


def test_the_table_is_aligned_and_its_command_can_be_run(accuracy, summaries):
    header, first, second = accuracy.make_table(summaries)
    assert header.startswith("recipe ")
    assert first.split()[:7] == ["notebook", "99.000%", "0.100", "3", "10", "90", "34,826"]
    assert first.endswith("mnist train --recipe notebook --seed S")
    assert second.split()[:7] == ["default", "99.680%", "-", "1", "10", "1,500", "34,826"]
    assert first.index("mnist train") == second.index("mnist train") == header.index("command")


def test_the_markdown_has_as_many_cells_in_every_row(accuracy, summaries):
    lines = accuracy.make_markdown(summaries)
    assert {line.count("|") for line in lines} == {len(accuracy.COLUMNS) + 1}
    assert set(lines[1]) == set("|- ")
    assert "| `mnist train --recipe default --seed S` |" in lines[3]


def test_the_report_has_the_spread_and_no_deviation_of_one_seed(accuracy, summaries):
    rows = {row["way"]: row for summary in summaries for row in accuracy.make_rows(summary)}
    assert (rows["notebook: accuracy"]["min"], rows["notebook: accuracy"]["max"]) == (98.9, 99.1)
    assert rows["notebook: standard deviation"]["median"] == pytest.approx(0.1)
    assert "default: standard deviation" not in rows
    assert rows["default: parameters"]["median"] == 34_826


def test_every_recipe_is_a_choice_and_has_a_bound(accuracy, capsys):
    assert accuracy.RECIPES.keys() <= accuracy.BOUNDS.keys()
    with pytest.raises(SystemExit):
        accuracy.main(["--recipes", "nonsense"])
    message = capsys.readouterr().err
    assert all(recipe in message for recipe in accuracy.RECIPES)


def test_a_run_has_the_next_seed_and_a_name_by_which_it_is_found_again(accuracy, tmp_path, monkeypatch):
    seen = []

    class Command:
        def __init__(self, words, _folder):
            seen.append(words)

        def __enter__(self):
            return self

        def __exit__(self, *failure):
            pass

        def result(self, limit_s):
            assert limit_s is None, "the best take an hour"
            return {"test": {"accuracy": 0.99}, "train_seconds": 5.0, "epochs": 10, "artifact": "a", "parameters": 7}

    monkeypatch.setattr(accuracy, "started", Command)
    seeds = itertools.count()
    runs = [accuracy.train("default", seeds, ["--dataset", "mnist"], tmp_path, tmp_path) for _ in range(2)]
    assert runs == [accuracy.Trained(99.0, 5.0, 10, "a", 7)] * 2
    for seed, words in enumerate(seen):
        values = dict(itertools.pairwise(words))
        assert (values["--seed"], values["--recipe"]) == (str(seed), "default")
        assert (values["--run"], values["--model"]) == (f"default-seed-{seed}", "accuracy-default")
        assert words[-1] == "--json"


def test_parameters_are_those_of_the_probabilities_alone(accuracy, model_storage):
    model = Path(model_storage, "models", "mnist", "1", "model.keras")
    assert accuracy.count_parameters(model) == 34_826
