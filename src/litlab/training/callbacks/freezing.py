from collections.abc import Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from litlab.tasks.own_module import network
from litlab.training.freeze import frozen_names, frozen_norms


class Freezing(Callback):
    """Keeps the batch norms of frozen parts in eval mode, and thaws all of it when it is time.

    Args:
        patterns: What is frozen.
        until: The first epoch, from 0, that trains everything; None for never.
    """

    def __init__(self, patterns: Sequence[str], until: int | None = None) -> None:
        self.patterns, self.until = tuple(patterns), until

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freeze, or not any more: a resumed fit may begin in any epoch."""
        self._set(pl_module, trainer.current_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Thaw in its epoch."""
        self._set(pl_module, trainer.current_epoch)

    def _set(self, task: pl.LightningModule, epoch: int) -> None:
        model = network(task)
        names = frozen_names(model, self.patterns)
        frozen = self.until is None or epoch < self.until
        for name, parameter in model.named_parameters():
            if name in names:
                parameter.requires_grad_(not frozen)
                if frozen:
                    parameter.grad = None
        for norm in frozen_norms(model, names):
            norm.train(not frozen)
