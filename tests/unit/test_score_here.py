"""The command's own share of a scoring job: what it keeps, what it gives away, and how its failures come out."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from jobs import score_here
from jobs.score_here import HeadStart
from mnist_core.config import ScoreConfig
from mnist_core.errors import ModelNotFoundError
from mnist_core.inputs.plan import Unit
from mnist_core.scoring import Tally

PENDING = [(index, Unit("npy", ("a.npy",), start=index, stop=index + 1, num_items=1)) for index in range(10)]


@pytest.fixture
def config(tmp_path: Path) -> ScoreConfig:
    return ScoreConfig(storage=str(tmp_path / "storage"), paths=["a.npy", str(tmp_path / "out")])


class SlowScorer:
    """Scores when it is allowed to: the tests decide the moment, the clock does not."""

    allowed = Event()

    def __init__(self, config: ScoreConfig, threads: int) -> None:
        del config, threads

    def score(self, index: int, unit: Unit) -> Tally:
        del unit
        if index < 8:
            assert self.allowed.wait(30)
        return Tally(items=1)


def test_it_takes_the_last_units_first_and_stops_when_it_is_told(config, monkeypatch):
    monkeypatch.setattr(score_here, "UnitScorer", SlowScorer)
    told: list[int] = []
    with HeadStart(config, PENDING, lambda index, _: told.append(index)) as here:
        here.wait_for_rate(30)
        left = here.left()
        here.stop()
        SlowScorer.allowed.set()
        done = here.finish()
    SlowScorer.allowed.clear()
    assert told == list(done)
    assert told[0] == 9
    assert set(range(10)) == {*done, *(index for index, _ in left)}
    assert len(done) <= 3


def test_a_unit_of_unknown_size_makes_the_time_left_infinite(config):
    here = HeadStart(config, [(0, Unit("tar", ("a.tar",)))], lambda *_: None)
    assert here.seconds_left() == float("inf")


def test_a_failure_is_raised_where_the_result_is_asked_for(config):
    with HeadStart(config, PENDING, lambda *_: None) as here:
        here.wait_for_rate(30)
        with pytest.raises(ModelNotFoundError):
            here.finish()
