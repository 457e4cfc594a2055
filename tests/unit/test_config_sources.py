"""Where configuration values come from, which source wins, and how wrong ones are named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from mnist_core.config import DataConfig, EvaluateConfig, ModelsConfig, PredictConfig, ScoreConfig, TrainConfig
from mnist_core.config_cluster import JobsConfig
from mnist_core.config_fields import CommandConfig
from mnist_core.config_sources import format_help, load_config
from mnist_core.errors import ConfigError
from mnist_core.recipes import RECIPES


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MNIST_DATA_DIR", raising=False)


@pytest.fixture
def toml(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "train.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def refusal(cls: type[CommandConfig], argv: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(cls, argv)
    return str(caught.value)


def test_without_any_source_the_defaults_hold():
    assert load_config(TrainConfig, []) == TrainConfig()


def test_every_source_overrides_the_ones_below_it(toml, monkeypatch: pytest.MonkeyPatch):
    """One field is set at each level up to its own: the highest level that names a field must win."""
    below = ["schedule", "epochs", "batch_size", "dropout", "seed"]
    assert TrainConfig.model_fields["seed"].default == 0
    assert RECIPES["notebook"]["schedule"] == "constant"
    argv = ["--config", toml("recipe = 'notebook'\nepochs = 21\nbatch_size = 22\ndropout = 0.2\n")]
    monkeypatch.setenv("MNIST_BATCH_SIZE", "32")
    monkeypatch.setenv("MNIST_DROPOUT", "0.3")
    config = load_config(TrainConfig, [*argv, "--dropout", "0.4"])
    assert [getattr(config, name) for name in below] == ["constant", 21, 32, 0.4, 0]


@pytest.mark.parametrize("level", ["file", "environment", "flag"])
def test_the_recipe_can_be_named_at_every_level_and_stays_below_all(level: str, toml, monkeypatch: pytest.MonkeyPatch):
    recipe = "recipe = 'notebook'\n" if level == "file" else ""
    argv = ["--config", toml(recipe + "epochs = 2\n")]
    if level == "environment":
        monkeypatch.setenv("MNIST_RECIPE", "notebook")
    if level == "flag":
        argv += ["--recipe", "notebook"]
    assert load_config(TrainConfig, argv) == TrainConfig(recipe="notebook", epochs=2)


def test_an_absent_flag_never_overrides_the_file(toml):
    argv = ["--config", toml("promote = false\nverbose = true\njson-output = true\nworkers = 2\n")]
    config = load_config(TrainConfig, argv)
    assert (config.promote, config.verbose, config.json_output, config.workers) == (False, True, True, "2")
    assert not load_config(TrainConfig, [*argv, "--no-verbose"]).verbose


def test_the_file_can_be_named_with_an_equals_sign_or_by_the_environment(toml, monkeypatch: pytest.MonkeyPatch):
    path = toml("epochs = 7\n")
    assert load_config(TrainConfig, [f"--config={path}"]).epochs == 7
    monkeypatch.setenv("MNIST_CONFIG", path)
    assert load_config(TrainConfig, []).epochs == 7


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch):
    for name in ("MNIST_DATA_DIR", "MNIST_EPOCHS", "MNIST_CONFIG"):
        monkeypatch.setenv(name, "")
    assert load_config(TrainConfig, []) == TrainConfig()


def test_mnist_data_dir_reaches_the_commands_that_read_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MNIST_DATA_DIR", str(tmp_path))
    assert load_config(TrainConfig, []).data_dir == tmp_path
    assert load_config(DataConfig, ["list"]).data_dir == tmp_path


def test_json_is_short_for_json_output():
    assert load_config(TrainConfig, ["--json"]).json_output
    assert load_config(TrainConfig, ["--json-output"]).json_output
    assert not load_config(TrainConfig, ["--json", "--no-json"]).json_output


def test_each_command_has_a_split_of_its_own_and_a_variable_means_one_of_them(monkeypatch: pytest.MonkeyPatch):
    assert load_config(PredictConfig, ["--split", "a.png"]).split_digits
    assert load_config(EvaluateConfig, ["--split", "all", "mnist"]).split == "all"
    monkeypatch.setenv("MNIST_SPLIT", "all")
    assert load_config(EvaluateConfig, ["mnist"]).split == "all"
    assert not load_config(PredictConfig, ["a.png"]).split_digits
    assert "unknown flag --split" in refusal(TrainConfig, ["--split"])


def test_arguments_by_position_are_read():
    assert load_config(EvaluateConfig, ["mnist/3"]).model == "mnist/3"
    assert load_config(ModelsConfig, ["promote", "3"]).target == "3"
    assert load_config(DataConfig, ["fetch", "--verbose", "mnist"]).name == "mnist"


def test_an_unknown_flag_is_refused_with_the_nearest_name():
    assert refusal(TrainConfig, ["--epoch", "3"]) == "unknown flag --epoch, did you mean --epochs?"
    assert refusal(TrainConfig, ["--wrkers=2"]) == "unknown flag --wrkers, did you mean --workers?"
    assert refusal(DataConfig, ["list", "--zzz"]) == "unknown flag --zzz"


def test_an_unknown_variable_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("mnist_epocs", "3")
    expected = "unknown environment variable MNIST_EPOCS, did you mean MNIST_EPOCHS?"
    assert refusal(DataConfig, ["list"]) == expected


def test_a_variable_of_another_command_is_no_mistake(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MNIST_EPOCHS", "3")
    assert load_config(DataConfig, ["list"]).action == "list"


def test_unknown_names_of_all_sources_are_reported_at_once(toml, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MNIST_EPOCS", "3")
    message = refusal(TrainConfig, ["--epoch", "3", "--sed", "1", "--config", toml("batchsize = 1\nepocs = 2\n")])
    assert message.split("; ") == [
        "unknown flag --epoch, did you mean --epochs?",
        "unknown flag --sed, did you mean --seed?",
        "unknown environment variable MNIST_EPOCS, did you mean MNIST_EPOCHS?",
        "unknown field in the --config file: batchsize, did you mean batch_size?",
        "unknown field in the --config file: epocs, did you mean epochs?",
    ]


@pytest.mark.parametrize("unknown", [["--epoch", "3"], ["--epoch=3"], ["--epoch"]])
def test_unknown_names_and_wrong_values_are_reported_at_once(unknown: list[str], toml, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MNIST_SEED", "-1")
    message = refusal(TrainConfig, [*unknown, "--dropout", "2", "--config", toml("epocs = 1\nensemble = 0\n")])
    assert sorted(message.split("; ")) == [
        "--dropout: received '2', expected less than 1",
        "--ensemble: received 0, expected greater than or equal to 1",
        "--seed: received '-1', expected greater than or equal to 0",
        "unknown field in the --config file: epocs, did you mean epochs?",
        "unknown flag --epoch, did you mean --epochs?",
    ]


@pytest.mark.parametrize(
    ("cls", "argv", "unknown"),
    [
        (DataConfig, ["--verbos", "fetch", "mnist"], "unknown flag --verbos, did you mean --verbose?"),
        (EvaluateConfig, ["--verbos", "mnist"], "unknown flag --verbos, did you mean --verbose?"),
        (ScoreConfig, ["in", "--worker", "2", "out"], "unknown flag --worker, did you mean --workers?"),
        (JobsConfig, ["list", "--adress", "http://a:8265"], "unknown flag --adress, did you mean --address?"),
        (TrainConfig, ["--workers", "5", "--batchsize", "512"], "unknown flag --batchsize, did you mean --batch-size?"),
    ],
)
def test_what_an_unknown_flag_may_explain_is_not_reported(cls: type[CommandConfig], argv: list[str], unknown: str):
    assert refusal(cls, argv) == unknown


def test_an_unknown_flag_without_a_word_behind_it_explains_no_argument():
    assert refusal(DataConfig, ["lst", "--zzz"]).startswith("unknown flag --zzz; ACTION: received 'lst', expected")
    assert refusal(EvaluateConfig, ["--zzz"]).startswith("unknown flag --zzz; the following arguments are required")


def test_wrong_values_of_all_sources_are_reported_at_once(toml, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MNIST_SEED", "-1")
    message = refusal(TrainConfig, ["--workers", "0", "--recipe", "none", "--config", toml("dropout = 2\n")])
    assert sorted(message.split("; ")) == [
        "--dropout: received 2, expected less than 1",
        "--recipe: received 'none', expected 'notebook', 'default', 'best', 'fast' or 'tiny'",
        "--seed: received '-1', expected greater than or equal to 0",
        "--workers: received '0', expected a number of workers such as 2, or MIN:MAX such as 1:4, from 1 to 9999",
    ]


def test_a_rule_over_several_fields_is_told_in_its_own_words():
    message = refusal(TrainConfig, ["--workers", "4", "--batch-size", "3"])
    assert message.startswith("--batch-size 3 is the global batch: received 1 micro-batches")


def test_a_wrong_argument_by_position_is_named_as_the_help_names_it():
    assert refusal(DataConfig, ["lst"]) == "ACTION: received 'lst', expected 'list', 'fetch' or 'info'"
    assert refusal(DataConfig, ["--action", "list"]).startswith("unknown flag --action")


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--epochs"], "argument --epochs: expected one argument"),
        (["-x"], "unrecognized arguments: -x"),
        (["extra"], "unrecognized arguments: extra"),
        (["--verbose=true"], "ignored explicit argument 'true'"),
        (["--config"], "argument --config: expected one argument"),
    ],
)
def test_a_malformed_command_line_is_one_line_that_points_at_the_help(argv: list[str], problem: str):
    message = refusal(TrainConfig, argv)
    assert problem in message
    assert message.endswith("see mnist train --help")
    assert "\n" not in message


def test_a_missing_argument_is_named():
    assert "MODEL" in refusal(EvaluateConfig, [])


def test_a_missing_flag_without_default_is_named():
    class CopyConfig(CommandConfig):
        """Copy."""

        command: ClassVar[str] = "copy"
        copy_to: str = Field(description="where")

    assert "--copy-to" in refusal(CopyConfig, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"epochs =", "expected a TOML file"),
        (b"\xff\xfe", "expected a TOML file"),
        (b"[train]\nepochs = 3", "unknown field in the --config file: train"),
        (b"config = 'other.toml'", "unknown field in the --config file: config"),
        (
            b"recipe = ['notebook']",
            "--recipe: received ['notebook'], expected 'notebook', 'default', 'best', 'fast' or 'tiny'",
        ),
        (b"epochs = {a = 1}", "--epochs: received {'a': 1}, expected a valid integer"),
    ],
)
def test_a_wrong_file_is_refused(text: bytes, problem: str, tmp_path: Path):
    path = tmp_path / "wrong.toml"
    path.write_bytes(text)
    assert problem in refusal(TrainConfig, ["--config", str(path)])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    message = refusal(TrainConfig, ["--config", str(tmp_path / "none.toml")])
    assert message == f"--config {tmp_path}/none.toml: cannot be read (No such file or directory)"
    assert "Is a directory" in refusal(TrainConfig, ["--config", str(tmp_path)])


@pytest.mark.parametrize("cls", [TrainConfig, EvaluateConfig, DataConfig, ModelsConfig], ids=lambda cls: cls.command)
def test_the_help_shows_every_field_with_a_description(cls: type[CommandConfig]):
    text = format_help(cls)
    assert text.startswith(f"usage: mnist {cls.command} ")
    for name, field in cls.model_fields.items():
        assert field.description
        assert re.search(rf"^  (--{name.replace('_', '-')}|{name.upper()})\b", text, re.MULTILINE), name
