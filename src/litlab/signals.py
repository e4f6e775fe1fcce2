"""Ctrl-C, SIGTERM and a batch system's warning, turned into one wish: stop at the next step."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from litlab.errors import Interrupted

NAMES: dict[int, str] = {
    signal.SIGTERM: "SIGTERM",
    signal.SIGINT: "Ctrl-C",
    signal.SIGUSR1: "SIGUSR1",
}
WHERE = "training"


class Terminated(BaseException):
    """No `Exception`: what forgives a failing store must not forgive this."""


class Signals:
    """Takes SIGTERM, SIGINT and, on SLURM, SIGUSR1, while a run is on.

    Outside the fit the first of them ends the run at once. Within `noted` it is only remembered,
    for the loop to stop after a whole step; a second Ctrl-C stops at once. Within `held` it waits.

    Attributes:
        came: The first signal that came, None before.
    """

    def __init__(self) -> None:
        self.came: int | None = None
        self._phase = "raise"
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            wanted = [signal.SIGTERM, signal.SIGINT]
            wanted += [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
            # A process that was started to ignore Ctrl-C goes on doing so.
            wanted = [n for n in wanted if signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._take) for number in wanted}
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if isinstance(error, Terminated):
            raise self.interrupted("run it again: it had not begun") from None
        if error is None and self.came is not None:
            raise self.interrupted("it had come to its end")

    def _take(self, number: int, frame: FrameType | None) -> None:
        again, self.came = self.came is not None, self.came or number
        if self._phase == "held":
            return
        if self._phase == "raise":
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not again:
            hint = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
            # Not through rich, which may be in the middle of a line of its own.
            os.write(2, f"\n{NAMES[number]}: saving after this step{hint}\n".encode())

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

    def interrupted(self, saved: str, number: int | None = None) -> Interrupted:
        """Return the error that ends the program with the signal's exit code.

        Args:
            saved: What became of the work, and how to go on.
            number: The signal, if not the one that came.
        """
        number = number or self.came or signal.SIGTERM
        code = 130 if number == signal.SIGINT else 143
        return Interrupted(f"stopped by {NAMES[number]}", WHERE, saved, code)


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
