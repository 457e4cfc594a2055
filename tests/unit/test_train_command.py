"""What a user is told when a training on Ray fails."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from jobs.train import _explain, _fit
from mnist_core.errors import StorageError, TrainingFailedError
from mnist_core.runs import Run
from mnist_core.storage import open_storage

REFUSED = StorageError("s3://b: no room")


class Trainer:
    """Ends as it is told to."""

    def __init__(self, end: Exception) -> None:
        self._end = end

    def fit(self) -> None:
        raise self._end


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(open_storage(str(tmp_path)), "friday")


def failed(*causes: Exception) -> WorkerGroupError:
    wrapped = [UserExceptionWithTraceback(cause, traceback_str="Traceback: here") for cause in causes]
    return WorkerGroupError("Traceback: here", dict(enumerate(wrapped)))


def test_an_error_of_ours_is_told_as_it_is(run):
    assert _explain(failed(ValueError("after it"), REFUSED), run) is REFUSED


def test_a_bug_in_a_worker_keeps_its_traceback(run):
    failure = failed(KeyError("a bug"))
    with pytest.raises(WorkerGroupError, match="Traceback: here") as caught:
        _fit(Trainer(failure), run)
    assert caught.value is failure


@pytest.mark.parametrize("cause", [ActorDiedError(), OSError("cut off"), MemoryError()])
def test_a_lost_worker_is_one_line_with_the_way_on(run, cause):
    error = _explain(WorkerGroupError("lost", {1: cause}), run)
    assert isinstance(error, TrainingFailedError)
    assert str(error).startswith("the workers failed more often than --max-failures allows, last worker 1: ")
    assert str(error).endswith("; the checkpoints stay: go on with --run friday")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("end", "start"),
    [
        (ControllerError(RuntimeError("no room")), "training on Ray failed: ControllerError: "),
        (ActorDiedError(), "Ray lost the training: ActorDiedError: "),
    ],
)
def test_what_befalls_the_controller_is_not_put_on_the_workers(run, end, start):
    with pytest.raises(TrainingFailedError) as caught:
        _fit(Trainer(end), run)
    assert str(caught.value).startswith(start)
    assert "--run friday" in str(caught.value)
    assert "\n" not in str(caught.value)
