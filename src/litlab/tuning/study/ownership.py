"""Who runs a trial, and when another may take it over."""

import os
import secrets
import shutil
import socket
import time
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path

from optuna.trial import FrozenTrial

from litlab.runs.lock import is_abandoned, running
from litlab.utils.paths import store_root

OWNER = "owner"  # attribute of a trial
NEW = 60.0  # seconds in which a command has surely locked the folder that it has made
RELEASED = ""  # its owner was stopped, and has saved it


def owners_folder(study: str) -> Path:
    """Return where the commands that run a study have their folders."""
    return store_root() / ".litlab" / "studies" / f"{study}.owners"


class Owner:
    """One command that runs trials of a study, known by a word of its own.

    Beside the study lies a folder that the command holds locked while it lives, and its trainings
    after it: on the same machine the others know at once that it died, and need not wait for its
    silence.

    Attributes:
        word: What its trials are marked with.

    Args:
        study: Its name.
    """

    def __init__(self, study: str) -> None:
        self._folder = owners_folder(study)
        self.word = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._held = ExitStack()
        self._held.enter_context(running(self._place(self.word)))

    def _place(self, word: str) -> Path:
        return self._folder / word

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
        place, here = self._place(word), word.startswith(f"{socket.gethostname()}-")
        if place.parent != self._folder or ".." in place.parts:  # not a word of ours
            return False
        return here and word != self.word and is_abandoned(place)

    def sweep(self, needed: Collection[str]) -> None:
        """Remove what commands of this machine left that have ended.

        Args:
            needed: Owners of trials that are running.
        """
        for place in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another sweeps too
                old = time.time() - place.stat().st_mtime > NEW
                if old and place.name not in needed and self._is_dead(place.name):
                    shutil.rmtree(place, ignore_errors=True)

    def leave(self, *, keep: bool) -> None:
        """Give the folder up.

        Args:
            keep: Whether there are trials left, which others may know by it to be nobody's.
        """
        self._held.close()
        if not keep:
            shutil.rmtree(self._place(self.word), ignore_errors=True)
