"""What the processes of a run do when one of them dies."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

import forked
from litlab.distributed import watchdog
from litlab.distributed.launch import as_launched
from litlab.distributed.watchdog import HeartbeatClient, HeartbeatServer, Watchdog
from litlab.runs.folder import RunRecord
from litlab.utils.errors import (
    ConfigError,
    EnvironmentFault,
    Interrupted,
    LitlabError,
    NonFiniteError,
)
from run_helpers import SMALL, THIRD_PARTY, mlflow_run, only_run, ready_store, small

pytestmark = THIRD_PARTY
HERE = Path(__file__).parents[1]


class Heard:
    """Collects what an end of a lifeline hears."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, dict[str, Any]]] = []
        self._came = threading.Condition()

    def __call__(self, rank: int, message: dict[str, Any]) -> None:
        with self._came:
            self.messages.append((rank, message))
            self._came.notify_all()

    def wait(self, number: int) -> list[tuple[int, dict[str, Any]]]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.messages) >= number, timeout=5)
            return self.messages


def connect(world: int) -> tuple[HeartbeatServer, Heard, list[tuple[HeartbeatClient, Heard]]]:
    heard = Heard()
    hub = HeartbeatServer(world, "127.0.0.1", heard)
    spokes = []
    for rank in range(1, world):
        ear = Heard()
        spoke = HeartbeatClient(("127.0.0.1", hub.port), hub.token, rank, f"process of {rank}", ear)
        spokes.append((spoke, ear))
    hub.start()
    for spoke, _ in spokes:
        spoke.start()
    return hub, heard, spokes


def test_each_hears_what_is_said_and_that_a_line_broke() -> None:
    hub, heard, spokes = connect(3)
    assert hub.names == {1: "process of 1", 2: "process of 2"}
    spokes[1][0].say({"bye": True})
    assert heard.wait(1) == [(2, {"bye": True})]
    hub.say({"failed": "x"})
    hub.say({"failed": "y"})
    for _, ear in spokes:
        assert ear.wait(2) == [(0, {"failed": "x"}), (0, {"failed": "y"})]
    spokes[0][0].close()
    assert heard.wait(2)[1] == (1, {"gone": True})
    hub.close()
    assert spokes[1][1].wait(3)[2] == (0, {"gone": True})
    spokes[1][0].close()


def test_a_stranger_is_not_let_in() -> None:
    heard = Heard()
    hub = HeartbeatServer(2, "127.0.0.1", heard)
    stranger = HeartbeatClient(("127.0.0.1", hub.port), "a guess", 1, "", Heard())
    known = HeartbeatClient(("127.0.0.1", hub.port), hub.token, 1, "known", Heard())
    hub.start()
    for end in (stranger, known):
        end.start()
    assert hub.names == {1: "known"}
    for end in (stranger, known, hub):
        end.close()


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Watchdog, HeartbeatClient, Heard]]:
    """The guard of rank 0 of 2, and the other one's end of the line."""
    monkeypatch.setattr(watchdog, "SETTLING", 0.3)
    guard = Watchdog()
    guard._world = 2
    hub = HeartbeatServer(2, "127.0.0.1", guard._hear)
    ear = Heard()
    spoke = HeartbeatClient(("127.0.0.1", hub.port), hub.token, 1, "process 77 on elsewhere", ear)
    hub.start()
    spoke.start()
    guard._line = hub
    yield guard, spoke, ear
    hub.close()
    spoke.close()


def leave(guard: Watchdog, error: BaseException, before: Any = lambda: None) -> None:
    with guard:
        before()
        raise error


def test_a_death_explains_the_error_that_it_causes(pair) -> None:
    guard, spoke, ear = pair
    says = r"rank 1 of 2 died \(process 77 on elsewhere\)"
    with pytest.raises(EnvironmentFault, match=says):
        leave(guard, RuntimeError("Connection closed by peer"), spoke.close)
    assert guard._failure is not None
    assert guard._failure.exit_code == 5


def test_another_ranks_error_is_told_with_its_number(pair) -> None:
    guard, spoke, ear = pair
    spoke.say({"error": ["no room", "here", "make some", 5]})
    with pytest.raises(LitlabError, match="rank 1 of 2: no room . here . make some") as caught:
        leave(guard, RuntimeError("Connection closed by peer"))
    assert caught.value.exit_code == 5


def test_a_signal_that_follows_a_death_is_not_the_reason(pair) -> None:
    guard, spoke, _ = pair  # torchrun ends the others so
    stopped = Interrupted("stopped by SIGTERM", "training", "run it again", 143)
    with pytest.raises(EnvironmentFault, match="rank 1 of 2 died"):
        leave(guard, stopped, spoke.close)


@pytest.mark.parametrize(
    "error",
    [NonFiniteError("loss is nan", "training", "lower it"), Interrupted("Ctrl-C", "", "", 130)],
)
def test_an_error_of_ones_own_stays_and_is_passed_on(pair, error) -> None:
    guard, _, ear = pair
    with pytest.raises(type(error)):
        leave(guard, error)
    said = {"error": [error.what, error.where, error.fix, error.exit_code], "rank": 0}
    assert ear.wait(1) == [(0, said)]


@pytest.mark.parametrize("code", [129, 130, 143])
def test_a_child_that_was_stopped_while_it_started_has_not_died(monkeypatch, code) -> None:
    guard, child = Watchdog(), MagicMock(returncode=code)
    child.poll.return_value = code
    monkeypatch.setattr(guard, "_end", lambda: None)
    guard._world = 2
    guard.watch([child])
    assert guard._known.wait(5)
    guard._left.set()
    assert isinstance(guard._failure, Interrupted)
    assert guard._failure.exit_code == code


def test_who_says_goodbye_has_not_died(pair) -> None:
    guard, spoke, ear = pair
    with guard:
        spoke.say({"bye": True})
        spoke.close()
        time.sleep(0.2)
    assert guard._failure is None


def test_one_process_alone_needs_no_guard() -> None:
    with pytest.raises(RuntimeError, match="own"):
        leave(Watchdog(), RuntimeError("own"))


def test_torchrun_says_how_many_processes_there_are(project, monkeypatch) -> None:
    trainer = small().trainer
    assert as_launched(trainer) is trainer
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "6")
    adopted = as_launched(trainer)
    assert (adopted.devices, adopted.num_nodes) == (2, 3)
    assert as_launched(adopted) == adopted
    with pytest.raises(ConfigError, match="torchrun started 2 processes on each of 3 machines"):
        as_launched(trainer.model_copy(update={"devices": 3}))


# In processes of their own


def start(project: Path, rank: int, how: str, *starter: str) -> forked.Popen:
    ready_store(project)
    script = [str(HERE / "dying_process.py"), str(rank), how, "train", *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "OMP_NUM_THREADS": "1"}
    return forked.Popen(
        [sys.executable, *starter, *script, "trainer.max_epochs=100000"]
        + ([] if starter else ["trainer.devices=2"]),
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(process: forked.Popen) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(number) for number in found]


def is_running(number: int) -> bool:
    try:  # an orphan that has ended stays until something takes note of it
        return ") Z " not in Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False


def until(condition: Any, seconds: float) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.05)
    return time.monotonic() - began


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "how", "starter", "says", "code"),
    [
        (1, "busy", (), "error: rank 1 of 2 died (process {child}, by SIGKILL)", 5),
        (0, "kill", (), "error: rank 0 of 2 died (process {own} on ", -9),
        (1, "raise", TORCHRUN, "error: rank 1 of 2: ", 1),
    ],
)
def test_all_are_gone_soon_and_the_rank_is_named(project, rank, how, starter, says, code) -> None:
    process = start(project, rank, how, *starter)
    try:
        until(lambda: (project / "died").exists(), 120)
        others = children(process) if process.poll() is None else []
        _, err = process.communicate(timeout=10)  # until the last has closed it
    finally:
        process.kill()
    assert process.returncode == code, err
    assert says.format(child=others[0] if others else "", own=process.pid) in err
    assert not any(is_running(number) for number in others)
    record = RunRecord.load(only_run(project))
    if rank:  # else nobody was left to write it down
        status = mlflow_run(project, record.run_id).info.status
        assert record.status == status == "FAILED"
