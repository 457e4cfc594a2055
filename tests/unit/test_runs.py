"""A run on the storage: whose it is, what it says of itself, what it came to."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from mnist_core.config import TrainConfig
from mnist_core.errors import DivergedError, RunConflictError, StorageError
from mnist_core.runs import Run, StatusBoard, refuse_unfinished
from mnist_core.storage import open_storage
from mnist_core.training import EpochReport, Progress

IDENTITY = {"epochs": 3, "seed": 0, "learning_rate": 1e-3, "dataset_sha256": "ab"}
MARKS = {"command": 100.0, "ray": 101.5}
REPORT = EpochReport(1, 0.25, 0.875, 0.3, 0.8125, 1e-3, 12.5)

CLAIM = """
import sys
from mnist_core.errors import RunConflictError
from mnist_core.runs import Run
from mnist_core.storage import open_storage

run = Run(open_storage(sys.argv[1]), "contested")
print("ready", flush=True)
sys.stdin.readline()
try:
    print(run.claim({"seed": int(sys.argv[2])}))
except RunConflictError:
    print("refused")
"""


@pytest.fixture
def run(tmp_path):
    return Run(open_storage(str(tmp_path)), "a")


def opened_board(run, marks=MARKS, world_size=2):
    board = StatusBoard(run, world_size, marks)
    board.start(Progress())
    return board


def test_a_claimed_run_exists_and_keeps_its_id(run):
    assert not run.exists()
    run_id = run.claim(IDENTITY)
    assert run.exists()
    assert run.claim(dict(reversed(IDENTITY.items()))) == run_id
    assert Run(run.storage, "b").claim(IDENTITY) != run_id


def test_every_recipe_s_identity_survives_the_storage(run):
    for recipe in ("notebook", "default"):
        named = Run(run.storage, recipe)
        assert named.claim(TrainConfig(recipe=recipe).identity()) == named.claim(TrainConfig(recipe=recipe).identity())


def test_a_run_with_another_configuration_is_refused_and_every_field_is_named(run):
    run.claim(IDENTITY)
    asked = {**IDENTITY, "epochs": 5, "learning_rate": 0.01, "added": True}
    with pytest.raises(RunConflictError) as caught:
        run.claim(asked)
    message = str(caught.value)
    assert "run a exists with another configuration" in message
    for part in ("epochs is 3, asked for 5", "learning_rate is 0.001, asked for 0.01", "added is None, asked for True"):
        assert part in message
    assert "seed" not in message
    assert run.claim(IDENTITY), "a refused claim changes nothing"


def test_of_processes_that_claim_a_run_at_once_one_decides_for_all(tmp_path):
    seeds = ("0", "0", "1")
    with contextlib.ExitStack() as stack:
        claimers = [
            stack.enter_context(
                subprocess.Popen([sys.executable, "-c", CLAIM, tmp_path, seed], stdin=PIPE, stdout=PIPE, text=True)
            )
            for seed in seeds
        ]
        for claimer in claimers:
            assert claimer.stdout.readline() == "ready\n"
        for claimer in claimers:
            claimer.stdin.write("go\n")
            claimer.stdin.flush()
        answers = [claimer.communicate(timeout=60)[0].strip() for claimer in claimers]
    ids = {answer for answer in answers if answer != "refused"}
    assert len(ids) == 1
    assert answers in ([*ids, *ids, "refused"], ["refused", "refused", *ids])


def test_result_and_status_are_nothing_until_they_are_written(run):
    assert (run.result(), run.status()) == (None, None)
    run.write_result({"test": {"accuracy": 0.99}})
    run.write_status({"phase": "training"})
    assert run.result() == {"test": {"accuracy": 0.99}}
    assert run.status() == {"phase": "training"}


@pytest.mark.parametrize(("data", "found"), [(b'{"torn', "something else"), (b"[1, 2]", "list")])
def test_a_record_that_is_no_json_object_is_refused_by_name(run, data, found):
    run.storage.write_bytes("runs/a/result.json", data)
    with pytest.raises(StorageError, match=rf"runs/a/result\.json: expected .*JSON.*, found {found}"):
        run.result()


def test_the_board_says_how_the_run_is_doing(run):
    board = opened_board(run)
    board.mark("worker", 103.0)
    progress = Progress(epoch=1, step=7, loss_sum=1.5, correct=3, seconds=2.0, history=(REPORT,))
    board.update(progress)
    board.enter("publishing")
    board.close()
    status = run.status()
    assert (status["phase"], status["world_size"], status["notes"]) == ("publishing", 2, [])
    assert Progress.from_dict(status["progress"]) == progress
    assert {name: status["marks"][name] for name in ("command", "ray", "worker")} == {**MARKS, "worker": 103.0}
    assert status["marks"]["first_step"] > 103.0


def test_the_first_step_is_marked_once(run):
    board = opened_board(run)
    board.update(Progress(step=1))
    marks = board.marks
    board.update(Progress(step=2))
    board.mark("tensorflow", 999.0)
    board.close()
    assert board.marks == marks


def test_replaced_workers_keep_the_marks_of_their_command(run):
    first = opened_board(run)
    first.update(Progress(step=1))
    first.close()
    second = opened_board(run)
    second.mark("worker", 999.0)
    second.close()
    assert second.marks == first.marks
    assert first._status["attempt"] != second._status["attempt"]


@pytest.mark.parametrize("got_to_a_step", [True, False])
def test_another_command_and_a_start_that_was_cut_short_are_timed_anew(run, got_to_a_step):
    first = StatusBoard(run, 2, MARKS)
    first.mark("worker", 103.0)
    first.mark("tensorflow", 105.0)
    first.start(Progress())
    if got_to_a_step:
        first.update(Progress(step=1))
    first.close()
    marks = {"command": 200.0} if got_to_a_step else MARKS
    second = opened_board(run, marks)
    second.mark("worker", 204.0)
    second.close()
    assert second.marks == {**marks, "worker": 204.0}


def test_a_run_that_was_cut_off_while_publishing_is_started_without_a_step(run):
    """The result tells when the start was over; this must not be missing, or the run could never be finished."""
    board = StatusBoard(run, 1, MARKS)
    board.start(Progress(epoch=2, history=(REPORT, REPORT)))
    board.enter("publishing")
    board.close()
    assert board.marks["first_step"] > board.marks["command"]


def test_a_resumed_run_says_where_it_goes_on(run):
    board = StatusBoard(run, 1, MARKS)
    board.start(Progress(epoch=2, step=5))
    board.close()
    assert run.status()["notes"] == ["resumed at epoch 3, step 6"]


def test_warnings_of_the_library_become_notes_until_the_board_is_closed(run):
    logger = logging.getLogger("mnist_core.checkpoints")
    board = opened_board(run)
    logger.warning("checkpoint %s is skipped", "x")
    logging.getLogger("another").warning("not ours")
    board.enter("publishing")
    board.close()
    logger.warning("too late")
    assert run.status()["notes"] == ["checkpoint x is skipped"]
    assert not logging.getLogger("mnist_core").handlers


def test_a_run_that_failed_says_why(run):
    board = opened_board(run)
    board.fail(DivergedError("the loss is nan at epoch 1, step 2"))
    assert run.status()["phase"] == "failed"
    with pytest.raises(DivergedError, match="the loss is nan at epoch 1, step 2; the last good checkpoint stays"):
        refuse_unfinished(run)


def test_a_run_that_did_not_fail_has_nothing_to_say(run):
    refuse_unfinished(run)
    opened_board(run).close()
    refuse_unfinished(run)


def test_going_on_with_a_run_takes_its_failure_back(run):
    opened_board(run).fail(DivergedError("the loss is nan"))
    opened_board(run).close()
    refuse_unfinished(run)


def test_a_last_status_that_cannot_be_written_fails_no_run_but_one_that_has_to_say_why(run, caplog):
    finished, failed = opened_board(run), opened_board(run)
    status = Path(run.storage.uri, run.folder, "status.json")
    status.unlink(missing_ok=True)
    status.mkdir(parents=True)
    finished.enter("done")
    finished.close()
    assert "status.json" in caplog.text
    with pytest.raises(StorageError, match=r"status\.json"):
        failed.fail(DivergedError("the loss is nan"))
