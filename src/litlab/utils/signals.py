"""Ctrl-C, SIGTERM, a closed terminal and a batch system's warning: a request to stop, never lost.

A signal's handler can raise, but Python drops an exception that is raised within a garbage
collection, a destructor, a weak reference's callback (each import ends with one) or a C callback,
and libraries have `except: pass`. Here the request is kept as well, and raised again when its
exception was dropped.
"""

import _thread
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, Self

from litlab.utils.errors import Interrupted, LitlabError

# Windows has neither: a number that no signal has.
HANGUP: int = getattr(signal, "SIGHUP", -1)  # the terminal was closed, or the connection lost
BATCH_WARNING: int = getattr(signal, "SIGUSR1", -2)
NAMES: dict[int, str] = {
    signal.SIGTERM: "SIGTERM",
    signal.SIGINT: "Ctrl-C",
    HANGUP: "SIGHUP",
    BATCH_WARNING: "SIGUSR1",
}
EXIT_CODES: dict[int, int] = {HANGUP: 129, signal.SIGINT: 130}  # of the others, 143
WHERE = "training"
POLL_SECONDS = 0.05  # between two looks at whether a raised exception is still on its way
_to_clean_up: list[bool] = []


class Terminated(BaseException):
    """No `Exception`: what forgives a failing store must not forgive this."""


class _CtrlC(KeyboardInterrupt):
    """Python's own cannot be weakly referenced."""


class Signals:
    """Takes SIGTERM, SIGINT, SIGHUP and, on SLURM, SIGUSR1, while a run is on.

    Outside the fit the first of them ends the run at once. Within `noted` it is only remembered,
    for the loop to stop after a whole step; a second Ctrl-C stops at once. Within `held` it waits.

    Attributes:
        came: The first signal that came, None before.
    """

    def __init__(self) -> None:
        self.came: int | None = None
        self._phase = "raise"
        self._raised_in = ""  # the phase
        self._repeats = False  # whether the next signal is our own
        self._before: dict[int, Any] = {}
        self._outer: Signals | None = None
        self._open, self._closing = False, threading.Lock()
        self._hook = sys.unraisablehook

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            wanted: list[int] = [signal.SIGTERM, signal.SIGINT, HANGUP]
            wanted += [BATCH_WARNING] if "SLURM_JOB_ID" in os.environ else []
            # A process that was started to ignore a signal (nohup) continues to ignore it.
            wanted = [n for n in wanted if n > 0 and signal.getsignal(n) is not signal.SIG_IGN]
            owners = (getattr(signal.getsignal(n), "__self__", None) for n in wanted)
            self._outer = next((o for o in owners if isinstance(o, Signals)), None)
            if self._outer is not None and self._outer.came is not None:
                self._outer._raise(self._outer.came)  # it was dropped
            self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
            self._open, self._phase = True, "held"  # an error here would not get to __exit__
            self._before = {number: signal.signal(number, self._take) for number in wanted}
            if self.came is not None:
                self.__exit__(Terminated, Terminated(), None)
        self._phase = "raise"
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._phase = "held"
        with self._closing:
            self._open = False
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if sys.unraisablehook == self._unraisable:
            sys.unraisablehook = self._hook
        if self._outer is not None and self._outer.came is None:
            self._outer.came = self.came  # in case that this error is dropped on its way
        self._conclude(error)

    def _conclude(self, error: BaseException | None) -> None:
        if isinstance(error, Terminated):
            raise self.interrupted("run it again: nothing had started") from None
        if error is None and self.came is not None:
            raise self.interrupted("it had already finished")

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._repeats:
            self._repeats = False
            if self._phase == self._raised_in:  # in another, `came` is looked at
                self._raise(number)
            return
        again, self.came = self.came is not None, self.came or number
        if self._phase == "held":
            return
        if self._phase == "raise" or (again and number == signal.SIGINT):
            self._raise(number)
        if not again:
            hint = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
            # Not through rich, which may be in the middle of a line of its own.
            write(f"\n{NAMES[number]}: saving after this step{hint}")

    def _raise(self, number: int) -> NoReturn:
        # Without a name for it here: this frame, in its traceback, would keep it alive.
        raise self._watched(_CtrlC() if number == signal.SIGINT else Terminated(), number)

    def _watched(self, error: BaseException, number: int) -> BaseException:
        self._raised_in = self._phase
        with suppress(RuntimeError):  # no more threads can be started
            _thread.start_new_thread(self._insist, (weakref.ref(error), number))
        return error

    def _insist(self, raised: "weakref.ref[BaseException]", number: int) -> None:
        """Send the signal again when its exception is gone, and what it was to end is not."""
        while self._open and raised() is not None:
            time.sleep(POLL_SECONDS)
        with self._closing:
            if self._open:
                self._repeats = True
                if hasattr(signal, "pthread_kill"):
                    signal.pthread_kill(threading.main_thread().ident or 0, number)
                else:  # Windows: this does not wake a call that waits
                    _thread.interrupt_main(signal.Signals(number))

    def _unraisable(self, found: Any) -> None:
        """Leave out Python's note on a dropped exception of ours: it is raised again."""
        if not isinstance(found.exc_value, _CtrlC | Terminated):
            self._hook(found)

    @contextmanager
    def _in_phase(self, phase: str) -> Iterator[None]:
        before, self._phase = self._phase, phase
        try:
            yield
        finally:
            self._phase = before

    def noted(self) -> Any:
        """Within it a signal is remembered; the loop looks at `came`."""
        return self._in_phase("noted")

    def held(self) -> Any:
        """Within it a signal waits until the run's record is closed."""
        return self._in_phase("held")

    def interrupted(self, saved: str, number: int | None = None, where: str = WHERE) -> Interrupted:
        """Return the error that ends the program with the signal's exit code.

        Args:
            saved: What became of the work, and how to resume it.
            number: The signal, if not the one that came.
            where: What was stopped.
        """
        number = number or self.came or signal.SIGTERM
        code = EXIT_CODES.get(number, 143)
        return Interrupted(f"stopped by {NAMES[number]}", where, saved, code)


class CommandSignals(Signals):
    """Takes the signals of the whole command line, outside of what has `Signals` of its own.

    Within an import, where an exception may be dropped or may abort a C library that is being set
    up, the process ends at once: nothing is open there, unless it is `cleaning_up`.
    """

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._phase == "raise" and not _to_clean_up and _importing(frame):
            if os.environ.get("LOCAL_RANK", "0") == "0":
                write(str(self._error(number)))
            os._exit(EXIT_CODES.get(number, 143))
        super()._take(number, frame)

    def _conclude(self, error: BaseException | None) -> None:
        """Say what ended the command, also where an error of a library has taken its place."""
        if self.came is not None and not isinstance(error, LitlabError | SystemExit):
            raise self._error(self.came) from error

    def _error(self, number: int) -> Interrupted:
        return self.interrupted("run it again", number, "litlab")


@contextmanager
def cleaning_up() -> Iterator[None]:
    """Within it a signal raises in any case: temporary files are there to be removed."""
    _to_clean_up.append(True)
    try:
        yield
    finally:
        _to_clean_up.pop()


def _importing(frame: FrameType | None) -> bool:
    """Return whether a stack of calls is within an import."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def write(line: str) -> None:
    """Write a line to standard error, whatever has become of it."""
    try:
        os.write(2, f"{line}\n".encode())
    except OSError:
        detach()


def detach() -> None:
    """Let what is written to standard error vanish: its terminal, or its `| tee`, has gone."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def requeue() -> str:
    """Put this SLURM job back into the queue, and say so; empty where there is none.

    `#SBATCH --signal=USR1@90` makes SLURM send SIGUSR1 ninety seconds before the time limit.
    """
    job = os.environ.get("SLURM_JOB_ID")
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if not job or os.environ.get("SLURM_PROCID", "0") != "0":
        return ""
    job = f"{array}_{task}" if array and task else job
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return f"SLURM job {job} could not be requeued: {error}"
    return f"SLURM job {job} is requeued"
