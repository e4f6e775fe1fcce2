"""Whether a run is going on: a lock that the system releases when the process dies."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from litlab.errors import EnvironmentFault

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None
TRIES, PAUSE = 5, 0.02  # a process that only looks holds the lock for an instant


def _file(folder: Path) -> Path:
    return folder / ".lock"


@contextmanager
def running(folder: Path, what: str = "the run is going on") -> Iterator[None]:
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
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


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


def is_running(folder: Path) -> bool:
    """Return whether a process holds the folder."""
    return _is_held(folder) is True


def is_abandoned(folder: Path) -> bool:
    """Return whether no process holds the folder any more.

    False where locks do not work: nothing is known there.
    """
    return folder.is_dir() and _is_held(folder) is False
