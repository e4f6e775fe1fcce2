"""What passes between a trial and its study, both in this process."""

import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from litlab.distributed.watchdog import RankDied
from litlab.runs.folder import RunRecord
from litlab.tuning.workers import worker
from litlab.tuning.workers.devices import Ranks
from litlab.tuning.workers.worker import Line, TrialReporter
from litlab.utils.errors import EnvironmentFault
from run_helpers import THIRD_PARTY, ready_store, small

pytestmark = THIRD_PARTY


class Study:
    """The other end: answers each epoch, and keeps what it was told."""

    def __init__(self, prune_at: int | None = None) -> None:
        self.line, theirs = Pipe()
        self.trial = Line(theirs, os.getppid())
        self.prune_at, self.heard = prune_at, list[dict[str, Any]]()
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        while True:
            try:
                said = self.line.recv()
            except EOFError:
                return
            self.heard.append(said)
            if "epoch" in said:
                self.line.send(said["epoch"] == self.prune_at)

    def end(self) -> list[dict[str, Any]]:
        """Return what it heard, once the trial has hung up."""
        self.trial.connection.close()
        self.thread.join()
        return self.heard


@pytest.fixture
def signals(monkeypatch) -> Iterator[list[int]]:
    """Those that the process would have sent itself."""
    sent: list[int] = []
    monkeypatch.setattr(worker.os, "kill", lambda pid, number: sent.append(number))
    return sent


def trainer(**measured: float) -> Any:
    values = {name.replace("_", "/"): torch.tensor(value) for name, value in measured.items()}
    strategy = SimpleNamespace(broadcast=lambda value: value)
    parts = {"callback_metrics": values, "strategy": strategy, "current_epoch": 3}
    return SimpleNamespace(**parts, should_stop=False)


def test_an_epoch_is_told_and_the_answer_ends_the_fit() -> None:
    study = Study(prune_at=3)
    report, fit, other = TrialReporter("val/loss", study.trial), trainer(val_loss=0.5), trainer()
    report.on_train_epoch_end(other, None)  # an epoch without validation
    report.on_train_epoch_end(fit, None)
    assert study.end() == [{"epoch": 3, "value": 0.5}]
    assert (fit.should_stop, other.should_stop) == (True, False)
    again = TrialReporter("val/loss", None)
    again.load_state_dict(report.state_dict())
    assert again.pruned


def test_another_process_does_what_the_first_was_told() -> None:
    report, fit = TrialReporter("val/loss", None), trainer(val_loss=0.5)
    report.on_train_epoch_end(fit, None)
    assert not fit.should_stop
    fit.strategy.broadcast = lambda value: True
    report.on_train_epoch_end(fit, None)
    assert fit.should_stop
    assert report.pruned


def test_a_study_that_hung_up_is_a_reason_to_stop_once(signals) -> None:
    ours, theirs = Pipe()
    line = Line(theirs, os.getppid())
    ours.close()
    assert not line.ask({"epoch": 0})
    assert not line.ask({"epoch": 1})
    line.say({"pruned": False})
    assert signals == [signal.SIGTERM]


def test_a_study_that_died_is_a_reason_though_its_line_is_held_open(signals) -> None:
    held: list[Connection] = list(Pipe())
    line = Line(held[1], os.getppid() + 1)
    assert not line.ask({"epoch": 0})
    line.watch()
    assert signals == [signal.SIGTERM]


def test_a_trial_says_what_it_came_to(project: Path) -> None:
    ready_store(project)
    config, folder = small(), project / "runs" / "trial"
    study = Study()
    assert worker._work(config, folder, study.trial, 1, True) == 0
    *told, said = study.end()
    assert [one["epoch"] for one in told] == list(range(said["epochs"]))
    record = RunRecord.load(folder)
    assert (said["run_id"], said["metrics"]) == (record.run_id, record.metrics)
    assert said["parameters"] == record.num_parameters > 0
    assert not said["pruned"]
    # Had it not been heard, it says the same, its latency measured anew.
    study = Study()
    assert worker._work(config, folder, study.trial, 1, True) == 0
    (again,) = study.end()
    assert again.pop("latency") > 0
    assert said.pop("latency") > 0
    assert again == said


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (RuntimeError("no"), {"failed": "RuntimeError: no", "code": 1}, 1),
        (EnvironmentFault("a", "b", "c"), {"failed": "a (b)", "code": 5, "disk": False}, 5),
        (RankDied("a", "b", "c"), None, 5),  # without a word: it is begun again
        (SystemExit(6), None, 6),  # of another process than the first
    ],
)
def test_how_it_ends_otherwise(project, monkeypatch, error, said, code) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(worker, "train", fail)
    folder = project / "runs" / "trial"
    folder.mkdir(parents=True)
    (folder / "rest").touch()
    study = Study()
    assert worker._work(small(), folder, study.trial, 1, False) == code
    assert study.end() == ([said] if said else [])
    assert not folder.exists()  # it had saved nothing


def test_one_process_stays_one(monkeypatch) -> None:
    monkeypatch.setattr("os.fork", None)
    with Ranks(1) as ranks:
        assert ranks.rank == 0
    assert "LOCAL_RANK" not in os.environ
