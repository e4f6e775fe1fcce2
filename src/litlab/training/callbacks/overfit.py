import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from litlab.utils.output import number, say

NEAR_ZERO = 0.01  # of the first loss


class Overfit(Callback):
    """Says whether a few batches, seen again and again, were learnt by heart.

    A network that is put together rightly brings their loss close to zero: to a hundredth of what
    it was before the first step.
    """

    quiet = True  # logs nothing: see litlab.training.loop

    def __init__(self, batches: int) -> None:
        self.batches, self.first = batches, float("nan")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any
    ) -> None:
        """Note the loss that it begins with."""
        if math.isnan(self.first):  # Lightning has divided it, to be accumulated
            loss = trainer.strategy.reduce(outputs["loss"], reduce_op="mean")
            self.first = float(loss) * trainer.accumulate_grad_batches

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how far it went."""
        if not trainer.is_global_zero:
            return
        last = float(trainer.callback_metrics["train/loss"])
        what = "one batch" if self.batches == 1 else f"{self.batches} batches"
        fall = f"train/loss on {what} from {number(self.first)} to {number(last)}"
        if last <= NEAR_ZERO * self.first:
            say(f"overfit: {fall}: memorized, as expected")
        else:
            say(
                f"warning: overfit: {fall}, which is not near zero. Check targets, loss and"
                " learning rate, disable dropout, label smoothing and weight decay, or raise"
                " trainer.max_epochs"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the loss that it began with."""
        return {"first": self.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.first = float(state_dict["first"])
