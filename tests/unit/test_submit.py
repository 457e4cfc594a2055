"""What is sent to a cluster: the command line, and what a job brings along."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import types
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ray.job_submission import JobStatus

from jobs import probe
from jobs.cluster_client import ClusterClient, _Lines, find_token
from jobs.submit import command_line, plan_environment, render, required
from mnist_core.cluster_address import keep_token
from mnist_core.config import EvaluateConfig, ScoreConfig, ServeConfig, TrainConfig
from mnist_core.config_cluster import SUBMIT_FIELDS, JobsConfig
from mnist_core.config_sources import load_config
from mnist_core.errors import ConfigError, JobFailedError, ResourcesError

ADDRESS = "http://127.0.0.1:8265"


def on_the_cluster(config):
    """The configuration that the command line gives there."""
    command, *words = command_line(config)
    assert command == config.command
    return load_config(type(config), words)


class Breaking:
    """Ray's client on a line that breaks whenever a log is followed: of a job that ends, or a cluster that is gone."""

    def __init__(self, ends_after: int) -> None:
        self.questions = itertools.count()
        self.ends_after = ends_after

    def get_job_info(self, _job: str) -> types.SimpleNamespace:
        if not self.ends_after:
            raise ConnectionError("no route to host")
        ended = next(self.questions) >= self.ends_after
        return types.SimpleNamespace(status=JobStatus.SUCCEEDED if ended else JobStatus.RUNNING)

    async def tail_job_logs(self, _job: str) -> AsyncIterator[str]:
        yield "one\n"
        raise RuntimeError("the connection was closed")

    def get_job_logs(self, _job: str) -> str:
        return "one\ntwo\n"


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (TrainConfig, ["--storage", "s3://b/x"]),
        (TrainConfig, ["--storage", "/shared", "--recipe", "notebook", "--workers", "1:4", "--no-promote"]),
        (TrainConfig, ["--storage", "/shared", "--gpu", "--precision", "float32", "--epochs", "3", "--run", "a"]),
        (TrainConfig, ["--storage", "/shared", "--gpu"]),
        (TrainConfig, ["--storage", "/shared", "--recipe", "notebook", "--schedule", "one-cycle"]),
        (TrainConfig, ["--storage", "/shared", "--verbose", "--data-dir", "/data", "--dataset", "fashion-mnist"]),
        (EvaluateConfig, ["mnist/3", "--storage", "/shared", "--output", "/shared/out", "--workers", "4"]),
        (ScoreConfig, ["/in/*.png", "s3://b/y", "/out", "--storage", "/shared", "--resume", "--probabilities"]),
        (ServeConfig, ["--storage", "/shared", "--cors-origins", "http://a", "--cors-origins", "http://b"]),
        (ServeConfig, ["--storage", "/shared", "--max-replicas", "9", "--api-key-file", "/keys"]),
    ],
    ids=lambda value: value.command if isinstance(value, type) else " ".join(value),
)
def test_the_command_line_means_the_same_there(cls, words):
    config = load_config(cls, [*words, "--address", ADDRESS, "--token-file", "/token", "--detach", "--json"])
    local = config.model_copy(update={"address": None, "token_file": None, "detach": False, "json_output": False})
    assert on_the_cluster(config) == local
    assert not {f"--{name.replace('_', '-')}" for name in SUBMIT_FIELDS} & set(command_line(config))


def test_values_from_the_environment_and_a_file_go_along(monkeypatch, tmp_path):
    file = tmp_path / "config.toml"
    file.write_text("epochs = 4\n")
    monkeypatch.setenv("MNIST_STORAGE", "s3://bucket/x")
    monkeypatch.setenv("MNIST_ADDRESS", ADDRESS)
    config = load_config(TrainConfig, ["--config", str(file)])
    assert config.address == ADDRESS
    assert command_line(config) == ["train", "--storage", "s3://bucket/x", "--epochs", "4"]


def test_this_machines_datasets_stay_here(monkeypatch, tmp_path):
    monkeypatch.setenv("MNIST_DATA_DIR", str(tmp_path))
    assert command_line(load_config(TrainConfig, ["--storage", "/s"])) == ["train", "--storage", "/s"]


def test_relative_paths_are_this_folders(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    config = load_config(ScoreConfig, ["images", "@list.txt", "s3://b/x", "out", "--storage", "/s"])
    assert command_line(config)[-4:] == [f"{tmp_path}/images", f"@{tmp_path}/list.txt", "s3://b/x", f"{tmp_path}/out"]
    assert f"{tmp_path}/digits" in command_line(load_config(TrainConfig, ["--storage", "/s", "--dataset", "digits"]))


def test_labels_and_models_in_a_folder_are_found_from_there_too(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["a.gz", "out", "--labels", "b.gz", "--model", "./exported", "--storage", "/s"]
    line = command_line(load_config(ScoreConfig, words))
    assert {f"{tmp_path}/b.gz", f"{tmp_path}/exported"} <= set(line)
    assert "mnist/3" in command_line(load_config(ScoreConfig, ["a", "out", "--model", "mnist/3", "--storage", "/s"]))


def test_a_log_is_followed_as_long_as_the_cluster_answers_however_often_the_connection_breaks(monkeypatch):
    monkeypatch.setattr("jobs.cluster_client.PATIENCE_S", 0.05)
    monkeypatch.setattr("jobs.cluster_client.RETRY_S", 0.02)
    client = object.__new__(ClusterClient)
    client.address, client._client = ADDRESS, Breaking(ends_after=10)
    lines: list[str] = []
    assert client.follow("job", lines.append).status.is_terminal()
    assert lines == ["one", "two"]


def test_a_cluster_that_does_not_answer_any_more_is_given_up(monkeypatch):
    monkeypatch.setattr("jobs.cluster_client.PATIENCE_S", 0.05)
    monkeypatch.setattr("jobs.cluster_client.RETRY_S", 0.02)
    client = object.__new__(ClusterClient)
    client.address, client._client = ADDRESS, Breaking(ends_after=0)
    with pytest.raises(JobFailedError, match=f"{ADDRESS} has not answered for"):
        client.follow("job", print)


def test_a_storage_that_only_this_machine_has_is_refused():
    with pytest.raises(ConfigError, match="--storage: missing; with --address an s3://"):
        command_line(load_config(TrainConfig, []))


HERE = {"python": "3.11.7", "versions": {"ray": "2.60.0", "keras": "3.15.1", "uvloop": "0.22"}, "code": "abc"}


def there(**changes):
    return {**HERE, **changes, "versions": {**HERE["versions"], **changes.get("versions", {})}}


def test_a_cluster_like_this_machine_gets_nothing():
    plan = plan_environment(HERE, HERE)
    assert plan.environment == {"env_vars": {"MNIST_ADDRESS": ""}}
    assert plan.remarks == []


@pytest.mark.parametrize("code", [None, "other"])
def test_code_that_the_cluster_lacks_is_sent_along(code):
    plan = plan_environment(HERE, there(code=code))
    assert [Path(each).name for each in plan.environment["py_modules"]] == ["mnist_core", "jobs", "serve"]
    assert all(Path(each, "__init__.py").exists() for each in plan.environment["py_modules"])
    assert len(plan.remarks) == 1


def test_what_is_missing_is_installed_and_what_differs_is_said():
    plan = plan_environment(HERE, there(versions={"uvloop": None, "keras": "3.12.0"}))
    assert plan.environment["uv"] == {"packages": ["uvloop==0.22"]}
    assert plan.remarks == [
        "warning: the cluster has other versions: keras 3.12.0 (3.15.1 here)",
        "the cluster lacks uvloop: each node installs them for this job, once",
    ]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (there(python="3.9.1"), "the cluster runs Python 3.9.1, expected 3.11 or 3.12 or 3.13"),
        (there(versions={"ray": "2.49.0"}), "the cluster runs ray 2.49.0, expected 2.60"),
    ],
)
def test_a_cluster_that_cannot_run_this_is_refused(found, message):
    with pytest.raises(ResourcesError, match=message):
        plan_environment(HERE, found)


def test_the_probe_runs_where_nothing_of_this_package_is(tmp_path):
    source = Path(probe.__file__).read_text()
    command = [sys.executable, "-I", "-c", source, "numpy", "no-such-thing"]
    said = json.loads(subprocess.run(command, capture_output=True, check=True, cwd=tmp_path).stdout)
    assert said == {**probe.look(["numpy", "no-such-thing"]), "code": said["code"]}
    assert said["versions"]["no-such-thing"] is None


def test_the_digest_is_that_of_the_source(tmp_path):
    for package in probe.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")

    def digest():
        # -S, or an editable install of this checkout would be found.
        command = [sys.executable, "-S", "-c", Path(probe.__file__).read_text()]
        said = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path).stdout
        return json.loads(said)["code"]

    first = digest()
    (tmp_path / "jobs" / "more.py").write_text("1")
    second = digest()
    assert first
    assert second not in (first, None)
    (tmp_path / "serve" / "__init__.py").unlink()
    (tmp_path / "serve").rmdir()
    assert digest() is None


def test_what_is_required_is_what_the_package_says():
    assert {"ray", "tensorflow", "keras", "numpy"} <= set(required())
    assert {"fsspec", "starlette"} <= set(required())  # of ray[train,serve]: a node may have ray alone
    assert "pytest" not in required()


def test_a_log_is_cut_into_lines_and_nothing_is_told_twice():
    lines: list[str] = []
    log = _Lines(lines.append)
    text = "one\ntwo\nthr"
    log.add(text[:5], 5)
    log.add(text[5:], len(text))
    log.add("one\nt", 5)  # the connection was made anew, and begins at the beginning
    log.add("wo\nthree\n", 14)
    assert lines == ["one", "two", "three"]
    log.catch_up("one\ntwo\nthree\nfour")
    assert lines == ["one", "two", "three", "four"]


def test_a_token_that_others_can_read_is_refused(tmp_path):
    file = tmp_path / "token"
    file.write_text("secret\n")
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others may read it \(mode 640\); run chmod 600") as refused:
        find_token(file)
    assert "secret" not in str(refused.value)
    file.chmod(0o600)
    assert find_token(file) == "secret"
    file.write_text("")
    with pytest.raises(ConfigError, match="is empty"):
        find_token(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        find_token(tmp_path / "none")


def test_the_token_in_the_home_folder_is_made_and_kept_from_others(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = keep_token()
    assert path == tmp_path / ".ray" / "auth_token"
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text()
    assert len(token) == 64
    path.chmod(0o644)  # as Ray writes it
    assert find_token(None) == token
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("RAY_AUTH_TOKEN", " mine ")
    assert find_token(None) == "mine"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    assert keep_token() is None
    assert find_token(None) == token


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list"], "--address .or MNIST_ADDRESS.: missing"),
        (["logs", "--address", ADDRESS], "JOB: received None, expected an id"),
        (["list", "job", "--address", ADDRESS], "JOB: received 'job', expected an id"),
        (["list", "--address", "127.0.0.1:8265"], "--address: received '127.0.0.1:8265', expected the address of"),
        (["list", "--address", "http://user:secret@host"], "expected the address of a cluster's dashboard"),
    ],
)
def test_wrong_words_for_jobs(words, message):
    with pytest.raises(ConfigError, match=message):
        load_config(JobsConfig, words)


def test_a_job_that_was_left_running_says_how_to_find_it():
    said = render({"job": "raysubmit_1", "address": ADDRESS, "command": "mnist train"})
    assert said.splitlines()[0] == "raysubmit_1"
    assert f"mnist jobs logs raysubmit_1 --address {ADDRESS}" in said
