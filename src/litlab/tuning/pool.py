"""The processes that train: begun, listened to, taken up again when they are killed."""

import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from litlab.checkpoint.manifest import config_hash, manifest_of
from litlab.errors import CheckpointError
from litlab.output import say
from litlab.run_folder import BEST, LAST, PREVIOUS
from litlab.run_lock import is_running
from litlab.schema import Config
from litlab.tuning.devices import Slot
from litlab.tuning.worker import Worker, start

ATTEMPTS = 3  # of a training whose process is killed
STOPPED = (130, 143)  # exit codes of a training that was asked to stop, and has saved
ASK_AGAIN = 5.0  # seconds after which a training is asked again to stop
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
        given_up: Whether nobody waits for its result any more.
    """

    name: str
    config: Config
    key: Any
    slot: Slot
    worker: Worker
    attempts: int = 1
    given_up: bool = False


Said = dict[str, Any] | None  # what a training ended with; None if it was stopped


class Pool:
    """As many trainings at a time as there are slots.

    Attributes:
        free: Slots without a training.
        jobs: The trainings.
        stops: Says whether trainings that end now were stopped, by a signal to all of us.

    Args:
        folder: Where their folders and logs lie.
        slots: One for each that may run at the same time.
        data: Checksum of the data.
        measure: Whether the time of a forward pass is wanted.
    """

    def __init__(
        self, folder: Path, slots: Sequence[Slot], data: str, *, measure: bool = False
    ) -> None:
        self.folder, self.data, self.measure = folder, data, measure
        self.free = list(slots)
        self.jobs: list[Job] = []
        self.stops: Callable[[], bool] = lambda: False

    def begin(self, name: str, config: Config, key: Any, *, fresh: bool) -> None:
        """Start a training in a free slot; one that was interrupted there goes on.

        Args:
            name: Of its folder, and of its log. Where the folder is another's, it has a number.
            config: What is trained.
            key: What the training is to the caller.
            fresh: Whether it was never begun before.
        """
        number = 2
        while not self._is_free(self.folder / name, config, fresh):
            name, number = f"{name.rpartition('~')[0] or name}~{number}", number + 1
        slot = self.free.pop(0)
        self.jobs.append(Job(name, config, key, slot, self._start(name, config, slot)))

    def _is_free(self, folder: Path, config: Config, fresh: bool) -> bool:
        """Whether a folder is not there, or is that of the same training.

        Another process may hold it: a machine that stood still and comes back. Or it is of another
        study of the same name, whose results are not ours.
        """
        if is_running(folder):
            return False
        if fresh:
            return not folder.exists()
        kept = [folder / name for name in (LAST, PREVIOUS, BEST) if (folder / name).is_file()]
        with suppress(CheckpointError):  # a damaged one is the training's to deal with
            for checkpoint in kept[:1]:
                manifest = manifest_of(checkpoint)
                return (manifest["config"], manifest["data"]) == (config_hash(config), self.data)
        return True

    def _start(self, name: str, config: Config, slot: Slot) -> Worker:
        log = self.folder / f"{name}.log"
        return start(config, self.folder / name, slot, log, measure=self.measure)

    def listen(self, on_epoch: Callable[[Job, int, float], bool]) -> list[tuple[Job, Said]]:
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
            try:
                said = job.worker.line.recv()
            except (EOFError, ConnectionResetError):
                result = self._ended(job)
                if job not in self.jobs and not job.given_up:
                    ended.append((job, result))
                continue
            if "epoch" in said:
                _answer(job, not job.given_up and on_epoch(job, said["epoch"], said["value"]))
            else:
                job.worker.said = said
        return ended

    def _ended(self, job: Job) -> Said:
        """Return what a training ended with; it goes on at once if its process was killed."""
        code = os.waitstatus_to_exitcode(os.waitpid(job.worker.pid, 0)[1])
        job.worker.line.close()
        said = job.worker.said
        unfinished = not said or said.get("code") in STOPPED
        stopped = job.given_up or self.stops()
        if unfinished and not stopped and job.attempts < ATTEMPTS:
            say(f"{job.name}: its process ended with {_reason(code)}; it goes on")
            job.worker = self._start(job.name, job.config, job.slot)
            job.attempts += 1
            return None
        self.jobs.remove(job)
        self.free.append(job.slot)
        if not unfinished:
            return said
        if stopped:
            return None
        return {"failed": f"its process ended with {_reason(code)}, {ATTEMPTS} times"}

    def give_up(self, job: Job) -> None:
        """Let a training end that is another's by now."""
        job.given_up = True
        job.worker.stop()

    def stop(self) -> list[tuple[Job, Said]]:
        """Let every training save and end; return all, with what those that had ended say."""
        self.stops = lambda: True
        stopped: list[tuple[Job, Said]] = []
        asked = -math.inf
        while self.jobs:
            if time.monotonic() - asked > ASK_AGAIN:
                asked = time.monotonic()
                for job in self.jobs:
                    job.worker.stop()
                    job.worker.stop(signal.SIGCONT)  # one that stands still could not
            stopped += self.listen(lambda *_: False)
        return stopped


def _answer(job: Job, answer: bool) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # it has died, as its line will say
        job.worker.line.send(answer)


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
