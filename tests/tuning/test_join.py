"""Several machines run one study: PostgreSQL keeps it, each has a project of its own."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

import forked
from litlab.tuning.study.storage import Storage, address_of, shown
from litlab.utils.errors import ConfigError, EnvironmentFault
from postgres import PASSWORD, server
from run_helpers import THIRD_PARTY
from study_helpers import run, study

pytestmark = THIRD_PARTY
# Long enough that a machine can be stopped in the middle of a trial.
LONG = ("trainer.max_epochs=30", "trainer.limit_train_batches=1.0")

LEISURELY = """
import time
from litlab.tuning.workers.pool import Pool
begin = Pool.begin
def later(*arguments, **named):
    time.sleep(1.0)
    begin(*arguments, **named)
Pool.begin = later
"""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with server() as url:
        yield url


class Machine:
    """A project folder and the command that runs there."""

    def __init__(self, folder: Path, url: str, *words: str, **settings: Any) -> None:
        self.folder = folder
        shutil.copytree(Path(__file__).parents[2] / "conf", folder / "conf")
        self.command = study(folder, *words, storage=url, **settings)
        self.process: forked.Popen | None = None

    def start(self, *words: str) -> "Machine":
        self.process = forked.Popen(
            [*self.command, *words],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a signal for all of its processes is for no other's
        )
        return self

    def signal(self, number: int) -> None:
        assert self.process
        os.killpg(self.process.pid, number)

    def end(self, code: int = 0) -> tuple[dict[str, Any], str]:
        assert self.process
        out, err = self.process.communicate(timeout=150)
        assert self.process.returncode == code, err
        return json.loads(out.splitlines()[-1]) if out else {}, err


def trials(url: str, name: str) -> list[optuna.trial.FrozenTrial]:
    storage = Storage(name, url, 60)
    found = optuna.load_study(study_name=name, storage=storage.backend).trials
    storage.close()
    return found


def until_training(machine: Machine, name: str) -> Path:
    """Wait until a machine trains, and has saved once; return the trial's folder."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert machine.process
        assert machine.process.poll() is None, machine.process.communicate()[1]
        for checkpoint in machine.folder.glob(f"runs/{name}/trial-*/last.ckpt"):
            record = json.loads((checkpoint.parent / "run.json").read_text())
            if record["status"] == "RUNNING":
                return checkpoint.parent
        time.sleep(0.02)
    raise AssertionError("nothing was trained")


@pytest.mark.slow
def test_two_workers_join(tmp_path: Path, database: str) -> None:
    common = {"name": "joined", "n_trials": 7, "sampler": "random", "finalists": 1}
    words = ("trainer.max_epochs=4", "trainer.limit_train_batches=1.0")
    slow = {"patch": LEISURELY}  # or it might have done all before the others are there
    machines = [Machine(tmp_path / "a", database, *words, **common, **slow)]
    machines += [Machine(tmp_path / n, database, *words, **common) for n in "bc"]
    machines[0].start()
    for machine in machines[1:]:
        machine.start("--join")
    said, err = machines[0].end()
    helped = [machine.end()[0] for machine in machines[1:]]
    assert said["trials"] == {"complete": 7, "pruned": 0, "failed": 0}
    found = trials(database, "joined")
    assert [t.state.name for t in found] == ["COMPLETE"] * 7
    owners = [t.user_attrs["owner"] for t in found]
    assert 2 <= len(set(owners)) <= 3
    assert sum(h["trained"] for h in helped) == 7 - len(
        list((tmp_path / "a" / "runs" / "joined").glob("trial-*/"))
    )
    # The same set as one worker tries, whoever tried it.
    alone = Machine(tmp_path / "d", database, *words, **{**common, "name": "alone"})
    alone.start().end()
    assert [t.params for t in trials(database, "alone")] == [t.params for t in found]
    # The password is in no word they said and no file they wrote.
    assert PASSWORD not in err
    assert said["storage"].startswith("postgresql://tuner@127.0.0.1")
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "tiny.yaml":
            assert PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_machine_that_dies_loses_no_trial(tmp_path: Path, database: str) -> None:
    common = {"name": "dies", "n_trials": 3, "stale_after": "5s"}
    first, second = (Machine(tmp_path / n, database, *LONG, **common) for n in "ab")
    first.start()
    second.start("--join")
    until_training(second, "dies")
    second.signal(signal.SIGKILL)
    second.end(-signal.SIGKILL)
    said, err = first.end()
    assert "was interrupted; it is resumed" in err
    assert said["trials"] == {"complete": 3, "pruned": 0, "failed": 0}
    assert [t.state.name for t in trials(database, "dies")] == ["COMPLETE"] * 3


@pytest.mark.slow
def test_a_machine_that_stood_still_counts_once(tmp_path: Path, database: str) -> None:
    common = {"name": "still", "n_trials": 3, "stale_after": "5s"}
    first, second = (Machine(tmp_path / n, database, *LONG, **common) for n in "ab")
    first.start()
    second.start("--join")
    folder = until_training(second, "still")
    second.signal(signal.SIGSTOP)
    # It is taken over, and finished, while it stands still.
    said, err = first.end()
    assert "was interrupted; it is resumed" in err
    found = trials(database, "still")
    second.signal(signal.SIGCONT)
    _, late = second.end()
    number = int(folder.name[-4:])
    assert "was taken over" in late or "was finished elsewhere" in late
    assert [t.state.name for t in found] == ["COMPLETE"] * 3
    after = trials(database, "still")
    assert [(t.value, t.datetime_complete) for t in after] == [
        (t.value, t.datetime_complete) for t in found
    ]
    here = json.loads((tmp_path / "a" / "runs" / "still" / folder.name / "run.json").read_text())
    assert after[number].user_attrs["run_id"] == here["run_id"]
    assert said["trials"]["complete"] == 3


@pytest.mark.slow
def test_a_machine_that_is_stopped_leaves_its_trial(tmp_path: Path, database: str) -> None:
    common = {"name": "leaves", "n_trials": 3, "stale_after": "1h"}
    first, second = (Machine(tmp_path / n, database, *LONG, **common) for n in "ab")
    first.start()
    second.start("--join")
    until_training(second, "leaves")
    assert second.process
    second.process.send_signal(signal.SIGTERM)
    _, err = second.end(143)
    assert "continues without this machine" in err
    said, err = first.end()  # at once, and not in an hour
    assert said["trials"]["complete"] == 3


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///x.db",
        "mysql://a:hidden@b/c",
        "x",
        "postgresql://a:hid@den@host/c",
        "postgresql://a:p@host:hidden/c",
    ],
)
def test_other_storages_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        address_of(url)
    assert "hid" not in str(caught.value)
    assert "den" not in str(caught.value)


def test_an_address_without_what_is_secret() -> None:
    url = "postgres://tuner:p/w@db/studies?sslmode=require&sslpassword=hidden"
    assert shown(address_of(url)) == "postgresql://tuner@db/studies?sslmode=require"


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(EnvironmentFault, match="storage fails") as caught:
        Storage("x", "postgresql://tuner:hidden@127.0.0.1:9/none", 60)
    assert "hidden" not in str(caught.value)
    assert caught.value.exit_code == 5


def test_nobody_has_begun(tmp_path: Path, database: str) -> None:
    machine = Machine(tmp_path / "a", database, name="nobody")
    machine.command[2] = machine.command[2].replace(
        "from litlab.cli.main",
        "import litlab.tuning.study.study as s; s.PATIENCE = 0\nfrom litlab.cli.main",
    )
    _, err = run([*machine.command, "--join"], machine.folder, code=5)
    assert "no study 'nobody' to join" in err


def test_a_file_cannot_be_joined(project: Path) -> None:
    _, err = run([*study(project), "--join"], project, code=2)
    assert "study.storage=postgresql" in err
