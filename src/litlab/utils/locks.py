"""One process at a time where MLflow itself takes no care of it."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_SQLITE_FILE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?:][^?]*)")


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Hold `<database>.lock` while a store in a SQLite file is made; other stores need none.

    Processes that find the file empty all make its tables, and all but one fail. Not reentrant.
    """
    match = _SQLITE_FILE.match(uri)
    with ExitStack() as held:  # closing the file gives the lock back
        if match is not None and fcntl is not None:
            with suppress(OSError):  # no such folder, or a disk without locks: it goes without
                file = held.enter_context(open(f"{match['path']}.lock", "a"))
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
