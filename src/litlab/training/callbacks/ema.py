from typing import Any

import lightning.pytorch as pl

from litlab.training.callbacks.averaging import WeightAverage


class EMA(WeightAverage):
    """Exponential moving average of the weights, and of batch norm's statistics.

    After optimizer step t, `average = d * average + (1 - d) * weights`, from the initial weights on
    (Polyak and Juditsky 1992; Szegedy et al., CVPR 2016, section 8). With `warmup` the decay d is
    `min(decay, (1 + t) / (10 + t))`, t counted from 0, as in TensorFlow's
    `ExponentialMovingAverage`; without, the initial weights count for `decay ** t`: a third of the
    whole after 1,000 steps of 0.999.

    One kernel a step, and the device is asked nothing.
    """

    quiet = True  # logs nothing: see litlab.training.loop.step

    def __init__(self, decay: float = 0.999, *, warmup: bool = True) -> None:
        super().__init__()
        self.decay, self.warmup, self._step = decay, warmup, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Take in the weights, if this batch ended with an optimizer step."""
        step = trainer.global_step
        if step > self._step:
            self._step = step
            self.include(1 - self.decay_at(self.count))

    def decay_at(self, t: int) -> float:
        """Return the decay of update t, counted from 0."""
        return min(self.decay, (1 + t) / (10 + t)) if self.warmup else self.decay

    def state_dict(self) -> dict[str, Any]:
        """Add the step that was taken in last."""
        return {**super().state_dict(), "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the average."""
        super().load_state_dict(state_dict)
        self._step = int(state_dict["step"])
