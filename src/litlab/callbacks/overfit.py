from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from litlab.output import number, say

NEAR_ZERO = 0.01  # of the first epoch's loss


class Overfit(Callback):
    """Says whether a few batches, seen again and again, were learnt by heart.

    A network that is put together rightly brings their loss close to zero: to a hundredth of what
    it was in the first epoch.
    """

    def __init__(self, batches: int) -> None:
        self.batches, self.first = batches, float("nan")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the first epoch's loss."""
        if trainer.current_epoch == 1:
            self.first = _loss(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how far it went."""
        last = _loss(trainer)
        what = "one batch" if self.batches == 1 else f"{self.batches} batches"
        fall = f"train/loss on {what} from {number(self.first)} to {number(last)}"
        if last <= NEAR_ZERO * self.first:
            say(f"overfit: {fall}: learnt by heart, as it should be")
        else:
            say(
                f"warning: overfit: {fall}, which is not near zero. Look at targets, loss and"
                " learning rate, switch off dropout, label smoothing and weight decay, or give it"
                " more trainer.max_epochs"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the first epoch's loss."""
        return {"first": self.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.first = float(state_dict["first"])


def _loss(trainer: pl.Trainer) -> float:
    return float(trainer.callback_metrics["train/loss"])
