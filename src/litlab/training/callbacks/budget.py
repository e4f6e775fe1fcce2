"""A training as long as its time: epochs and schedule fitted to the clock."""

import math
import re
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from litlab.utils.errors import ConfigError
from litlab.utils.output import say

MANY = 10**6  # epochs: more than any budget has time for
UNITS = {"h": 3600, "m": 60, "s": 1}
NEAR = 0.02  # share of the budget for which no other epoch is begun
FORWARD = 0.4  # of a training step; two thirds of it are the backward pass and the update


def seconds(budget: str) -> int:
    """Return the seconds of "90s", "10m" or "1h30m"."""
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([hms])", budget))


class Budget(Callback):
    """Ends a fit on time, its last validation and saving included, and schedules by the clock.

    A schedule goes by the share of the time that has passed, not of steps: at half the budget it is
    where it would be at half of the steps, whatever else slows the machine. So two runs of one
    budget take different steps; what each epoch took is logged as `budget/seconds` and
    `budget/steps`. A resumed run has the time it had left when it was saved.

    Args:
        text: Such as "10m".
    """

    quiet = True  # logs at the ends of epochs only

    def __init__(self, text: str) -> None:
        self.text, self.seconds = text, seconds(text)
        self.before, self.began = 0.0, time.monotonic()  # spent before an interruption; since when
        self.total_steps, self.scheduled = 1, list[LambdaLR | OneCycleLR]()
        self.step = self.validation = self.closing = 0.0  # seconds that each took last
        self._batch_began = self._epoch_began = self._epoch_ended = self._validation_began = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds spent, those before an interruption included."""
        return self.before + time.monotonic() - self.began

    @property
    def reserve(self) -> float:
        """Seconds that follow the last step: validation, metrics, saving."""
        return self.validation + self.closing

    def state_dict(self) -> dict[str, Any]:
        """Return the time spent, and what each part takes."""
        return {"elapsed": self.elapsed, "validation": self.validation, "closing": self.closing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the time that was left."""
        self.before = float(state_dict["elapsed"])
        self.validation, self.closing = state_dict["validation"], state_dict["closing"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin the clock; no number of epochs is the end."""
        self.began = time.monotonic()
        trainer.fit_loop.max_epochs = MANY

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the schedules, which were made for all the steps of so many epochs.

        Raises:
            ConfigError: One cannot be set to a share of its length.
        """
        self.total_steps = int(trainer.estimated_stepping_batches)
        for config in trainer.lr_scheduler_configs:
            if config.interval != "step":  # plateau: it has no length
                continue
            if not isinstance(config.scheduler, LambdaLR | OneCycleLR):
                kind = type(config.scheduler).__name__
                raise ConfigError(
                    f"{kind} cannot follow a time budget",
                    "trainer.budget, scheduler",
                    "use one of litlab's schedules, or set trainer.max_epochs instead",
                )
            self.scheduled.append(config.scheduler)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how many epochs it may become."""
        now, left = self.elapsed, 1
        if self._epoch_ended:
            self.closing = now - self._epoch_ended
        if self._epoch_began:
            epoch = max(1e-9, now - self._epoch_began)
            left = max(1, math.ceil((self.seconds - now) / epoch))
        # Always one more than this: the clock ends the fit, and not this number.
        trainer.fit_loop.max_epochs = trainer.current_epoch + 1 + left
        self._epoch_began = now

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Put the schedules where the next step will find them in time."""
        self._batch_began = self.elapsed
        share = min(1.0, self._batch_began / max(1e-9, self.seconds - self.reserve))
        step = max(1, min(self.total_steps - 1, round(share * self.total_steps)))
        for scheduler in self.scheduled:
            scheduler.last_epoch = step - 1  # it counts on by one after the optimizer's step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Stop where the time left is that of validation and saving."""
        now, batch_idx = self.elapsed, args[-1]
        self.step = now - self._batch_began
        last = batch_idx + 1 == trainer.num_training_batches
        stepped = last or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not self.validation:
            self.validation = self._guess(trainer)
        if stepped and now + self.step + self.reserve >= self.seconds:
            self._stop(trainer)

    def _guess(self, trainer: pl.Trainer) -> float:
        """Return seconds of a validation, by the last step's, where none was timed yet."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        most = sum(trainer.num_val_batches) * data.loader.eval_batch_size
        samples = min(most, data.spec.sizes["val"])
        return float(FORWARD * self.step * samples / data.loader.batch_size)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the time of validation."""
        self._validation_began = self.elapsed

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the time of validation."""
        self.validation = self.elapsed - self._validation_began

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record time and steps; begin no other epoch where ending now is nearer to the budget."""
        self._epoch_ended = self.elapsed
        pl_module.log("budget/seconds", round(self._epoch_ended, 3))
        pl_module.log("budget/steps", float(trainer.global_step))
        left = self.seconds - self._epoch_ended - self.closing
        if left < NEAR * self.seconds or left < (self.reserve + self.step) / 2:
            self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        trainer.should_stop = True
        trainer.fit_loop.max_epochs = trainer.current_epoch + 1

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what the time was enough for."""
        if trainer.is_global_zero:
            spent = f"{self.elapsed:.1f} s of {self.text}"
            say(f"budget: {trainer.global_step:,} steps, {trainer.current_epoch} epochs in {spent}")
