"""Who runs a trial, and when another may take it over."""

import os
import secrets
import socket
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
        """Whether a command of this machine has ended; of others nothing is known."""
        path = self._file(word)
        if fcntl is None or word == self.word or not path.is_file():
            return False
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return False
        return True

    def leave(self) -> None:
        """Give the file up."""
        self._held.close()
        with suppress(OSError):
            self._file(self.word).unlink()
