"""What the user of ``mnist train`` sees, from the statuses that the first worker writes."""

from __future__ import annotations

import os
import re
from concurrent.futures import Future

import pytest

from jobs.watch import Watcher
from mnist_core.config import TrainConfig
from mnist_core.errors import RunInterruptedError, TrainingFailedError
from mnist_core.runs import Run
from mnist_core.storage import open_storage
from mnist_core.training import EpochReport, Progress

STARTED = 1000.5
REPORTS = [EpochReport(epoch, 0.5 / epoch, 0.9, 0.25 / epoch, 0.95, 1e-3, 2.0) for epoch in (1, 2)]


def status(progress=None, *, attempt="first", workers=2, phase="training", command=STARTED, notes=()):
    said = {"attempt": attempt, "world_size": workers, "phase": phase, "marks": {"command": command}}
    said |= {"notes": list(notes)}
    return said if progress is None else {**said, "progress": progress.to_dict()}


def after(*reports, step=0):
    return Progress(epoch=len(reports), step=step, loss_sum=step * 25.0, seconds=0.1 * step, history=reports)


class Script(Future):
    """A run that writes one status before each look at it, then ends: with a result, an error, or Ctrl-C."""

    def __init__(self, run, statuses, end=None):
        super().__init__()
        self._run, self._statuses, self._end = run, list(statuses), end

    def exception(self, timeout=None):
        if self._statuses:
            said = self._statuses.pop(0)
            if isinstance(said, dict):
                self._run.write_status(said)
            else:
                self._run.storage.write_bytes(f"{self._run.folder}/status.json", said)
            raise TimeoutError
        if isinstance(self._end, KeyboardInterrupt):
            raise self._end
        if not self.done():
            self.set_exception(self._end) if self._end else self.set_result(None)
        return super().exception(timeout)


@pytest.fixture
def run(tmp_path):
    return Run(open_storage(str(tmp_path / "storage")), "a")


@pytest.fixture
def show(run, capsys):
    """Follows a run that says these things; returns the lines on stderr after the first."""

    def follow(*statuses, end=None):
        config = TrainConfig(recipe="notebook", epochs=2, batch_size=50, storage=run.storage.uri)
        Watcher(run, config, {"train": 400}, STARTED).follow(Script(run, statuses, end))
        out, err = capsys.readouterr()
        assert out == ""
        assert "\x1b" not in err, "no control characters outside a terminal"
        first, *lines = err.splitlines()
        assert first == "run a: 400 training images, 2 epochs"
        return lines

    return follow


def test_an_epoch_is_one_plain_line_outside_a_terminal(show):
    lines = show(status(), status(after(step=3)), status(after(REPORTS[0])), status(after(*REPORTS)))
    assert lines == [
        "epoch 1/2  loss 0.5000  accuracy 90.00%  validation 0.2500 95.00%  200 img/s  2 s",
        "epoch 2/2  loss 0.2500  accuracy 90.00%  validation 0.1250 95.00%  200 img/s  2 s",
    ]


def test_the_status_that_was_written_last_is_shown_even_if_the_run_has_ended(show, run):
    run.write_status(status(after(*REPORTS)))
    assert len(show()) == 2


def test_now_and_then_a_line_says_where_a_long_epoch_is(show, monkeypatch):
    monkeypatch.setattr("jobs.watch.LINE_EVERY_S", 0.0)
    lines = show(status(after(step=0)), status(after(step=4)))
    # 200 of 400 images in 0.4 s, loss 100 over 200 images, and 12 of 16 steps to go at 0.1 s each.
    assert lines[0] == "epoch 1/2 step 4/8  loss 0.5000  500 img/s  0:01 left"


def test_a_status_of_an_earlier_command_is_ignored(show):
    assert show(status(after(*REPORTS), command=STARTED - 60, notes=["old"])) == []


def test_lost_workers_are_told_once_and_epochs_are_not_told_twice(show):
    lines = show(
        status(after(REPORTS[0])),
        status(after(REPORTS[0], step=2), attempt="second", notes=["resumed at epoch 2, step 1"]),
        status(after(*REPORTS), attempt="second", notes=["resumed at epoch 2, step 1"]),
    )
    assert [line.split("  ")[0] for line in lines] == [
        "epoch 1/2",
        "warning: workers were lost; goes on with 2",
        "resumed at epoch 2, step 1",
        "epoch 2/2",
    ]


def test_an_epoch_that_was_lost_is_told_again_when_it_is_done_again(show):
    lines = show(
        status(after(REPORTS[0])),
        status(after(step=2), attempt="second"),
        status(after(REPORTS[0]), attempt="second"),
    )
    assert [line.split("  ")[0] for line in lines] == [
        "epoch 1/2",
        "warning: workers were lost; goes on with 2",
        "epoch 1/2",
    ]


def test_an_elastic_run_that_grows_has_lost_nobody(show):
    lines = show(status(after(step=3)), status(after(step=4), attempt="second", workers=4))
    assert lines == ["goes on with 4 workers instead of 2"]


def test_a_note_is_told_once(show):
    assert show(status(notes=["one"]), status(notes=["one", "two"]), status(notes=["one", "two"])) == ["one", "two"]


def test_notes_are_told_as_they_are(show):
    assert show(status(notes=["[bold] s3://a/:cat:/ " + "x" * 300])) == ["[bold] s3://a/:cat:/ " + "x" * 300]


def test_a_torn_status_is_a_warning_and_not_the_end(show, caplog):
    lines = show(b'{"torn', status(after(REPORTS[0])))
    assert re.search(r"status\.json: expected JSON", caplog.text)
    assert lines[0].startswith("epoch 1/2")


def test_why_a_run_failed_is_raised(show):
    failure = TrainingFailedError("workers failed")
    with pytest.raises(TrainingFailedError) as caught:
        show(status(), end=failure)
    assert caught.value is failure


def test_ctrl_c_says_the_command_that_goes_on(show, run):
    with pytest.raises(RunInterruptedError, match=rf"mnist train --run a --storage {re.escape(run.storage.uri)} "):
        show(status(after(step=3)), end=KeyboardInterrupt())


def test_a_terminal_shows_a_live_bar(run, monkeypatch):
    leader, follower = os.openpty()
    with os.fdopen(leader, "rb") as screen, os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        config = TrainConfig(recipe="notebook", epochs=2, batch_size=50)
        script = Script(run, [status(after(REPORTS[0], step=4))])
        Watcher(run, config, {"train": 400}, STARTED).follow(script)
        terminal.write("the end")
        terminal.flush()
        shown = b""
        while b"the end" not in shown:
            shown += screen.read1()
    assert b"epoch 2/2 step 4/8" in shown
    assert b"loss 0.5000" in shown
    assert b"\x1b[" in shown, "drawn in place"
