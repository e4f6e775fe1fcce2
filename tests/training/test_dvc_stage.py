import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from litlab.runs import lock
from litlab.runs.lock import writing_to
from litlab.training.dvc_stage import Output
from litlab.utils.errors import EnvironmentFault

SRC = Path(__file__).parents[2] / "src"
STAGE = """
import signal, sys, time
from pathlib import Path
from litlab.training.dvc_stage import stop_with_dvc

def stop(*_):
    Path("stopped").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, stop)
stop_with_dvc()
Path("started").touch()
time.sleep(60)
"""
DVC = "import subprocess, sys; subprocess.run(['/bin/sh', '-c', sys.argv[1]])"
HOLD = """
import sys, time
from pathlib import Path
from litlab.runs.lock import writing_to

with writing_to(Path("runs/pipeline")):
    print("held", flush=True)
    sys.stdin.read()
"""


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.05)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SRC), **more}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the shell is known on Linux")
@pytest.mark.parametrize("shell_stays", [False, True])
def test_a_stage_stops_when_dvc_is_killed(project: Path, shell_stays: bool) -> None:
    (project / "stage.py").write_text(STAGE)
    command = f"{sys.executable} stage.py" + ("; exit $?" if shell_stays else "")
    dvc = subprocess.Popen(
        [sys.executable, "-c", DVC, command], env=environment(DVC_STAGE="train"), cwd=project
    )
    wait_for(project / "started")
    assert not (project / "stopped").exists()
    dvc.kill()  # and not waited for: a dead process that nobody has asked after is dead too
    wait_for(project / "stopped")
    dvc.wait()


def test_a_command_without_dvc_outlives_what_started_it(project: Path, monkeypatch) -> None:
    from litlab.training import dvc_stage

    monkeypatch.setattr(dvc_stage.threading, "Thread", lambda **_: pytest.fail("it watches"))
    monkeypatch.delenv("DVC_STAGE", raising=False)
    dvc_stage.stop_with_dvc()


def test_one_process_writes_to_a_place(project: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.5)
    place = project / "runs" / "pipeline"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD], env=environment(), cwd=project, text=True, **pipes
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(EnvironmentFault, match="is still writing to it") as caught:
            writing_to(place).__enter__()
        assert caught.value.where == "runs/pipeline"
        assert caught.value.fix.endswith(f"kill {other.pid}")
        assert f"waiting: process {other.pid}" in capsys.readouterr().err
        with writing_to(project / "elsewhere"):
            pass
        monkeypatch.setattr(lock, "PATIENCE", 60.0)
        os.kill(other.pid, signal.SIGKILL)  # the system gives back what a killed process held
        with writing_to(place):
            pass
        assert list((project / ".litlab" / "locks").iterdir()) == []
    finally:
        other.communicate()


def test_a_finished_output_is_moved_to_its_place(project: Path) -> None:
    output = Output(project / "runs" / "pipeline", project / ".litlab" / "state")
    (output.make() / "best.ckpt").touch()
    assert list(output.make().iterdir()) == []  # what was left of a killed one
    (output.make() / "best.ckpt").touch()
    output.place.mkdir(parents=True)
    output.publish()
    assert [path.name for path in output.place.iterdir()] == ["best.ckpt"]
    assert not output.state.exists()


def test_a_finished_output_replaces_nothing(project: Path) -> None:
    output = Output(project / "runs" / "pipeline", project / ".litlab" / "state")
    (output.make() / "best.ckpt").touch()
    output.place.mkdir(parents=True)
    (output.place / "mine.txt").touch()
    with pytest.raises(EnvironmentFault, match="cannot be moved there") as caught:
        output.publish()
    assert caught.value.fix.endswith(".litlab/state/run")
    assert (output.state / "run" / "best.ckpt").is_file()
    assert [path.name for path in output.place.iterdir()] == ["mine.txt"]
