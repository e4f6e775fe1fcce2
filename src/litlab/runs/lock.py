"""Whether a run is in progress: a lock that the system releases when the process dies."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from litlab.utils.errors import EnvironmentFault
from litlab.utils.locks import Held, is_locked, locked
from litlab.utils.output import say
from litlab.utils.paths import short, store_root

PATIENCE = 8.0  # seconds: a process that was told to stop saves first


@contextmanager
def running(folder: Path, what: str = "the run is in progress") -> Iterator[None]:
    """Hold a folder, that of a run's checkpoints while it is trained.

    Args:
        folder: Made if it is missing.
        what: The error where another process holds it.

    Raises:
        EnvironmentFault: Another process holds it.
    """
    with suppress(PermissionError):  # it goes without
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder / ".lock"))
        except Held:
            fix = "wait for it, or stop it first"
            raise EnvironmentFault(what, str(folder), fix) from None
        yield


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Hold a folder that DVC may delete and make again meanwhile: the lock lies outside it.

    Another process that is at its end is waited for.

    Raises:
        EnvironmentFault: Another process writes to it.
    """
    name = hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:16]
    path = store_root() / ".litlab" / "locks" / name
    with suppress(OSError):  # a disk that cannot be written to: it goes without
        path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(
                locked(
                    path,
                    PATIENCE,
                    lambda owner: say(
                        f"waiting: process {owner} is still writing to {short(place)}"
                    ),
                )
            )
        except Held as error:
            what = f"process {error.owner} is still writing to it"
            fix = f"wait for it, or stop it: kill {error.owner}"
            raise EnvironmentFault(what, short(place), fix) from None
        yield


def is_running(folder: Path) -> bool:
    """Return whether a process holds the folder."""
    return is_locked(folder / ".lock") is True


def is_abandoned(folder: Path) -> bool:
    """Return whether no process holds the folder any more.

    False where locks do not work: nothing is known there.
    """
    return folder.is_dir() and is_locked(folder / ".lock") is False
