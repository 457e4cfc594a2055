"""The ``mnist`` command: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from jobs import cli
from mnist_core.config import COMMANDS
from mnist_core.errors import ConfigError, DatasetError

MNIST = [sys.executable, "-m", "jobs.cli"]


@pytest.fixture
def models_command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Any]], None]:
    """Put a function in the place of the module that ``mnist models`` would load."""

    def install(run: Callable[[Any], Any]) -> None:
        module = types.ModuleType("jobs.models")
        module.run = run
        module.render = lambda result: f"a summary of {result}"
        monkeypatch.setitem(sys.modules, "jobs.models", module)

    return install


def fail_with(error: BaseException) -> Callable[[Any], Any]:
    def run(_config: Any) -> Any:
        raise error

    return run


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--help"]) == cli.EXIT_DONE
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  ")] == [c.command for c in COMMANDS]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_help_of_a_command_is_printed_on_stdout(flag: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["train", "--workers", "2", flag]) == cli.EXIT_DONE
    captured = capsys.readouterr()
    assert captured.out.startswith("usage: mnist train ")
    assert captured.err == ""


WORDS = "train, evaluate, predict, score, serve, bench-endpoint, jobs, data, models"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], f"no command (expected one of: {WORDS})"),
        (["tran"], f"unknown command 'tran', did you mean train? (expected one of: {WORDS})"),
        (["train", "--epoch", "3"], "unknown flag --epoch, did you mean --epochs?"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(argv) == cli.EXIT_USAGE == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


def test_usage_that_only_the_command_can_judge_is_exit_code_2_too(models_command, capsys: pytest.CaptureFixture[str]):
    models_command(fail_with(ConfigError("promote needs a version")))
    assert cli.main(["models", "promote"]) == cli.EXIT_USAGE
    assert capsys.readouterr() == ("", "error: promote needs a version\n")


def test_a_failure_is_exit_code_1_and_one_line(models_command, capsys: pytest.CaptureFixture[str]):
    models_command(fail_with(DatasetError("one\n  two")))
    assert cli.main(["models", "list"]) == cli.EXIT_FAILED == 1
    assert capsys.readouterr() == ("", "error: one two\n")


def test_control_c_is_a_failure_without_a_traceback(models_command, capsys: pytest.CaptureFixture[str]):
    models_command(fail_with(KeyboardInterrupt()))
    assert cli.main(["models", "list"]) == cli.EXIT_FAILED
    assert capsys.readouterr() == ("", "error: interrupted\n")


@pytest.mark.parametrize("bug", [RuntimeError("a bug"), BrokenPipeError("of another pipe than stdout")])
def test_an_unexpected_exception_is_not_hidden(bug: Exception, models_command):
    models_command(fail_with(bug))
    with pytest.raises(type(bug), match=str(bug)):
        cli.main(["models", "list"])


def test_a_bug_shows_its_traceback_to_the_user():
    script = "import sys; from jobs import cli; sys.modules['jobs.models'] = object(); cli.main(['models', 'list'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "AttributeError" in done.stderr


def test_the_result_is_a_summary_or_one_json_line(models_command, capsys: pytest.CaptureFixture[str]):
    models_command(lambda config: {"action": config.action})
    assert cli.main(["models", "list"]) == cli.EXIT_DONE
    assert capsys.readouterr() == ("a summary of {'action': 'list'}\n", "")
    assert cli.main(["models", "list", "--json"]) == cli.EXIT_DONE
    assert json.loads(capsys.readouterr().out) == {"action": "list"}


def test_the_command_line_of_the_process_is_the_default(monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["mnist", "--help"])
    assert cli.main() == cli.EXIT_DONE
    assert capsys.readouterr().out.startswith("usage: mnist ")


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"]])
def test_a_reader_that_went_away_ends_the_command_quietly(argv: list[str]):
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run([*MNIST, *argv], stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (cli.EXIT_FAILED, "")


def test_logs_go_to_stderr_from_warning_up_and_from_info_up_when_verbose():
    script = """
import logging, sys, types
from jobs import cli
def run(config):
    logging.getLogger("mnist_core.x").info("some detail")
    logging.getLogger("mnist_core.x").warning("some trouble")
    return {}
module = types.ModuleType("jobs.models")
module.run, module.render = run, lambda result: "done"
sys.modules["jobs.models"] = module
sys.exit(cli.main(sys.argv[1:]))
"""
    quiet, verbose = (
        subprocess.run(
            [sys.executable, "-c", script, "models", "list", *flags], capture_output=True, text=True, timeout=60
        )
        for flags in ([], ["--verbose"])
    )
    assert quiet.stdout == verbose.stdout == "done\n"
    assert quiet.stderr == "WARNING mnist_core.x: some trouble\n"
    assert verbose.stderr == "INFO mnist_core.x: some detail\nWARNING mnist_core.x: some trouble\n"


def test_a_result_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([*MNIST, "data", "list"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == cli.EXIT_FAILED
    assert done.stderr == "error: stdout: cannot be written (No space left on device); what was asked for is done\n"
