from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import RunningStage
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from litlab.tasks.own_module import network
from litlab.training.callbacks.averaging import WeightAverage


class SWA(WeightAverage):
    """Stochastic weight averaging: the mean of the weights at the end of each of the last epochs.

    Izmailov et al., UAI 2018, algorithm 1, with a constant learning rate and c = one epoch. From
    `start` of the training on, the optimizer runs at `lr`, whatever the schedule says. Batch norm's
    statistics are those of the averaged weights: computed anew from the training batches before
    each validation, for what is validated is what is kept. (The paper does it once, at the end. It
    costs another forward pass over the training data, and nothing where there is no batch norm.)
    Dropout is off in that pass, as it is in prediction; in `torch.optim.swa_utils.update_bn` it is
    on.

    Attributes:
        latest: The last epoch that was taken in, from 0.
    """

    def __init__(self, start: float, lr: float) -> None:
        super().__init__()
        self.start, self.lr, self.latest = start, lr, -1
        self._norms: list[_BatchNorm] = []

    def first_epoch(self, trainer: pl.Trainer) -> int:
        """Return the epoch that averaging begins with, from 0."""
        return int(self.start * (trainer.max_epochs or 1))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the batch norms that gather statistics: frozen ones are in eval mode."""
        self._norms = [
            module
            for module in network(pl_module).modules()
            if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
        ]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Set the learning rate, which the schedule has moved since the last step."""
        self._set_lr(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take in the epoch before it is validated: Lightning validates before an epoch's end."""
        self._take_in(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take in the epoch if nothing was validated; show the rate that it was trained at."""
        self._take_in(trainer, pl_module)
        self._set_lr(trainer)

    def _set_lr(self, trainer: pl.Trainer) -> None:
        if trainer.current_epoch < self.first_epoch(trainer):
            return
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * group.get("lr_scale", 1.0)

    def _take_in(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch
        if epoch < self.first_epoch(trainer) or epoch <= self.latest:
            return
        self.include(1 / (self.count + 1))
        self.latest = epoch
        if self._norms:
            self._put(average=True)
            recompute(self._norms, trainer, pl_module)
            self._put(average=False)

    def state_dict(self) -> dict[str, Any]:
        """Add the epoch that was taken in last."""
        return {**super().state_dict(), "latest": self.latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the average."""
        super().load_state_dict(state_dict)
        self.latest = int(state_dict["latest"])


@torch.no_grad()
def recompute(norms: list[_BatchNorm], trainer: pl.Trainer, task: pl.LightningModule) -> None:
    """Replace running statistics by their mean over the epoch's training batches, as augmented."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    loader = data.train_dataloader()  # one of its own: the Trainer's is in the middle of the epoch
    loader.sampler.set_epoch(trainer.current_epoch)
    with _gathering(norms, task), _as_training(trainer):
        for batch in loader:
            x = trainer.strategy.batch_to_device(batch)[0]  # through the data module's hooks
            with trainer.precision_plugin.forward_context():
                task(x)
    if trainer.world_size > 1:
        for norm in norms:
            for statistic in (norm.running_mean, norm.running_var):
                assert statistic is not None
                statistic.copy_(trainer.strategy.reduce(statistic.clone(), reduce_op="mean"))


@contextmanager
def _gathering(norms: list[_BatchNorm], task: pl.LightningModule) -> Iterator[None]:
    """Let batch norm alone train: with no momentum torch takes the mean over all batches."""
    modes = [(module, module.training) for module in task.modules()]
    before = [(norm, norm.momentum, _counter(norm).clone()) for norm in norms]
    task.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum, counted in before:
            norm.momentum = momentum
            _counter(norm).copy_(counted)  # of the weights in training, where it is not swapped
        for module, mode in modes:  # one by one: a frozen part is in eval mode for good
            module.training = mode


def _counter(norm: nn.Module) -> torch.Tensor:
    counter = norm.num_batches_tracked
    assert isinstance(counter, torch.Tensor)
    return counter


@contextmanager
def _as_training(trainer: pl.Trainer) -> Iterator[None]:
    """Have the data module augment, though a validation is about to begin."""
    stage = trainer.state.stage
    trainer.state.stage = RunningStage.TRAINING
    try:
        yield
    finally:
        trainer.state.stage = stage
