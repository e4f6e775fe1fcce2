"""Whether a run is going on: a lock that the system releases when the process dies."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from litlab.errors import EnvironmentFault

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


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
        yield
        with suppress(OSError):
            _file(folder).unlink()


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
