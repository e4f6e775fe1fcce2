"""Who runs a trial, and when another may take it over."""

import os
import secrets
import socket
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from optuna.trial import FrozenTrial

from litlab.paths import store_root

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

OWNER = "owner"  # attribute of a trial
RELEASED = ""  # its owner was stopped, and has saved it


class Owner:
    """One command that runs trials of a study, known by a word of its own.

    Beside the study lies a file that the command holds locked while it lives: on the same machine
    the others know at once that it died, and need not wait for its silence.

    Attributes:
        word: What its trials are marked with.

    Args:
        study: Its name.
    """

    def __init__(self, study: str) -> None:
        self._folder = store_root() / ".litlab" / "studies" / f"{study}.owners"
        self._folder.mkdir(parents=True, exist_ok=True)
        self.word = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._held: TextIO = self._file(self.word).open("w")
        if fcntl is not None:
            with suppress(OSError):  # a disk without locks
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _file(self, word: str) -> Path:
        return self._folder / f"{word}.lock"

    def owns(self, trial: FrozenTrial) -> bool:
        """Return whether a trial is this command's."""
        return trial.user_attrs.get(OWNER) == self.word

    def may_take(self, trial: FrozenTrial, stale: set[int]) -> bool:
        """Return whether a running trial is nobody's.

        Args:
            trial: As the storage has it.
            stale: Trials that their owners have been silent about.
        """
        word = trial.user_attrs.get(OWNER, RELEASED)
        return word == RELEASED or trial._trial_id in stale or self._is_dead(word)

    def _is_dead(self, word: str) -> bool:
        """Whether a command of this machine has ended; of others nothing is known.

        A lock in a folder that several machines share may be known to one of them alone.
        """
        path, here = self._file(word), word.startswith(f"{socket.gethostname()}-")
        if fcntl is None or word == self.word or not here or not path.is_file():
            return False
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return False
        return True

    def sweep(self, needed: Collection[str]) -> None:
        """Remove the files of commands of this machine that have ended.

        Args:
            needed: Owners of trials that are running.
        """
        for path in self._folder.glob("*.lock"):
            if path.stem not in needed and self._is_dead(path.stem):
                path.unlink(missing_ok=True)

    def leave(self, *, keep: bool) -> None:
        """Give the file up.

        Args:
            keep: Whether there are trials left, which others may know by it to be nobody's.
        """
        self._held.close()
        if not keep:
            self._file(self.word).unlink(missing_ok=True)
