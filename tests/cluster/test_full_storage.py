"""A storage that is full: one line that says so, a checkpoint that stays good, and the same command goes on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import hosts
import pytest
from training_runs import started, write_digits

from mnist_core.checkpoints import newest_checkpoint
from mnist_core.runs import Run
from mnist_core.storage import open_storage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOM_KB = 1500
"""For two checkpoints of the notebook's network, but not for three."""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, with little room."""
    if reason := hosts.missing():
        pytest.skip(f"cannot mount a file system: {reason}")
    folder = tmp_path / "storage"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM_KB}k", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_storage_is_one_line_and_the_run_goes_on_when_there_is_room(small_disk: Path, tmp_path):
    digits = write_digits(tmp_path / "digits.npz", count=1500)
    place = ["--dataset", str(digits), "--storage", str(small_disk), "--run", "full", "--keep-checkpoints", "3"]
    words = ["train", "--recipe", "notebook", "--epochs", "4", *place, "--cpus-per-worker", "0.5", "--json"]
    with started(*words) as command:
        code, stdout, stderr = command.finish()
    assert code == 1
    assert stdout == ""
    last = stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert str(small_disk) in last
    assert "no space left on device" in last.lower()
    run = Run(open_storage(str(small_disk)), "full")
    kept = newest_checkpoint(run.storage, run.checkpoints)
    assert kept is not None
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    with started(*words) as command:
        code, stdout, stderr = command.finish()
    assert code == 0, stderr
    assert "resumed at epoch" in stderr
