"""Publishers and promoters in processes of their own: at once, and killed half way."""

import contextlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from published import FILES, publish

from mnist_core.artifact import load_artifact, published_versions, verify_artifact
from mnist_core.registry import current_version, rollback

SCRIPT = Path(__file__).with_name("registry_process.py")


@pytest.fixture
def start():
    """Start a registry process; whatever happens, it is killed, by its handle, at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start_process(*arguments):
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, SCRIPT, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            stack.callback(process.kill)
            return process

        yield start_process


def let_run(process):
    """Let a process take all its steps; its last lines are collected by `finish`."""
    process.stdin.write("\n" * 20)
    process.stdin.flush()


def finish(process):
    lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    return lines


def test_eight_processes_that_publish_at_once_get_eight_versions_all_whole(storage, start):
    processes = [start("publish", storage.uri, f"run-{number}") for number in range(8)]
    for process in processes:
        assert process.stdout.readline().startswith("models/mnist/claims/1\n")  # all want the same number
    for process in processes:
        let_run(process)
    versions = {finish(process)[-1] for process in processes}
    assert versions == {str(number) for number in range(1, 9)}
    assert set(published_versions(storage, "mnist")) == versions
    runs = {load_artifact(storage, "mnist", version).manifest.run_id for version in versions}
    assert runs == {f"run-{number}" for number in range(8)}


def test_processes_that_publish_one_run_at_once_get_one_version(storage, start):
    processes = [start("publish", storage.uri, "run") for _ in range(4)]
    for process in processes:
        assert process.stdout.readline().startswith("models/mnist/claims/1\n")  # none has found the run published
    for process in processes:
        let_run(process)
    (version,) = {finish(process)[-1] for process in processes}
    assert published_versions(storage, "mnist") == [version]
    assert verify_artifact(storage, "mnist", version) == []


def advance(process, steps):
    """Let a process take so many steps; it waits before the next one, which is returned."""
    for _ in range(steps):
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.mark.parametrize("steps", range(1, len(FILES) + 2), ids=["claimed", "one-file", "two-files", "all-files"])
def test_a_publisher_killed_half_way_leaves_nothing_visible_and_blocks_nobody(storage, start, steps):
    victim = start("publish", storage.uri, "run")
    assert advance(victim, steps).startswith(("models/mnist/1/", "models/mnist/claims/runs/run"))
    victim.kill()
    victim.wait()
    assert storage.list_keys("models/mnist/claims") == ["models/mnist/claims/1"]
    assert published_versions(storage, "mnist") == []
    assert publish(storage, run_id="run").version == "2"
    assert published_versions(storage, "mnist") == ["2"]
    assert verify_artifact(storage, "mnist", "2") == []


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "slow"])
def test_a_run_that_has_all_but_its_manifest_is_published_by_whoever_comes_next(storage, start, killed):
    first = start("publish", storage.uri, "run")
    assert advance(first, len(FILES) + 2) == "models/mnist/1/manifest.json"
    if killed:
        first.kill()
        first.wait()
    assert published_versions(storage, "mnist") == []
    assert publish(storage, run_id="run", files={"model.keras": b"of another day"}).version == "1"
    if not killed:
        let_run(first)
        assert finish(first)[-1] == "1"
    assert published_versions(storage, "mnist") == ["1"]
    assert load_artifact(storage, "mnist", "1").files == FILES
    assert storage.list_keys("models/mnist/claims") == ["models/mnist/claims/1", "models/mnist/claims/runs/run"]


def test_promotions_from_many_processes_follow_one_another_and_none_is_lost(storage, start):
    for number in range(4):
        publish(storage, run_id=f"run-{number}")
    orders = [["1", "2", "3", "4"] * 2, ["4", "3", "2", "1"] * 2, ["2", "4", "1", "3"] * 2, ["3", "1", "4", "2"] * 2]
    processes = [start("promote", storage.uri, *order) for order in orders]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        let_run(process)
    moves = []
    for process, order in zip(processes, orders, strict=True):
        moves += [move for move in zip(finish(process), order, strict=True) if move[0] != move[1]]
    # Followed back, the pointer's history is made of just the moves that the processes were told they had made.
    walked = []
    while len(walked) < len(moves) - 1:
        after = current_version(storage, "mnist")
        walked.append((rollback(storage, "mnist"), after))
    walked.append(("None", current_version(storage, "mnist")))
    assert Counter(walked) == Counter(moves)
