"""A trial in a process of its own, forked from one that has imported everything already."""

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

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from litlab.checkpoint.io import read
from litlab.checkpoint.resume import Resume
from litlab.errors import LitlabError
from litlab.run_folder import LAST, PREVIOUS, RUN_FILE, RunRecord
from litlab.schema import Config
from litlab.train import train


class Report(Callback):
    """Tells the study the monitored value after each epoch, and ends the fit when it says so."""

    quiet = True

    def __init__(self, monitor: str, line: Connection) -> None:
        self.monitor, self.line = monitor, line
        self.pruned = False

    def state_dict(self) -> dict[str, Any]:
        """Return whether the study has ended it: a run that goes on then is pruned all the same."""
        return {"pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take that up."""
        self.pruned = state_dict["pruned"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask whether to go on."""
        value = trainer.callback_metrics.get(self.monitor)
        if value is None or not trainer.is_global_zero:
            return
        self.line.send({"epoch": trainer.current_epoch, "value": float(value)})
        if self.line.recv():
            self.pruned = trainer.should_stop = True


@dataclass
class Worker:
    """A trial that is running.

    Attributes:
        pid: Its process.
        line: To it.
        number: The trial's.
        said: What it ended with; empty while it runs, or if it died.
    """

    pid: int
    line: Connection
    number: int
    said: dict[str, Any] = field(default_factory=dict)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to save and end."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def start(config: Config, folder: Path, number: int, threads: int, log: Path) -> Worker:
    """Train a trial in a process of its own; what it prints goes into a file.

    Args:
        config: The trial's configuration.
        folder: Of its run; one that was interrupted there goes on.
        number: The trial's.
        threads: CPU threads it may use.
        log: The file.
    """
    ours, theirs = Pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        theirs.close()
        return Worker(pid, ours, number)
    code = 1
    try:
        ours.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the study, which asks us
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for descriptor in (1, 2):
            os.dup2(out, descriptor)
        torch.set_num_threads(threads)
        code = _work(config, folder, theirs)
    finally:
        os._exit(code)


def _work(config: Config, folder: Path, line: Connection) -> int:
    report = Report(config.monitor, line)
    try:
        record = RunRecord.load(folder) if (folder / RUN_FILE).is_file() else None
        if record is not None and record.status == "FINISHED":  # and could not say so any more
            kept = read(folder / LAST)["callbacks"][report.state_key]
            line.send(_result(record, pruned=kept["pruned"]))
            return 0
        resumes = any((folder / name).is_file() for name in (LAST, PREVIOUS))
        if not resumes and folder.exists():
            shutil.rmtree(folder)  # it ended before it had saved anything
        result = train(config, folder, resume=Resume() if resumes else None, callbacks=[report])
    except LitlabError as error:
        line.send({"failed": str(error), "code": error.exit_code})
        traceback.print_exc()
        return error.exit_code
    except Exception as error:
        line.send({"failed": f"{type(error).__name__}: {error}", "code": 1})
        traceback.print_exc()
        return 1
    line.send(_result(result.record, pruned=report.pruned))
    return 0


def _result(record: RunRecord, *, pruned: bool) -> dict[str, Any]:
    return {
        "metrics": record.metrics,
        "pruned": pruned,
        "seconds": record.seconds,
        "parameters": record.num_parameters,
        "run_id": record.run_id,
        "epochs": record.epochs,
    }
