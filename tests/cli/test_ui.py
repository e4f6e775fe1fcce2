"""`litlab ui`: nothing of MLflow's server outlives it."""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litlab.cli import ui
from litlab.utils.errors import EnvironmentFault
from run_helpers import ready_store

SRC = str(Path(ui.__file__).parents[1])
MARK = "LITLAB_TEST_MARK"
# A server with two processes: the second listens, and does not end when it is asked to.
CHILD = """
import signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(600)
"""
SERVER = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {CHILD!r}, sys.argv[1]])
"""
LITLAB = f"""
import sys
from litlab.cli import main as cli
from litlab.cli import ui
ui._command = lambda store, host, port: [sys.executable, "-c", {SERVER!r}, str(port)]
cli.main()
"""
ENDS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGKILL: -9}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def marked(mark: str) -> list[int]:
    """Every process that was started by one with this mark, whatever has become of that one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_that_all_end(project: Path, number: signal.Signals, *python: str) -> str:
    mark, port = uuid.uuid4().hex, free_port()
    process = subprocess.Popen(
        [sys.executable, *python, "ui", "--port", str(port)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": SRC, MARK: mark},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        until(lambda: answers(port), 240)
        assert len(marked(mark)) > 3
        process.send_signal(number)
        err = process.communicate(timeout=60)[1]
        assert process.returncode == ENDS[number]
        if number == signal.SIGKILL:  # the others notice it
            until(lambda: not marked(mark), 30)
        assert marked(mark) == []
        assert not answers(port)
        return err
    finally:
        for left in marked(mark):
            os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize("number", ENDS)
def test_no_process_is_left(project: Path, number: signal.Signals) -> None:
    err = check_that_all_end(project, number, "-c", LITLAB)
    assert "Traceback" not in err
    assert err.startswith("MLflow's pages: http://127.0.0.1:")
    assert ("\nerror: stopped by " in err) == (number != signal.SIGKILL)


@pytest.mark.slow  # with one signal: MLflow's server takes a minute to start
def test_no_process_of_mlflow_is_left(project: Path) -> None:
    ready_store(project)
    check_that_all_end(project, signal.SIGTERM, "-m", "litlab")


def test_it_listens_on_this_machine_only(
    litlab: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(ui, "serve", lambda *given: asked.append(given))
    assert litlab("ui")[0] == 0
    assert litlab("ui", "--host", "0.0.0.0", "--port", "80")[0] == 0
    store = f"sqlite:///{project}/mlflow.db"
    assert asked == [(store, "127.0.0.1", 5000), (store, "0.0.0.0", 80)]
    command = ui._command(store, "127.0.0.1", 5000)
    assert command[command.index("--host") + 1] == "127.0.0.1"


def test_a_port_that_is_in_use(litlab: Any, project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, err = litlab("ui", "--port", str(port))
    assert code == 5
    assert err.startswith(f"error: the port is in use | --port {port} | choose another")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--host", "no.such.host.invalid"), "unknown host"),
        (("--host", "192.0.2.1"), "the address does not belong to this machine"),
        (("--host", "a" * 300), "unknown host"),
        (("--host", ""), "unknown host"),
        (("--port", "0"), "Invalid value for '--port'"),
        (("--port", "65536"), "Invalid value for '--port'"),
        (("--port", "-1"), "Invalid value for '--port'"),
    ],
)
def test_an_address_that_cannot_be(
    litlab: Any, project: Path, arguments: tuple[str, ...], says: str
) -> None:
    code, _, err = litlab("ui", *arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1


def test_a_server_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "_command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(EnvironmentFault, match="ended with exit code 3"):
        ui.serve("sqlite://", "127.0.0.1", free_port())
