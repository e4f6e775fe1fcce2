"""One epoch: a short way through each step where that is the same as Lightning's long one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from litlab.loop.step import Step, step_of

if TYPE_CHECKING:
    from litlab.loop.fit_loop import Checkpoints


class EpochLoop(_TrainingEpochLoop):
    """Runs the batches of an epoch, and tells `checkpoints` of every optimizer step.

    Lightning asks every callback, logger, profiler and plugin at each of some twenty places in a
    step, which costs more than a small network's own work. Here those that have nothing to say are
    found out once an epoch; those that have are called as ever, in the same order.

    Attributes:
        batches_done: How many batches of the epoch that comes next were done before the fit was
            interrupted.

    Args:
        trainer: Lightning's.
        checkpoints: Told of every batch that ended with an optimizer step.
        min_steps: As Lightning has it.
        max_steps: As Lightning has it.
    """

    def __init__(
        self, trainer: pl.Trainer, checkpoints: "Checkpoints", min_steps: int | None, max_steps: int
    ) -> None:
        super().__init__(trainer, min_steps=min_steps, max_steps=max_steps)
        self.checkpoints = checkpoints
        self.batches_done = 0
        self._short: Step | None = None
        self._batches: Iterator[Any] = iter(())

    def reset(self) -> None:
        """Count from nothing, or from where the epoch was interrupted."""
        super().reset()
        done, self.batches_done = self.batches_done, 0
        current: Any = self.batch_progress.current
        current.ready = current.started = current.processed = current.completed = done
        self.batch_progress.is_last_batch = False

    def on_run_start(self, data_fetcher: Any) -> None:
        """Find out which way the steps of this epoch go."""
        loader = self.trainer.fit_loop._combined_loader
        assert loader is not None
        start = self.batch_progress.current.ready
        for part in loader.flattened:
            if start and not hasattr(part, "start"):
                raise TypeError(f"{type(part).__name__} cannot begin at a batch: it has no `start`")
            if hasattr(part, "start"):
                part.start = start
        self._short = step_of(self.trainer)
        if self._short is None:
            super().on_run_start(data_fetcher)
        else:
            self._batches = iter(loader.flattened[0])

    def run(self, data_fetcher: Any) -> None:
        """Run the epoch; one that was interrupted before its validation begins with that."""
        self.reset()
        self.on_run_start(data_fetcher)
        if self.batch_progress.current.ready:
            self.checkpoints.epoch_resumed(self.trainer)
            if self._num_ready_batches_reached():
                self.batch_progress.is_last_batch = True
                self._validate(data_fetcher)
        while not self.done:
            try:
                self.advance(data_fetcher)
                self.on_advance_end(data_fetcher)
            except StopIteration:
                break

    def advance(self, data_fetcher: Any) -> None:
        """Train on one batch."""
        if self._short is None:
            super().advance(data_fetcher)
            return
        batch_idx = self.batch_progress.current.ready
        number = self.trainer.num_training_batches
        batch = next(self._batches)
        progress = self.batch_progress
        progress.is_last_batch = batch_idx + 1 == number
        progress.increment_ready()
        progress.increment_started()
        stepped = self._short.run(batch, batch_idx, not self._should_accumulate())
        if stepped:
            count = self.automatic_optimization.optim_progress.optimizer.step
            count.increment_ready()
            count.increment_completed()
        progress.increment_processed()
        self.update_lr_schedulers("step", update_plateau_schedulers=False)
        if progress.is_last_batch:
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self._short.ended(batch_idx)
        progress.increment_completed()

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Count the step, say that it is done, validate where it is time."""
        if not self._should_accumulate():
            self._batches_that_stepped += 1
            self.checkpoints.batch_done(self.trainer)
        if self._short is None or self._may_validate():
            self._validate(data_fetcher)

    def _may_validate(self) -> bool:
        """Whether anything is left to do after this batch, as seldom there is."""
        trainer = self.trainer
        often = trainer.val_check_batch != trainer.num_training_batches
        return self.batch_progress.is_last_batch or trainer.should_stop or often

    def _validate(self, data_fetcher: Any) -> None:
        if not self._should_accumulate():
            self._batches_that_stepped -= 1  # Lightning counts the step only after the validation
        super().on_advance_end(data_fetcher)
