"""What a trial's process does when it, or its study, is disturbed."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from litlab.runs.folder import RunRecord
from run_helpers import THIRD_PARTY, assert_same, mlflow_run
from trial_helpers import begin, epochs, finish, is_alive, pids, run, until

pytestmark = [pytest.mark.slow, *THIRD_PARTY]
LONG = ("trainer.limit_train_batches=null", "trainer.limit_val_batches=null")
LONG += ("trainer.max_epochs=60", "trainer.save_every_seconds=0.1")


def last(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture
def whole(project: Path) -> Path:
    """The folder of a trial that nobody disturbed."""
    run(project, *LONG)
    folder = project / "runs/study/trial-0"
    assert epochs(project) == list(range(60))
    (project / "epochs").unlink()
    (project / "pids").unlink()
    return folder.rename(project / "whole")


def test_a_study_that_dies_takes_its_trial_with_it_and_goes_on(project, whole) -> None:
    process = begin(project, *LONG, die_at=7)
    assert finish(process, project, code=-9) == []
    (pid,) = pids(project)
    assert until(lambda: not is_alive(pid), 20) < 10
    folder = project / "runs/study/trial-0"
    record = RunRecord.load(folder)
    assert (record.status, record.epochs) == ("KILLED", 8)
    assert mlflow_run(project, record.run_id).info.status == "KILLED"
    assert "SIGTERM" in folder.with_suffix(".log").read_text()
    (said,) = run(project, *LONG)
    assert (said["epochs"], said["deaths"]) == (60, 0)
    assert said["run_id"] == record.run_id
    assert epochs(project) == list(range(60))  # none twice, none missing
    assert mlflow_run(project, record.run_id).info.status == "FINISHED"
    assert_same(last(folder), last(whole))


def test_a_study_that_dies_within_an_epoch_is_noticed_there(project) -> None:
    process = begin(project, *LONG, "trainer.max_epochs=1", "data.source.num_samples=200000")
    until(lambda: "up to 1 epoch" in "".join(f.read_text() for f in project.rglob("*.log")))
    (pid,) = pids(project)
    time.sleep(1)
    process.kill()
    assert until(lambda: not is_alive(pid), 20) < 10
    finish(process, project, code=-9)
    record = RunRecord.load(project / "runs/study/trial-0")
    assert (record.status, record.epochs) == ("KILLED", 0)
    assert not (project / "epochs").exists()


def test_a_trial_that_stands_still_for_a_while_is_the_same(project, whole) -> None:
    process = begin(project, *LONG)
    until(lambda: (project / "epochs").exists())
    (pid,) = pids(project)
    for _ in range(3):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.1)
    (said,) = finish(process, project)
    assert (said["epochs"], said["deaths"]) == (60, 0)
    assert_same(last(project / "runs/study/trial-0"), last(whole))


def test_one_that_had_ended_and_could_not_say_so_says_it_again(project) -> None:
    (said,) = run(project, *LONG, "trainer.max_epochs=3", measure=True)
    assert 0 < said.pop("latency") < 1000
    (again,) = run(project, *LONG, "trainer.max_epochs=3", measure=True)
    assert 0 < again.pop("latency") < 1000
    assert again == said
    assert epochs(project) == [0, 1, 2]  # it was not trained again
