"""Compilation and memory layout, at the right moments of a fit."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from litlab.tasks.own_module import network
from litlab.training.compile import (
    AutoOrBool,
    compile_in_place,
    lay_out_as_parameters,
    use_channels_last,
    wants_channels_last,
)


class PrepareModel(Callback):
    """Prepares the task's model before the optimizer is made and the strategy wraps it.

    Args:
        compiled: Whether to compile.
        channels_last: Whether images have their channels last, or "auto".
        sharded: Whether each process has a part of the weights.
    """

    def __init__(self, *, compiled: bool, channels_last: AutoOrBool, sharded: bool = False) -> None:
        self.compiled, self.channels_last, self.sharded = compiled, channels_last, sharded

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Change the network, which is still on the CPU."""
        model, device = network(pl_module), trainer.strategy.root_device
        plain = not self.compiled and not self.sharded
        if wants_channels_last(self.channels_last, model, device, plain=plain):
            use_channels_last(model)
        if self.compiled:
            compile_in_place(model)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Optimizer states are loaded by now, maybe those of another layout."""
        for optimizer in trainer.optimizers:
            lay_out_as_parameters(optimizer)
