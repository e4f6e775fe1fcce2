"""Trials of one study, run by `trial_driver.py` in a process of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forked
from run_helpers import SMALL, ready_store

HERE = Path(__file__).parent
SOURCE = os.pathsep.join(map(str, (HERE.parents[1] / "src", HERE.parent, HERE)))


def begin(project: Path, *overrides: str, **orders: Any) -> forked.Popen:
    """Start the study's process; see `trial_driver.py` for the orders."""
    ready_store(project)
    content = {"overrides": [*SMALL, *overrides], **orders}
    (project / "orders.json").write_text(json.dumps(content))
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "trial_driver.py"), "orders.json"]
    return forked.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: forked.Popen, project: Path, code: int = 0) -> list[dict[str, Any]]:
    """Return what the trials said."""
    try:
        out, err = process.communicate(timeout=200)
    finally:
        process.kill()
    logs = "\n".join(log.read_text() for log in project.glob("runs/study/*.log"))
    assert process.returncode == code, err + logs
    return json.loads(out) if out else []


def run(project: Path, *overrides: str, **orders: Any) -> list[dict[str, Any]]:
    """Begin and finish."""
    return finish(begin(project, *overrides, **orders), project)


def epochs(project: Path, name: str = "trial-0") -> list[int]:
    """The epochs whose values the study was told, in order."""
    lines = [line.split() for line in (project / "epochs").read_text().splitlines()]
    return [int(epoch) for one, epoch, _ in lines if one == name]


def pids(project: Path) -> list[int]:
    """The processes of the trials, and those that they started."""
    first = json.loads((project / "pids").read_text())
    return first + [child for pid in first for child in children(pid)]


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(number) for number in found]


def is_alive(pid: int) -> bool:
    try:  # one that has ended stays until its parent takes note of it
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def until(condition: Any, seconds: float = 60) -> float:
    """Wait; return how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began
