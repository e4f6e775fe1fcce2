"""A trial that trains in two processes: pruned, killed, and taken up again as one."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from litlab.runs.folder import RunRecord
from run_helpers import THIRD_PARTY, assert_same, mlflow_run
from trial_helpers import begin, epochs, finish, is_alive, pids, run, until

pytestmark = [pytest.mark.slow, *THIRD_PARTY]
WHOLE = ("trainer.limit_train_batches=null", "trainer.limit_val_batches=null")
TWO = (*WHOLE, "trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=4")
# 96 samples, 16 a batch: it dies in the middle of the second epoch.
DIES = (*TWO, "loss._target_=dying_rank.Dies", "trust=[dying_rank]", "+loss.at=11")


def checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


def test_two_processes_train_as_one_does(project: Path) -> None:
    (two,) = run(project, *TWO, measure=True)
    assert epochs(project) == [0, 1, 2, 3]
    (project / "runs/study/trial-0").rename(project / "two")
    (one,) = run(project, *TWO, "trainer.devices=1")
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-4, abs=1e-6)
    assert (two["epochs"], two["pruned"], two["deaths"]) == (4, False, 0)
    assert 0 < two["latency"] < 1000
    assert "latency" not in one
    record = RunRecord.load(project / "two")
    assert record.status == "FINISHED"
    assert mlflow_run(project, record.run_id).data.params["trainer.devices"] == "2"


def test_all_processes_of_a_pruned_trial_end_together(project: Path) -> None:
    process = begin(project, *TWO, "trainer.max_epochs=100000", prune_at=2, measure=True)
    until(lambda: (project / "pids").exists() and len(pids(project)) == 2)
    both = pids(project)
    (said,) = finish(process, project)
    assert (said["pruned"], said["epochs"], said["deaths"]) == (True, 3, 0)
    assert "latency" not in said
    assert not any(is_alive(pid) for pid in both)
    assert RunRecord.load(project / "runs/study/trial-0").status == "FINISHED"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_trial_goes_on_when_one_of_its_processes_is_killed(project: Path, rank: int) -> None:
    dies = [*DIES, f"+loss.rank={rank}", "trainer.save_every_steps=1"]
    (said,) = run(project, *dies)
    assert (said["deaths"], said["epochs"], said["pruned"]) == (1, 4, False)
    assert (project / "died").exists()
    folder = project / "runs/study/trial-0"
    record = RunRecord.load(folder)
    assert (record.status, record.resumed) == ("FINISHED", 1)
    assert mlflow_run(project, record.run_id).info.status == "FINISHED"
    log = folder.with_suffix(".log").read_text()
    assert "resuming run" in log
    assert ("rank 1 of 2 died" in log) == (rank == 1)
    # As the one that nobody killed.
    folder.rename(project / "killed")
    (whole,) = run(project, *dies)
    assert whole["deaths"] == 0
    assert_same(checkpoint(folder), checkpoint(project / "killed"))


def test_an_error_of_another_process_is_the_trials(project: Path) -> None:
    (said,) = run(project, *DIES, "+loss.rank=1", "+loss.raises=true")
    assert said["failed"].startswith("rank 1 of 2: RuntimeError: bad sample")
    assert said["deaths"] == 0


def test_a_study_that_dies_takes_both_with_it(project: Path) -> None:
    process = begin(project, *TWO, "trainer.max_epochs=100000", die_at=3)
    until(lambda: (project / "pids").exists() and len(pids(project)) == 2)
    both = pids(project)
    assert finish(process, project, code=-9) == []
    until(lambda: not any(is_alive(pid) for pid in both), 10)
    folder = project / "runs/study/trial-0"
    assert RunRecord.load(folder).status == "KILLED"
    assert (folder / "last.ckpt").is_file()
    (said,) = run(project, *TWO, "trainer.max_epochs=100000", prune_at=6)
    assert epochs(project) == list(range(7))
    assert (said["pruned"], said["deaths"]) == (True, 0)
    assert RunRecord.load(folder).resumed == 1


def test_a_trial_that_is_asked_to_stop_saves_in_both_and_goes_on(project: Path) -> None:
    process = begin(project, *TWO, "trainer.max_epochs=100000")
    until(lambda: (project / "epochs").exists())
    both = pids(project)
    os.kill(both[0], signal.SIGTERM)
    (said,) = finish(process, project)
    assert said["code"] == 143
    assert not any(is_alive(pid) for pid in both)
    record = RunRecord.load(project / "runs/study/trial-0")
    assert record.status == "KILLED"
    done = len(epochs(project))
    (said,) = run(project, *TWO, "trainer.max_epochs=100000", prune_at=done + 2)
    assert epochs(project) == list(range(done + 3))
    assert (said["pruned"], said["run_id"]) == (True, record.run_id)


def test_trials_side_by_side_do_not_meet(project: Path) -> None:
    both = run(project, *TWO, trials=2)
    assert both[0]["metrics"] == pytest.approx(both[1]["metrics"], rel=1e-6)
    assert [one["deaths"] for one in both] == [0, 0]
    assert both[0]["run_id"] != both[1]["run_id"]
    assert json.loads((project / "pids").read_text())
