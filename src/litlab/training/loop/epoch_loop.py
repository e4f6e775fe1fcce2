"""One epoch: a short way through each step where that is the same as Lightning's long one."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import lightning.pytorch as pl

from litlab.training.callbacks.checkpoint import CheckpointCallback
from litlab.training.loop.step import Step, step_of
from litlab.utils import lightning_adapter
from litlab.utils.lightning_adapter import TrainingEpochLoop


class EpochLoop(TrainingEpochLoop):
    """Runs the batches of an epoch, and notifies `checkpoint` of every optimizer step.

    Lightning asks every callback, logger, profiler and plugin at each of some twenty places in a
    step, which costs more than a small network's own work. Here those that have nothing to say are
    found out once an epoch; those that have are called as ever, in the same order.

    Attributes:
        batches_done: How many batches of the epoch that comes next were done before the fit was
            interrupted.

    Args:
        trainer: Lightning's.
        checkpoint: Told of every batch that ended with an optimizer step.
        min_steps: As Lightning has it.
        max_steps: As Lightning has it.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        checkpoint: CheckpointCallback,
        min_steps: int | None,
        max_steps: int,
    ) -> None:
        super().__init__(trainer, min_steps=min_steps, max_steps=max_steps)
        self.checkpoint = checkpoint
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
        loaders = lightning_adapter.loaders(self.trainer)
        start = self.batch_progress.current.ready
        for part in loaders:
            if start and not hasattr(part, "start"):
                raise TypeError(f"{type(part).__name__} cannot begin at a batch: it has no `start`")
            if hasattr(part, "start"):
                part.start = start
        self._short = step_of(self.trainer)
        if self._short is None:
            super().on_run_start(data_fetcher)
        else:
            self._batches = iter(loaders[0])

    def run(self, data_fetcher: Any) -> None:
        """Run the epoch; one that was interrupted before its validation begins with that."""
        self.reset()
        self.on_run_start(data_fetcher)
        if self.batch_progress.current.ready:
            self.checkpoint.epoch_resumed(self.trainer)
            if self.has_all_batches() or self.trainer.should_stop:
                self.batch_progress.is_last_batch = True
                self._validate(data_fetcher)
        way = self._run_long if self._short is None else self._run_short
        with suppress(StopIteration):
            way(data_fetcher)
        if self._short is not None:  # a hook may have ended the epoch
            self._short.look()

    def _run_long(self, data_fetcher: Any) -> None:
        while not self.done:
            self.advance(data_fetcher)
            self.on_advance_end(data_fetcher)

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Count the step, say that it is done, validate where it is time."""
        if not self.accumulates():
            self.stepped_batches += 1
            self.checkpoint.batch_done(self.trainer)
        self._validate(data_fetcher)

    def _validate(self, data_fetcher: Any) -> None:
        if not self.accumulates():
            self.stepped_batches -= 1  # Lightning counts the step only after the validation
        super().on_advance_end(data_fetcher)

    def _run_short(self, data_fetcher: Any) -> None:
        """What `advance` and `on_advance_end` do, without looking again at what does not change."""
        trainer, step, progress = self.trainer, self._short, self.batch_progress
        assert step is not None
        number, accumulate = trainer.num_training_batches, trainer.accumulate_grad_batches
        counted = self.automatic_optimization.optim_progress.optimizer.step
        often = trainer.val_check_batch != number
        while not self.done:
            batch_idx = progress.current.ready
            last = batch_idx + 1 == number
            batch = next(self._batches)
            progress.is_last_batch = last
            _count(progress, "ready", "started")
            steps = last or (batch_idx + 1) % accumulate == 0
            step.run(batch, batch_idx, steps)
            if steps:
                _count(counted, "ready", "completed")
                step.schedule(batch_idx)
            if last:
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
            step.ended(batch_idx)
            _count(progress, "processed", "completed")
            if steps:
                self.stepped_batches += 1
                self.checkpoint.batch_done(trainer)
            if last or often or trainer.should_stop:
                step.look()
                self._validate(data_fetcher)


def _count(progress: Any, *names: str) -> None:
    for tracker in (progress.current, progress.total):
        for name in names:
            setattr(tracker, name, getattr(tracker, name) + 1)
