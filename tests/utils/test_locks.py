"""One lock for all processes: refused, waited for, given back at death, kept by forked children."""

import os
import signal
import time
from pathlib import Path

import pytest

from litlab.utils import locks
from litlab.utils.locks import Held, is_locked, locked


def holder(path: Path, *, fork: bool = False) -> tuple[int, int]:
    """Start a process that holds a lock; return its id, and that of its own child."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        with locked(path):
            own = os.fork() if fork else -1
            if own != 0:
                os.write(write, f"{own}\n".encode())
            time.sleep(60)
        os._exit(0)
    with os.fdopen(read) as pipe:
        os.close(write)
        return child, int(pipe.readline())


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def test_the_holder_is_named_and_its_death_noticed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child, _ = holder(path)
    told: list[str] = []
    try:
        assert is_locked(path)
        with pytest.raises(Held) as caught, locked(path, 0.3, told.append):
            pass
        assert [caught.value.owner] == told == [str(child)]
    finally:
        kill(child)
        os.waitpid(child, 0)
    assert is_locked(path) is False
    with locked(path):
        assert is_locked(path)
    assert not path.exists()


def test_a_forked_process_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child, own = holder(path, fork=True)
    try:
        kill(child)
        os.waitpid(child, 0)
        assert is_locked(path)
    finally:
        kill(own)
    end = time.monotonic() + 20
    while is_locked(path) and time.monotonic() < end:
        time.sleep(0.05)
    assert is_locked(path) is False


def test_waiting_ends_when_the_holder_does(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child, _ = holder(path)
    told: list[str] = []

    def end(owner: str) -> None:
        told.append(owner)
        kill(child)

    with locked(path, float("inf"), end):
        assert told == [str(child)]
    os.waitpid(child, 0)


def test_where_no_file_can_be_made_it_goes_without(tmp_path: Path, monkeypatch) -> None:
    with locked(tmp_path / "absent" / "lock"):
        pass
    assert is_locked(tmp_path / "absent" / "lock") is False
    (tmp_path / "lock").touch()
    monkeypatch.setattr(locks.os, "open", lambda *_: (_ for _ in ()).throw(PermissionError()))
    assert is_locked(tmp_path / "lock") is None
    with locked(tmp_path / "lock"):
        pass
