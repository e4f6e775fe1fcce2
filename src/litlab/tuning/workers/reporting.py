"""What a trial tells its study, and what the study answers."""

import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


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
