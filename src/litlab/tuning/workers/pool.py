"""The processes that train: begun, listened to, taken up again when they are killed."""

import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from litlab.config.schema import Config
from litlab.runs.checkpoint.io import probe
from litlab.runs.checkpoint.metadata import config_hash, manifest_of
from litlab.runs.folder import BEST, LAST, PREVIOUS
from litlab.runs.lock import is_running
from litlab.tuning.workers.devices import Slot
from litlab.tuning.workers.worker import Worker, start
from litlab.utils.errors import STOPPED, CheckpointError, EnvironmentFault
from litlab.utils.output import say

ATTEMPTS = 3  # of a training whose process is killed, or that fails for reasons of the machine
MACHINE = EnvironmentFault.exit_code  # of one whose disk, folder or store failed
FIX = "free the disk or make the folder writable; then run the same command to resume"
ROOM = 2**20  # bytes without which no training is begun
ASK_AGAIN = 5.0  # seconds after which a training is asked again to stop
PAUSE = 1.0  # seconds without news after which the caller may look at the clock


@dataclass(eq=False)
class Job:
    """A training in a process of its own.

    Attributes:
        name: Of its folder.
        config: What is trained.
        key: What it is to the one who began it.
        slot: The devices it has.
        worker: Its process, once it was started.
        attempts: How often it was started.
        given_up: Whether nobody waits for its result any more.
    """

    name: str
    config: Config
    key: Any
    slot: Slot
    worker: Worker = field(init=False)
    attempts: int = 0
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
        self._left: list[Job] = []  # that could not be started
        self._untold: list[tuple[Job, Said]] = []  # that ended when another's fault was raised
        self.stops: Callable[[], bool] = lambda: False

    def begin(self, name: str, config: Config, key: Any, *, fresh: bool) -> None:
        """Start a training in a free slot; an interrupted one is resumed.

        Args:
            name: Of its folder, and of its log. Where the folder is another's, it has a number.
            config: What is trained.
            key: What the training is to the caller.
            fresh: Whether it was never begun before.

        Raises:
            EnvironmentFault: There is no room in the folder, or no process can be started.
        """
        number = 2
        while not self._is_free(self.folder / name, config, fresh):
            name, number = f"{name.rpartition('~')[0] or name}~{number}", number + 1
        self._start(Job(name, config, key, self.free.pop(0)))

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

    def _start(self, job: Job) -> None:
        """Start a training's process, and make the folder again if somebody has removed it."""
        self._left.append(job)
        log = self.folder / f"{job.name}.log"
        try:
            probe(self.folder, ROOM)
            job.worker = start(
                job.config, self.folder / job.name, job.slot, log, measure=self.measure
            )
        except EnvironmentFault as error:
            raise EnvironmentFault(error.what, error.where, FIX) from None
        except OSError as error:
            what = f"no process could be started for a training: {error.strerror}"
            fix = "raise the limits (ulimit -u, ulimit -n); then run the same command to resume"
            raise EnvironmentFault(what, job.name, fix) from None
        self._left.remove(job)
        self.jobs.append(job)
        job.attempts += 1

    def listen(self, on_epoch: Callable[[Job, int, float], bool]) -> list[tuple[Job, Said]]:
        """Take in what the trainings say, for a moment.

        Args:
            on_epoch: Told each epoch's value, says whether the training is to end there.

        Returns:
            Those that have ended, with what they ended with. "failed" tells why one did not finish.

        Raises:
            EnvironmentFault: The disk is full, or cannot be written to: every training would fail.
        """
        ended, self._untold = self._untold, []
        by_line = {job.worker.line: job for job in self.jobs}
        for line in wait(list(by_line), timeout=PAUSE):
            job = by_line[line]  # type: ignore[index]
            try:
                said = job.worker.line.recv()
            except (EOFError, ConnectionResetError):
                try:
                    result = self._ended(job)
                except EnvironmentFault:
                    self._untold = ended  # what others ended with is not lost with it
                    raise
                if job not in self.jobs and not job.given_up:
                    ended.append((job, result))
                continue
            if "epoch" in said:
                _answer(job, not job.given_up and on_epoch(job, said["epoch"], said["value"]))
            else:
                job.worker.said = said
        return ended

    def _ended(self, job: Job) -> Said:
        """Return what a training ended with; one that was killed is started again at once."""
        code = os.waitstatus_to_exitcode(os.waitpid(job.worker.pid, 0)[1])
        job.worker.line.close()
        self.jobs.remove(job)
        said = job.worker.said
        if said and said.get("code") not in (*STOPPED, MACHINE):
            self.free.append(job.slot)
            return said
        stopped = job.given_up or self.stops()
        reason = said.get("failed") or f"its process ended with {_reason(code)}"
        if not stopped and job.attempts < ATTEMPTS:
            say(f"{job.name}: {reason}; it is resumed")
            self._start(job)
            return None
        if said.get("disk") and not stopped:
            self._left.append(job)
            raise EnvironmentFault(reason, job.name, FIX)
        self.free.append(job.slot)
        return None if stopped else {**said, "failed": f"{reason}, {ATTEMPTS} times"}

    def give_up(self, job: Job) -> None:
        """Let a training end that is another's by now."""
        job.given_up = True
        job.worker.stop()

    def stop(self) -> list[tuple[Job, Said]]:
        """Let every training save and end; return all, with what those that had ended say."""
        self.stops = lambda: True
        stopped = [*self._untold, *((job, None) for job in self._left)]
        self._untold = []
        asked = -math.inf
        while self.jobs:
            if time.monotonic() - asked > ASK_AGAIN:
                asked = time.monotonic()
                for job in self.jobs:
                    job.worker.stop()
                    job.worker.stop(signal.SIGCONT)  # a stopped one could not
            stopped += self.listen(lambda *_: False)
        return stopped


def _answer(job: Job, answer: bool) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # it has died, as its line will say
        job.worker.line.send(answer)


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
