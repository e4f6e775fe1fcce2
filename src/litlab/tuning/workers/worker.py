"""A trial in a process of its own, forked from one that has imported everything already."""

import errno
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch.distributed import DistNetworkError

from litlab.config.schema import Config
from litlab.distributed.watchdog import RankDied
from litlab.runs.checkpoint.io import read
from litlab.runs.checkpoint.resume import Resume
from litlab.runs.folder import LAST, PREVIOUS, RUN_FILE, RunRecord
from litlab.training.preflight import num_processes
from litlab.training.run import train
from litlab.tuning.results.record import mark
from litlab.tuning.workers.devices import Ranks, Slot
from litlab.tuning.workers.latency import milliseconds
from litlab.utils.errors import EnvironmentFault, LitlabError
from litlab.utils.output import redact_streams
from litlab.utils.redact import redact_prose

# What a trial tells its study, and what the study answers.


class Line:
    """A trial's end of the connection to its study.

    Args:
        connection: To the study's process.
        study: The number of that process, which is this one's parent.
    """

    def __init__(self, connection: Connection, study: int) -> None:
        self.connection, self.study = connection, study
        self._ends = threading.Lock()  # taken by the first to see that the study is gone

    def watch(self) -> None:
        """Let this process save and end, as by SIGTERM, soon after the study's has died.

        An epoch may take an hour, and nobody waits for its value any more.
        """

        def wait() -> None:
            while os.getppid() == self.study:
                time.sleep(0.5)
            self._end()

        threading.Thread(target=wait, name="study", daemon=True).start()

    def ask(self, said: dict[str, Any]) -> bool:
        """Report an epoch's value to the study; return whether to end the trial."""
        try:
            self.connection.send(said)
            # Trials that began later hold the study's end open too: only its death ends the wait.
            while not self.connection.poll(0.5):
                if os.getppid() != self.study:
                    raise EOFError
            return bool(self.connection.recv())
        except (EOFError, OSError):
            self._end()  # when the epoch is done and saved
            return False

    def _end(self) -> None:
        if self._ends.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGTERM)

    def say(self, said: dict[str, Any]) -> None:
        """Tell the study how the trial ended; a later one finds it in the run's folder."""
        with suppress(OSError):
            self.connection.send(said)


class TrialReporter(Callback):
    """Tells the study the monitored value after each epoch, and ends the fit when it says so.

    Of several processes the first asks, and all of them end after the same epoch.

    Args:
        monitor: The value's name.
        line: To the study; None in the other processes.
    """

    quiet = True

    def __init__(self, monitor: str, line: Line | None) -> None:
        self.monitor, self.line = monitor, line
        self.pruned = False

    def state_dict(self) -> dict[str, Any]:
        """Return whether the study has pruned it, also if the run continued afterwards."""
        return {"pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take that up."""
        self.pruned = state_dict["pruned"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Return whether to continue."""
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            return
        said = {"epoch": trainer.current_epoch, "value": float(value)}
        prune = self.line is not None and self.line.ask(said)
        if trainer.strategy.broadcast(prune):
            self.pruned = trainer.should_stop = True


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@dataclass
class Worker:
    """A trial that is running.

    Attributes:
        pid: Its process.
        line: To it.
        said: What it ended with; empty while it runs, or if it died.
    """

    pid: int
    line: Connection
    said: dict[str, Any] = field(default_factory=dict)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to save and end."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def start(config: Config, folder: Path, slot: Slot, log: Path, *, measure: bool = False) -> Worker:
    """Train a trial in a process of its own; what it prints goes into a file.

    Args:
        config: The trial's configuration.
        folder: Of its run; one that was interrupted there is resumed.
        slot: The threads and GPUs it may use.
        log: The file.
        measure: Whether to measure the latency of the best weights, unless the trial is pruned.
    """
    ours, theirs = Pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    study = os.getpid()
    # A signal that came before the child has handlers of its own would be lost in ours.
    asks = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, asks)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return Worker(pid, ours)
    code = 1
    try:
        ours.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):  # for the study, which asks us by SIGTERM
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for descriptor in (1, 2):
            os.dup2(out, descriptor)
        redact_streams()
        code = _work(slot.take(config), folder, Line(theirs, study), slot.threads, measure)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _work(config: Config, folder: Path, line: Line, threads: int, measure: bool) -> int:
    """Train it, in as many processes as it asks for, and say how it ended."""
    try:
        said = _result(config, folder, line, threads)
        if measure and not said["pruned"]:
            said["latency"] = milliseconds(folder, config.trust)
    except SystemExit as ended:  # of a process other than the first
        return int(ended.code or 0)
    except (
        RankDied,
        DistNetworkError,
    ):  # as if this process had died: it is resumed, without a message
        traceback.print_exc()
        return RankDied.exit_code
    except LitlabError as error:
        said = {"failed": error.reason, "code": error.exit_code, "disk": _is_of_disk(error)}
        traceback.print_exc()
    except OSError as error:
        said = {"failed": str(error), "code": EnvironmentFault.exit_code}
        said["disk"] = _is_of_disk(error)
        traceback.print_exc()
    except Exception as error:
        said = {"failed": redact_prose(f"{type(error).__name__}: {error}"), "code": 1}
        traceback.print_exc()
    line.say(said)
    return int(said.get("code", 0))


def _is_of_disk(error: BaseException | None) -> bool:
    """Whether an error comes from a disk that takes no more, whatever the settings are."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK:
            return True
        error = error.__context__
    return False


def _result(config: Config, folder: Path, line: Line, threads: int) -> dict[str, Any]:
    record = RunRecord.load(folder) if (folder / RUN_FILE).is_file() else None
    if record is not None and record.status == "FINISHED":  # and could not say so any more
        torch.set_num_threads(threads)
        kept = read(folder / LAST)["callbacks"][TrialReporter.__qualname__]
        return _said(record, pruned=kept["pruned"])
    resumes = any((folder / name).is_file() for name in (LAST, PREVIOUS))
    if not resumes and folder.exists():
        shutil.rmtree(folder)  # it ended before it had saved anything
    processes = num_processes(config.trainer)
    with Ranks(processes) as ranks:
        # Not before: forked processes would wait for a pool of threads that only this one has.
        torch.set_num_threads(max(1, threads // processes))
        report = TrialReporter(config.monitor, None if ranks.rank else line)
        if ranks.rank:
            line.connection.close()
        else:
            line.watch()
        resume = Resume() if resumes else None
        # Every trial's preview would show the same samples.
        result = train(config, folder, resume=resume, callbacks=[report], preview=False)
    if report.pruned:
        mark(config, result.record.run_id, {"trial.state": "PRUNED"})
    return _said(result.record, pruned=report.pruned)


def _said(record: RunRecord, *, pruned: bool) -> dict[str, Any]:
    return {
        "metrics": record.metrics,
        "pruned": pruned,
        "seconds": record.seconds,
        "parameters": record.num_parameters,
        "run_id": record.run_id,
        "epochs": record.epochs,
    }
