"""How training shows itself: a bar on a terminal, otherwise a line now and then."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, RichProgressBar

from litlab.utils.output import nth_epoch, number, say

SECONDS = 0.25  # between two drawings of the bar


def callbacks(kind: str) -> list[Callback]:
    """Return the callbacks for "auto", "bar", "lines" or "none"."""
    if kind == "bar" or (kind == "auto" and sys.stderr.isatty()):
        return [Bar(leave=False, console_kwargs={"stderr": True})]
    return [EpochLines()] if kind in ("auto", "lines") else []


class Bar(RichProgressBar):
    """Lightning's bar, drawn a few times a second and not after each batch.

    Drawing takes a third of a millisecond, a quarter of a small network's step.
    """

    quiet = True  # logs nothing
    _next = 0.0

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Show the losses of the epoch before, and no run id."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        losses = {k: v for k, v in trainer.callback_metrics.items() if k.endswith("loss")}
        return {**shown, **{name: number(float(value)) for name, value in losses.items()}}

    def _get_train_description(self, current_epoch: int) -> str:
        """Count epochs from 1, as all that people read does; Lightning begins with 0."""
        total = self.trainer.max_epochs
        shown = f"Epoch {nth_epoch(current_epoch)}" + (f"/{total}" if total is not None else "")
        return f"{shown:{len(self.validation_description)}}"

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Draw it, if that was not just done."""
        now, last = time.monotonic(), args[-1] + 1 == self.total_train_batches
        if last or now >= self._next:
            self._next = now + SECONDS
            super().on_train_batch_end(trainer, pl_module, *args)


class EpochLines(Callback):
    """One line about every tenth of the training, on standard error."""

    def __init__(self, lines: int = 10) -> None:
        self.lines, self.began = lines, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.began = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch that just ended: only now are its training metrics collected."""
        if trainer.current_epoch > 0:
            self._show(trainer, trainer.current_epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the last epoch."""
        self._show(trainer, trainer.current_epoch, last=True)

    def _show(self, trainer: pl.Trainer, epochs: int, *, last: bool = False) -> None:
        total = trainer.max_epochs or epochs
        every = max(1, total // self.lines)
        if not trainer.is_global_zero or (epochs % every and not last):
            return
        values: dict[str, Any] = dict(trainer.callback_metrics)
        shown = [k for k in values if k.startswith(("train/loss", "train_loss", "val"))]
        if not shown:  # a LightningModule of one's own has names of its own
            shown = list(values)
        if not shown:  # a resumed run has shown it before
            return
        text = "  ".join(f"{name} {number(float(values[name]))}" for name in sorted(shown))
        say(f"epoch {epochs:>4}/{total}  {text}  ({time.monotonic() - self.began:.0f} s)")
