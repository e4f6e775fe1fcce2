"""Whether a run is going on: a lock that the system releases when the process dies."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from litlab.errors import EnvironmentFault
from litlab.output import say
from litlab.paths import short, store_root

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


PATIENCE = 8.0  # seconds: a process that was told to stop saves first


def _file(folder: Path) -> Path:
    return folder / ".lock"


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Hold the folder of a run's checkpoints while it is trained.

    Raises:
        EnvironmentFault: Another process trains it.
    """
    with ExitStack() as held:
        if fcntl is not None:
            with suppress(PermissionError):  # the folder itself is writable: it goes without
                folder.mkdir(parents=True, exist_ok=True)
                file = held.enter_context(_file(folder).open("a"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    fix = "wait for it, or stop it first"
                    raise EnvironmentFault("the run is going on", str(folder), fix) from None
                except OSError:  # a disk without locks
                    pass
        try:
            yield
        finally:
            with suppress(OSError):
                _file(folder).unlink()


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Hold a folder that DVC may delete and make again meanwhile: the lock lies outside it.

    Another process that is at its end is waited for.

    Raises:
        EnvironmentFault: Another process writes to it.
    """
    name = hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:16]
    path = store_root() / ".litlab" / "locks" / name
    with ExitStack() as held:
        if fcntl is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(_locked(path, place))
            except OSError:  # a disk without locks, or one that cannot be written to
                pass
        yield


@contextmanager
def _locked(path: Path, place: Path) -> Iterator[None]:
    end, told = time.monotonic() + PATIENCE, False
    while True:
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read().strip() or "PID"  # it has not said so yet
                if time.monotonic() > end:
                    what = f"process {owner} is still writing to it"
                    fix = f"wait for it, or stop it: kill {owner}"
                    raise EnvironmentFault(what, short(place), fix) from None
            else:
                if _is(file, path):
                    file.truncate(0)
                    file.write(f"{os.getpid()}\n")
                    file.flush()
                    try:
                        yield
                    finally:
                        path.unlink(missing_ok=True)
                    return
                continue  # its owner has just deleted it
        if not told:
            say(f"waiting: process {owner} is still writing to {short(place)}")
            told = True
        time.sleep(0.2)


def _is(file: IO[str], path: Path) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def is_running(folder: Path) -> bool:
    """Return whether a process holds the run."""
    if fcntl is None or not _file(folder).exists():
        return False
    with _file(folder).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False
