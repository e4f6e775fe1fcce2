"""A stage that DVC runs, and what becomes of it when DVC alone is killed.

DVC deletes a stage's outputs before it runs the stage. A killed DVC leaves the stage's process
going: the next `dvc repro` must neither delete what that process writes nor train beside it.
"""

import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from litlab.utils.errors import EnvironmentFault
from litlab.utils.output import say
from litlab.utils.paths import short

SHELLS = {"sh", "ash", "bash", "dash", "fish", "ksh", "zsh"}
SECONDS = 1.0  # between two looks at whether DVC is there


@dataclass(frozen=True)
class Output:
    """An output of a stage, made elsewhere and moved to its place when it is whole.

    Attributes:
        place: Where it belongs: an empty folder, or none yet.
        state: Where what resumes an unfinished run lies.
    """

    place: Path
    state: Path

    def make(self) -> Path:
        """Return an empty folder to train in; what a killed process left there is deleted."""
        folder = self.state / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder.resolve()

    def publish(self) -> None:
        """Move the finished run to its place, and delete the state.

        Raises:
            EnvironmentFault: There is something else in its place by now, or it cannot be written.
        """
        folder = self.state / "run"
        try:
            with suppress(FileNotFoundError):
                self.place.rmdir()
            shutil.move(folder, self.place)
        except OSError as error:
            what = f"the finished run cannot be moved there: {error.strerror or error}"
            fix = f"move it from {short(folder)}"
            raise EnvironmentFault(what, short(self.place), fix) from None
        shutil.rmtree(self.state, ignore_errors=True)

    def tidy(self) -> None:
        """Delete folders that are empty: a training that was refused leaves nothing."""
        for folder in (self.state / "run", self.state, self.place):
            with suppress(OSError):
                folder.rmdir()


def stop_with_dvc() -> None:
    """End this process as SIGTERM would, with a save, once the DVC that runs it is gone.

    Without DVC this does nothing.
    """
    if "DVC_STAGE" not in os.environ:
        return
    child, parent = os.getpid(), os.getppid()
    if _name_of(parent) in SHELLS:  # most give way to the command, others wait for it
        child, parent = parent, _parent_of(parent)
    threading.Thread(target=_watch, args=(child, parent), name="dvc", daemon=True).start()


def _watch(child: int, parent: int) -> None:
    while _parent_of(child) == parent:
        time.sleep(SECONDS)
    try:
        say("DVC has ended: stopping; `dvc repro` resumes this stage")
    finally:  # what reads standard error may be gone as well
        os.kill(os.getpid(), signal.SIGTERM)


def _parent_of(process: int) -> int:
    """Return a process's parent; 0 if that cannot be known, or the process is gone."""
    if process == os.getpid():
        return os.getppid()
    with suppress(OSError, ValueError, IndexError):
        # The name, in parentheses, may hold anything.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _name_of(process: int) -> str:
    """Return a program's name, on Linux."""
    with suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().strip()
    return ""
