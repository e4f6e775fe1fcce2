"""A run whose process was killed does not stay RUNNING: the next command closes it."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

import forked
from litlab.evaluation.evaluate import evaluate
from litlab.runs.folder import PROCESS, RUN_FILE, RunRecord
from litlab.runs.lock import is_abandoned, is_running, running
from litlab.runs.tracking import open_runs
from litlab.runs.tracking.mlflow_logger import MLflowLogger
from litlab.runs.tracking.open_runs import OpenRun, close_records, close_runs, close_runs_of
from litlab.utils.errors import EnvironmentFault
from run_helpers import SMALL, THIRD_PARTY, ready_store, small_run

pytestmark = THIRD_PARTY

# Another process, which begins to record a run and is killed at once.
KILLED = """
import os, signal, sys
from pathlib import Path
from litlab.runs.folder import RunRecord
from litlab.runs.tracking.open_runs import OpenRun
uri, folder = sys.argv[1], Path(sys.argv[2])
run = OpenRun(uri, folder)
run.begin()
RunRecord("id", "name", "exp", uri, process=run.process).save(folder)
print(run.process, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_run(project: Path, name: str = "one", uri: str | None = None) -> tuple[Path, str, str]:
    """Leave a run whose process was killed; return its folder, MLflow's id and its process."""
    uri = uri or ready_store(project)
    folder = project / "runs" / name
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", KILLED, uri, str(folder)]
    process = forked.run(command, capture_output=True, text=True).stdout.strip()
    logger = MLflowLogger(ready_store(project), "exp", project / "mlartifacts")
    run_id = logger.start(name, {}, {PROCESS: process})
    return folder, run_id, process


def status(project: Path, run_id: str) -> str:
    return str(MlflowClient(ready_store(project)).get_run(run_id).info.status)


def open_now(project: Path) -> list[Path]:
    return list((project / ".litlab" / "running").glob("*"))


def test_the_next_command_closes_what_was_killed(project: Path) -> None:
    folder, run_id, _ = killed_run(project)
    uri = ready_store(project)
    os.utime(folder / RUN_FILE, (2e9, 2e9))
    assert status(project, run_id) == "RUNNING"
    result = small_run(project)
    assert RunRecord.load(folder).status == "KILLED"
    info = MlflowClient(uri).get_run(run_id).info
    assert info.status == "KILLED"
    assert info.end_time == 2_000_000_000_000  # when it was last heard of, and not today
    assert status(project, result.record.run_id) == "FINISHED"
    assert open_now(project) == []


def test_evaluate_and_ui_close_them_too(project: Path, litlab: Any, monkeypatch) -> None:
    small_run(project)
    folder, run_id, _ = killed_run(project)
    evaluate("last")
    assert RunRecord.load(folder).status == "KILLED"
    assert status(project, run_id) == "KILLED"
    folder, run_id, _ = killed_run(project, "two")

    def close_and_stop(uri: str) -> None:
        close_runs_of(uri)
        raise EnvironmentFault("no server in a test", "", "")

    monkeypatch.setattr(open_runs, "close_runs_of", close_and_stop)
    assert litlab("ui")[0] == 5
    assert RunRecord.load(folder).status == "KILLED"
    assert status(project, run_id) == "KILLED"


def test_what_another_process_has_taken_up_is_left_alone(project: Path) -> None:
    folder, run_id, _ = killed_run(project)
    client = MlflowClient(ready_store(project))
    mine = OpenRun(ready_store(project), folder)  # goes on with it
    mine.begin()
    client.set_tag(run_id, PROCESS, mine.process)
    record = RunRecord.load(folder)
    record.status, record.process = "RUNNING", mine.process
    record.save(folder)
    close_runs(client, ready_store(project))
    assert RunRecord.load(folder).status == "RUNNING"
    assert status(project, run_id) == "RUNNING"
    assert [place.name for place in open_now(project)] == [mine.process]
    mine.end("FINISHED", closed=True)
    assert open_now(project) == []


def test_another_machine_is_not_judged(project: Path, monkeypatch) -> None:
    folder, run_id, process = killed_run(project)
    file = project / ".litlab" / "running" / process / RUN_FILE
    entry = json.loads(file.read_text())
    file.write_text(json.dumps({**entry, "host": "elsewhere", "boot": "another"}))
    close_runs(MlflowClient(ready_store(project)), ready_store(project))
    assert RunRecord.load(folder).status == "RUNNING"
    assert status(project, run_id) == "RUNNING"
    # A container has a host name of its own, and the kernel of its machine.
    monkeypatch.setattr(open_runs, "_boot", lambda: "another")
    close_runs(MlflowClient(ready_store(project)), ready_store(project))
    assert status(project, run_id) == "KILLED"


def test_a_store_that_is_not_open_is_left_for_later(project: Path) -> None:
    folder, run_id, _ = killed_run(project, uri="http://me:geheim@nowhere.invalid:1")
    client = MlflowClient(ready_store(project))
    began = time.monotonic()
    close_runs(client, ready_store(project))
    assert time.monotonic() - began < 1
    assert RunRecord.load(folder).status == "KILLED"  # which needs no store
    assert status(project, run_id) == "RUNNING"
    (place,) = open_now(project)
    assert "geheim" not in (place / RUN_FILE).read_text()
    close_runs(client, "http://me:geheim@nowhere.invalid:1")  # now it answers
    assert status(project, run_id) == "KILLED"


def test_an_end_that_the_store_did_not_take_is_told_later(project: Path) -> None:
    folder, uri = project / "runs" / "one", ready_store(project)
    run = OpenRun(uri, folder)
    logger = MLflowLogger(uri, "exp", project / "mlartifacts")
    run_id = logger.start("one", {}, {PROCESS: run.process})
    run.begin()
    close_records()  # it lives
    assert len(open_now(project)) == 1
    run.end("FINISHED", closed=False)
    close_runs(logger.client, uri)
    assert status(project, run_id) == "FINISHED"
    assert open_now(project) == []


@pytest.mark.slow
@pytest.mark.parametrize("when", ["Recording._introduction", "MLflowLogger._experiment_id"])
def test_a_training_that_is_killed_before_its_first_save(project: Path, when: str) -> None:
    uri = ready_store(project)
    program = f"""
import os, signal, sys
from litlab.runs.recorder import Recording
from litlab.runs.tracking.mlflow_logger import MLflowLogger
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
{when} = die
from litlab.cli.main import main
main()
"""
    command = [sys.executable, "-c", program, "train", *SMALL]
    done = forked.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (folder,) = (project / "runs").iterdir()
    assert RunRecord.load(folder).status == "RUNNING"
    result = small_run(project)
    assert RunRecord.load(folder).status == "KILLED"
    client = MlflowClient(uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    others = [r.info.status for r in runs if r.info.run_id != result.record.run_id]
    assert others == (["KILLED"] if "introduction" in when else [])


def test_a_lock_of_a_process_that_has_gone(tmp_path: Path) -> None:
    assert not is_abandoned(tmp_path / "nowhere")
    with running(tmp_path):
        assert is_running(tmp_path)
        assert not is_abandoned(tmp_path)
    assert is_abandoned(tmp_path)
    assert not (tmp_path / ".lock").exists()
    (tmp_path / ".lock").touch()
    assert is_abandoned(tmp_path)


def test_a_disk_without_locks_is_not_judged(tmp_path: Path, monkeypatch) -> None:
    import fcntl

    def refuse(*_: Any) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with running(tmp_path):
        assert not is_running(tmp_path)
        assert not is_abandoned(tmp_path)


def test_a_lock_file_that_was_replaced_is_not_removed(tmp_path: Path) -> None:
    with running(tmp_path):
        (tmp_path / ".lock").unlink()
        with running(tmp_path):  # the folder was emptied: another may begin there
            pass
        (tmp_path / ".lock").touch()
    assert (tmp_path / ".lock").exists()
