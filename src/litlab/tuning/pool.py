"""The processes that train: begun, listened to, taken up again when they are killed."""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from litlab.output import say
from litlab.run_lock import is_running
from litlab.schema import Config
from litlab.tuning.devices import Slot
from litlab.tuning.worker import Worker, start

ATTEMPTS = 3  # of a training whose process is killed
STOPPED = (130, 143)  # exit codes of a training that was asked to stop, and has saved
PAUSE = 1.0  # seconds without news after which the caller may look at the clock


@dataclass
class Job:
    """A training in a process of its own.

    Attributes:
        name: Of its folder.
        config: What is trained.
        key: What it is to the one who began it.
        slot: The devices it has.
        worker: Its process.
        attempts: How often it was started.
    """

    name: str
    config: Config
    key: Any
    slot: Slot
    worker: Worker
    attempts: int = 1


class Pool:
    """As many trainings at a time as there are slots.

    Args:
        folder: Where their folders and logs lie.
        slots: One for each that may run at the same time.
        measure: Whether the time of a forward pass is wanted.
    """

    def __init__(self, folder: Path, slots: Sequence[Slot], *, measure: bool) -> None:
        self.folder, self.measure = folder, measure
        self.free = list(slots)
        self.jobs: list[Job] = []
        self.stopping = False

    def begin(self, name: str, config: Config, key: Any) -> None:
        """Start a training in a free slot; one that was interrupted there goes on."""
        slot = self.free.pop(0)
        self.jobs.append(Job(name, config, key, slot, self._start(name, config, slot)))

    def unused(self, name: str) -> str:
        """Return a folder's name, with a number after it where another process holds the folder.

        A machine that stood still for too long may come back to the training it had.
        """
        candidate, number = name, 2
        while is_running(self.folder / candidate):
            candidate, number = f"{name}-{number}", number + 1
        return candidate

    def _start(self, name: str, config: Config, slot: Slot) -> Worker:
        log = self.folder / f"{name}.log"
        return start(config, self.folder / name, slot, log, measure=self.measure)

    def listen(
        self, on_epoch: Callable[[Job, int, float], bool]
    ) -> list[tuple[Job, dict[str, Any]]]:
        """Take in what the trainings say, for a moment.

        Args:
            on_epoch: Told each epoch's value, says whether the training is to end there.

        Returns:
            Those that have ended, with what they ended with. "failed" tells why one did not finish.
        """
        ended = []
        by_line = {job.worker.line: job for job in self.jobs}
        for line in wait(list(by_line), timeout=PAUSE):
            job = by_line[line]  # type: ignore[index]
            if job not in self.jobs:  # given up since
                continue
            try:
                said = job.worker.line.recv()
            except (EOFError, ConnectionResetError):
                result = self._ended(job)
                if result is not None:
                    ended.append((job, result))
                continue
            if "epoch" in said:
                ends = on_epoch(job, said["epoch"], said["value"])
                if job in self.jobs:  # it may have been given up
                    _answer(job, ends)
            else:
                job.worker.said = said
        return ended

    def _ended(self, job: Job) -> dict[str, Any] | None:
        """Return what a training ended with; None if it is to go on, now or another time."""
        code = os.waitstatus_to_exitcode(os.waitpid(job.worker.pid, 0)[1])
        job.worker.line.close()
        said = job.worker.said
        unfinished = not said or said.get("code") in STOPPED
        if unfinished and not self.stopping and job.attempts < ATTEMPTS:
            say(f"{job.name}: its process ended with {_reason(code)}; it goes on")
            job.worker = self._start(job.name, job.config, job.slot)
            job.attempts += 1
            return None
        self.jobs.remove(job)
        self.free.append(job.slot)
        if not unfinished:
            return said
        if self.stopping:
            return None
        return {"failed": f"its process ended with {_reason(code)}, {ATTEMPTS} times"}

    def give_up(self, job: Job) -> None:
        """End a training that is another's by now: at once, for it need not save."""
        job.worker.stop(signal.SIGKILL)
        os.waitpid(job.worker.pid, 0)
        job.worker.line.close()
        self.jobs.remove(job)
        self.free.append(job.slot)

    def stop(self) -> list[tuple[Job, dict[str, Any] | None]]:
        """Let every training save and end; return all, with what those that had ended say."""
        self.stopping = True
        for job in self.jobs:
            job.worker.stop()
            job.worker.stop(signal.SIGCONT)  # one that stands still could not
        stopped = []
        for job in list(self.jobs):
            while job in self.jobs:
                try:
                    said = job.worker.line.recv()
                except (EOFError, OSError):
                    stopped.append((job, self._ended(job)))
                    continue
                if "epoch" in said:
                    _answer(job, False)
                else:
                    job.worker.said = said
        return stopped


def _answer(job: Job, answer: bool) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # it has died, as its line will say
        job.worker.line.send(answer)


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
