"""Locks between processes: a file that the system unlocks when its holder dies, however it dies.

Not `filelock.FileLock`: a forked process loses it, whereas the trainings of a study must keep the
study's lock when its own process is killed. `lock_descriptor` of the same library is the system's
lock and nothing else, on Windows too.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

MOMENT = 0.1  # seconds: a process that only looks whether a lock is held takes it for an instant
POLL = 0.02
_SQLITE_FILE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?:][^?]*)")


class Held(Exception):
    """Another process holds the lock.

    Attributes:
        owner: Its process id, or "PID" if it has not been written yet.
    """

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


@contextmanager
def locked(
    path: Path, patience: float = MOMENT, waiting: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a lock file, which is removed at the end; where locks do not work, go without.

    Not reentrant. Processes forked meanwhile hold it too, until the last of them has ended.

    Args:
        path: The file, in a folder that exists.
        patience: Seconds to wait for another process.
        waiting: Called once, with the owner's process id, if the wait is longer than a moment.

    Raises:
        Held: Another process still holds it.
    """
    descriptor = _take(path, patience, waiting)
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):  # Windows does not remove a file that is open
                if _is_at(descriptor, path):
                    path.unlink()
            os.close(descriptor)


def locked_database(uri: str) -> AbstractContextManager[None]:
    """Hold `<database>.lock` if an address is that of a SQLite file; other stores need none.

    Processes that find the file empty all make its tables, and all but one fail.
    """
    match = _SQLITE_FILE.match(uri)
    return locked(Path(f"{match['path']}.lock"), float("inf")) if match else nullcontext()


def is_locked(path: Path) -> bool | None:
    """Return whether a process holds a lock file; None where that cannot be found out."""
    if not path.exists():
        return False
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        return not _lock(descriptor, MOMENT)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, patience: float) -> bool:
    """Lock a file in that time, or return False."""
    from filelock import lock_descriptor  # 20 ms, which not every command needs to spend

    end = time.monotonic() + patience
    while not lock_descriptor(descriptor, blocking=False):
        if time.monotonic() > end:
            return False
        time.sleep(POLL)
    return True


def _take(path: Path, patience: float, waiting: Callable[[str], None] | None) -> int | None:
    begun = time.monotonic()
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            taken = _lock(descriptor, MOMENT)
        except OSError:  # a disk without locks
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        if taken and _is_at(descriptor, path):
            _write_owner(descriptor)
            return descriptor
        owner = _read_owner(descriptor)
        os.close(descriptor)
        if taken:  # its holder has removed it since it was opened
            continue
        if time.monotonic() - begun > patience:
            raise Held(owner)
        if waiting is not None:
            waiting(owner)
            waiting = None


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write_owner(descriptor: int) -> None:
    with suppress(OSError):  # a full disk; it only helps to explain
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 1, os.SEEK_SET)  # Windows lets nobody read the first byte, the lock
        os.write(descriptor, str(os.getpid()).encode())


def _read_owner(descriptor: int) -> str:
    with suppress(OSError):
        os.lseek(descriptor, 1, os.SEEK_SET)
        return os.read(descriptor, 32).decode(errors="replace").strip() or "PID"
    return "PID"
