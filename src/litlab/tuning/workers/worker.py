"""A trial in a process of its own, forked from one that has imported everything already."""

import errno
import os
import shutil
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.distributed import DistNetworkError

from litlab.config.schema import Config
from litlab.distributed.watchdog import RankDied
from litlab.runs.checkpoint.io import read
from litlab.runs.checkpoint.resume import Resume
from litlab.runs.folder import LAST, PREVIOUS, RUN_FILE, RunRecord
from litlab.training.preflight import num_processes
from litlab.training.run import train
from litlab.tuning.results.record import mark
from litlab.tuning.workers.devices import Slot
from litlab.tuning.workers.latency import milliseconds
from litlab.tuning.workers.rank import Ranks
from litlab.tuning.workers.reporting import Line, TrialReporter
from litlab.utils.errors import EnvironmentFault, LitlabError
from litlab.utils.output import redact_streams
from litlab.utils.redact import redact_prose

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
        folder: Of its run; one that was interrupted there goes on.
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
    except (RankDied, DistNetworkError):  # as if this process had died: it goes on, without a word
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
