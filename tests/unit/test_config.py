"""The configuration objects: what they accept, refuse and keep."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mnist_core.config import COMMANDS, DataConfig, EvaluateConfig, ModelsConfig, TrainConfig
from mnist_core.recipes import RECIPES

worker_numbers = st.integers(1, 9999)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_sets_every_value_that_it_names(recipe: str):
    config = TrainConfig(recipe=recipe)
    assert {name: getattr(config, name) for name in RECIPES[recipe]} == RECIPES[recipe]


def test_the_recipes_differ_so_that_the_choice_matters():
    assert TrainConfig(recipe="notebook").identity() != TrainConfig(recipe="default").identity()


def test_a_value_given_beside_a_recipe_wins():
    config = TrainConfig(recipe="notebook", epochs=3)
    assert (config.epochs, config.dropout) == (3, RECIPES["notebook"]["dropout"])


@pytest.mark.parametrize("gpu", [True, 1, "true", "True", "1", "yes", "on", "y", "T"])
def test_a_gpu_brings_mixed_precision_however_it_is_written(gpu: object):
    config = TrainConfig(recipe="notebook", gpu=gpu)
    assert (config.gpu, config.precision) == (True, "mixed")
    assert TrainConfig(gpu=gpu, precision="float32").precision == "float32"


@pytest.mark.parametrize("gpu", [False, 0, "no", "f"])
def test_without_a_gpu_precision_is_as_the_recipe_says(gpu: object):
    assert TrainConfig(recipe="notebook", gpu=gpu).precision == TrainConfig(recipe="notebook").precision == "float32"


@pytest.mark.parametrize("gpu", ["maybe", "", 2, None, ["true"]])
def test_what_is_no_truth_value_is_refused_as_gpu(gpu: object):
    with pytest.raises(ValidationError, match="gpu"):
        TrainConfig(gpu=gpu)


@pytest.mark.parametrize("recipe", ["notebok", 3, ["notebook"]])
def test_an_unknown_recipe_is_refused_whatever_its_type(recipe: object):
    with pytest.raises(ValidationError, match="'notebook', 'default', 'best', 'fast' or 'tiny'"):
        TrainConfig(recipe=recipe)


def test_an_unknown_field_is_refused():
    with pytest.raises(ValidationError, match="epocs"):
        TrainConfig(epocs=3)


@pytest.mark.parametrize(
    "config",
    [TrainConfig(), EvaluateConfig(model="mnist"), DataConfig(action="list"), ModelsConfig(action="list")],
    ids=lambda config: config.command,
)
def test_a_configuration_is_frozen_and_survives_pickle_and_json(config):
    with pytest.raises(ValidationError, match="frozen"):
        config.verbose = True
    assert pickle.loads(pickle.dumps(config)) == config
    assert type(config).model_validate_json(config.model_dump_json()) == config


def test_every_command_has_its_own_word():
    words = {"bench-endpoint", "data", "evaluate", "jobs", "models", "predict", "score", "serve", "train"}
    assert sorted(cls.command for cls in COMMANDS) == sorted(words)


@given(worker_numbers)
def test_a_number_of_workers_is_a_fixed_run(num_workers: int):
    config = TrainConfig(workers=num_workers, batch_size=9999, micro_batch_size=1)
    assert (config.workers, config.min_workers, config.max_workers) == (str(num_workers), num_workers, num_workers)
    assert not config.elastic


@given(st.tuples(worker_numbers, worker_numbers).map(sorted))
def test_a_range_of_workers_is_an_elastic_run(bounds: list[int]):
    config = TrainConfig(workers=f"{bounds[0]}:{bounds[1]}", batch_size=9999, micro_batch_size=1)
    assert [config.min_workers, config.max_workers] == bounds
    assert config.elastic


@given(
    st.one_of(
        st.text(alphabet="0123456789:.- +٣").filter(lambda text: not _is_workers(text)),
        st.integers(max_value=0),
        st.integers(min_value=10_000),
        st.booleans(),
        st.tuples(worker_numbers, worker_numbers).filter(lambda b: b[0] > b[1]).map(lambda b: f"{b[0]}:{b[1]}"),
    )
)
def test_anything_else_as_workers_is_refused(workers: object):
    with pytest.raises(ValidationError, match="a number of workers such as 2, or MIN:MAX"):
        TrainConfig(workers=workers, batch_size=9999)


def _is_workers(text: str) -> bool:
    """An independent, slower reading of the rule."""
    numbers = text.split(":")
    plain = all(number in map(str, range(1, 10_000)) for number in numbers)
    return plain and (len(numbers) == 1 or (len(numbers) == 2 and int(numbers[0]) <= int(numbers[1])))


@pytest.mark.parametrize("workers", ["5", "1:5"])
def test_train_config_rejects_batch_smaller_than_workers(workers: str):
    assert TrainConfig(workers=workers, batch_size=5, micro_batch_size=1).batch_size == 5
    with pytest.raises(ValidationError, match="--batch-size 4 is the global batch"):
        TrainConfig(workers=workers, batch_size=4, micro_batch_size=1)


def test_train_config_rejects_fewer_micro_batches_than_workers():
    assert TrainConfig(workers=3, batch_size=33, micro_batch_size=16).max_workers == 3
    with pytest.raises(ValidationError, match="received 2 micro-batches of --micro-batch-size 16 for 3 workers"):
        TrainConfig(workers=3, batch_size=32, micro_batch_size=16)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("learning_rate", float("inf")),
        ("dropout", 1.0),
        ("dropout", float("nan")),
        ("ema_decay", -0.1),
        ("validation_fraction", 0.0),
        ("seed", 2**31),
        ("seed", -1),
        ("keep_checkpoints", 1),
        ("checkpoint_every_s", 0),
        ("max_failures", -1),
        ("cpus_per_worker", 0),
        ("threads_per_worker", 0),
        ("storage", ""),
    ],
)
def test_a_value_outside_its_range_is_refused(field: str, value: object):
    with pytest.raises(ValidationError, match=field):
        TrainConfig(**{field: value})


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "a b", ".hidden", "-flag", "a\n", "a" * 101])
@pytest.mark.parametrize("field", ["model", "run"])
def test_a_name_that_is_not_one_safe_folder_name_is_refused(field: str, name: str):
    with pytest.raises(ValidationError, match="a name of letters, digits"):
        TrainConfig(**{field: name})


def test_paths_are_made_absolute_because_workers_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = TrainConfig(storage="runs", data_dir="~/digits")
    assert config.storage == str(tmp_path / "runs")
    assert config.data_dir == tmp_path / "home" / "digits"
    assert TrainConfig().storage == str(tmp_path / "storage")


@pytest.mark.parametrize("uri", ["s3://bucket/prefix", "gs://bucket"])
def test_a_storage_uri_is_kept_as_it_is(uri: str):
    assert TrainConfig(storage=uri).storage == uri


def test_execution_fields_are_all_real_fields():
    assert set(TrainConfig.model_fields) >= TrainConfig.EXECUTION_FIELDS


def test_identity_holds_what_decides_the_result_and_nothing_else():
    config = TrainConfig(recipe="notebook")
    elsewhere = TrainConfig(
        recipe="notebook",
        workers="1:4",
        storage="s3://bucket",
        verbose=True,
        gpu=True,
        precision="float32",
        run="again",
    )
    assert elsewhere.identity() == config.identity()
    assert json.loads(json.dumps(config.identity())) == config.identity()
    for change in (
        {"seed": 1},
        {"batch_size": 64},
        {"precision": "mixed"},
        {"dataset": "uci-digits"},
        {"epochs": 2},
        {"micro_batch_size": 8},
    ):
        assert TrainConfig(recipe="notebook", **change).identity() != config.identity()
