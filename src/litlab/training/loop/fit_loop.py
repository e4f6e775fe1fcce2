"""Lightning's fit loop, able to stop and resume exactly between batches and between epochs."""

from typing import Any

import lightning.pytorch as pl

from litlab.training.callbacks.checkpoint import CheckpointCallback
from litlab.training.loop.epoch_loop import EpochLoop
from litlab.utils.lightning_adapter import FitLoopBase


class FitLoop(FitLoopBase):
    """Notifies `checkpoint` wherever a fit can be resumed exactly, and resumes it there.

    Lightning's own loop calls its checkpoints before an epoch's metrics are logged and its
    scheduler has stepped; what is resumed from there has lost both. Its counters are saved halfway
    and patched up on restart. Here a state is saved when all is done, so that four numbers say
    where the fit is.

    Args:
        trainer: Whose loop it replaces.
        checkpoint: What is to be told.
    """

    def __init__(self, trainer: pl.Trainer, checkpoint: CheckpointCallback) -> None:
        old = trainer.fit_loop
        super().__init__(trainer, min_epochs=old.min_epochs, max_epochs=old.max_epochs)
        self.checkpoint = checkpoint
        inner = old.epoch_loop
        self.epoch_loop = EpochLoop(trainer, checkpoint, inner.min_steps, inner.max_steps)

    def state_dict(self, destination: dict[str, Any] | None = None, prefix: str = "") -> Any:
        """Return where the fit is, as numbers of what was done."""
        inner, total = self.epoch_loop, self.epoch_loop.batch_progress.total.completed
        epoch_running = self.epoch_progress.current.ready > self.epoch_progress.current.completed
        return {
            "epochs": self.epoch_progress.current.completed,
            "batches": inner.batch_progress.current.completed if epoch_running else 0,
            "total_batches": total,
            "steps": inner.global_step,
            "logged_steps": inner.stepped_batches,
            "should_stop": self.trainer.should_stop,
        }

    def load_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Set every counter to where the fit was; the next epoch or batch follows."""
        epochs, batches = state_dict["epochs"], state_dict["batches"]
        inner = self.epoch_loop
        for progress in (self.epoch_progress.current, self.epoch_progress.total):
            _set(progress, epochs)
        _set(inner.batch_progress.total, state_dict["total_batches"])
        automatic = inner.automatic_optimization.optim_progress.optimizer.step
        for step in (automatic, inner.manual_optimization.optim_step_progress):
            step.total.ready = step.total.completed = state_dict["steps"]
        inner.stepped_batches = state_dict["logged_steps"]
        inner.batches_done = batches
        self.trainer.should_stop = state_dict["should_stop"]

    @property
    def done(self) -> bool:
        """Whether to leave; an epoch that was interrupted before its validation is not done."""
        return not self.epoch_loop.batches_done and super().done

    def on_advance_end(self) -> None:
        """Finish the epoch, then say so."""
        super().on_advance_end()
        self.checkpoint.epoch_done(self.trainer)

    def on_run_end(self) -> None:
        """Say that nothing follows, then let Lightning end the fit."""
        self.checkpoint.fit_done(self.trainer)
        super().on_run_end()


def _set(progress: Any, number: int) -> None:
    progress.ready = progress.started = progress.processed = progress.completed = number
