"""Trainings that end badly: whose fault it was decides what becomes of them. Nothing is trained."""

import os
import shutil
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from litlab.tuning.workers import pool as module
from litlab.tuning.workers.devices import Slot
from litlab.tuning.workers.pool import ATTEMPTS, Pool
from litlab.tuning.workers.worker import Worker
from litlab.utils.errors import EnvironmentFault

Said = dict[str, Any]
GONE = {"failed": "No such file", "code": 5}
FULL = {"failed": "No space left on device", "code": 5, "disk": True}
GOOD = {"metrics": {}, "pruned": False}


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pool]:
    """A pool whose processes say one thing each, and end."""

    def make(*said: Said) -> Pool:
        left = list(said)

        def start(config: Any, folder: Path, slot: Slot, log: Path, **_: Any) -> Worker:
            folder.mkdir()
            folder.rmdir()
            ours, theirs = Pipe()
            theirs.send(left.pop(0))
            theirs.close()
            pid = os.fork()
            if not pid:
                os._exit(0)
            return Worker(pid, ours)

        monkeypatch.setattr(module, "start", start)
        return Pool(tmp_path / "runs" / "x", [Slot(1)], "data")

    return make


def begun(pool: Pool) -> Pool:
    pool.begin("one", SimpleNamespace(), 0, fresh=True)
    return pool


def ended(pool: Pool) -> list[Said | None]:
    found = []
    while pool.jobs:
        found += [said for _, said in pool.listen(lambda *_: False)]
    return found


def test_a_failure_of_the_machine_is_tried_again(pool) -> None:
    made = pool(FULL, GOOD)
    assert ended(begun(made)) == [GOOD]
    assert len(made.free) == 1


def test_but_not_for_ever(pool) -> None:
    made = pool(*[GONE] * ATTEMPTS)
    assert ended(begun(made)) == [{"failed": "No such file, 3 times", "code": 5}]


def test_a_full_disk_stops_the_study(pool) -> None:
    made = pool(*[FULL] * ATTEMPTS)
    with pytest.raises(EnvironmentFault, match="No space left on device"):
        ended(begun(made))
    assert [(job.name, said) for job, said in made.stop()] == [("one", None)]  # to go on with


def test_a_failure_of_its_own_is_not(pool) -> None:
    bad = {"failed": "val/loss is nan", "code": 6}
    made = pool(bad)
    assert ended(begun(made)) == [bad]


def test_a_folder_that_is_removed_is_made_again(pool) -> None:
    made = pool(FULL, GOOD, GOOD)
    made.begin("one", SimpleNamespace(), 0, fresh=True)
    shutil.rmtree(made.folder.parent)
    assert ended(made) == [GOOD]
    shutil.rmtree(made.folder.parent)
    made.begin("two", SimpleNamespace(), 0, fresh=True)
    assert ended(made) == [GOOD]


@pytest.mark.parametrize("good", [0, 1])
def test_where_nothing_can_be_written_the_study_stops(pool, monkeypatch, good: int) -> None:
    made = pool(FULL)
    answers = [None] * good

    def look(folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if not answers:
            raise EnvironmentFault("no room", str(folder), "choose another --out")
        answers.pop()

    monkeypatch.setattr(module, "probe", look)
    with pytest.raises(EnvironmentFault, match="no room") as caught:
        ended(begun(made))
    assert "run the same command to resume" in caught.value.fix
    assert [(job.name, said) for job, said in made.stop()] == [("one", None)]  # to go on with


def test_no_process_to_be_had(pool, monkeypatch) -> None:
    made = pool()

    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(module, "start", refuse)
    with pytest.raises(EnvironmentFault, match="no process could be started for a training"):
        made.begin("one", SimpleNamespace(), 0, fresh=True)
