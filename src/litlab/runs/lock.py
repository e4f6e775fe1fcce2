"""Whether a run is going on: a lock that the system releases when the process dies."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from litlab.utils.errors import EnvironmentFault
from litlab.utils.output import say
from litlab.utils.paths import short, store_root

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None
TRIES, PAUSE = 5, 0.02  # a process that only looks holds the lock for an instant
PATIENCE = 8.0  # seconds: a process that was told to stop saves first


def _file(folder: Path) -> Path:
    return folder / ".lock"


@contextmanager
def running(folder: Path, what: str = "the run is in progress") -> Iterator[None]:
    """Hold a folder, that of a run's checkpoints while it is trained.

    Args:
        folder: Made if it is missing.
        what: The error where another process holds it.

    Raises:
        EnvironmentFault: Another process holds it.
    """
    held: IO[str] | None = None
    if HAS_LOCKS:
        with suppress(PermissionError):  # the folder itself is writable: it goes without
            folder.mkdir(parents=True, exist_ok=True)
            held = _take(folder, what)
    try:
        yield
    finally:
        if held is not None:
            with held, suppress(OSError):
                if _is_there(held, _file(folder)):
                    _file(folder).unlink()


def _take(folder: Path, what: str) -> IO[str]:
    for _ in range(TRIES):
        file = _file(folder).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            time.sleep(PAUSE)
            continue
        except OSError:  # a disk without locks
            return file
        if _is_there(file, _file(folder)):
            return file
        file.close()  # its holder has removed it since we opened it
    raise EnvironmentFault(what, str(folder), "wait for it, or stop it first")


def _is_there(file: IO[str], path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _is_held(folder: Path) -> bool | None:
    """Whether a process holds a folder; None where locks do not work."""
    if not HAS_LOCKS:
        return None
    try:
        with _file(folder).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False


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
        if HAS_LOCKS:
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
                if _is_there(file, path):
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


def is_running(folder: Path) -> bool:
    """Return whether a process holds the folder."""
    return _is_held(folder) is True


def is_abandoned(folder: Path) -> bool:
    """Return whether no process holds the folder any more.

    False where locks do not work: nothing is known there.
    """
    return folder.is_dir() and _is_held(folder) is False
