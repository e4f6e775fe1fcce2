"""What averages of the weights share: validation and checkpoints have them, training does not."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import RunningStage
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from litlab.runs.checkpoint.io import RAW
from litlab.tasks.own_module import network
from litlab.tasks.task import Task

MODEL = "model."  # what the task calls its network


class WeightAverage(Callback):
    """Keeps a second set of weights, and puts it in the place of the first to be validated.

    A checkpoint's `state_dict` is the average, so whatever loads it for prediction has that; the
    weights that training continues from are beside it, and resuming restores both.

    Lightning's `WeightAveraging` is not used: it copies the whole task, keeps the copy on the CPU
    (the model is still there when it is made) and asks the device for a number at every step.

    Attributes:
        count: How many times weights were taken into the average; 0 is no average yet.
    """

    def __init__(self) -> None:
        self.count = 0
        self._swapped = False
        self._current: list[torch.Tensor] = []
        self._average: list[torch.Tensor] = []
        self._loaded: dict[str, torch.Tensor] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the second set, on the model's device; or take over the checkpoint's."""
        named = floating(network(pl_module))
        self._swapped, self._current = False, list(named.values())
        self._average = [_precise(tensor) for tensor in self._current]
        if self._loaded is not None:
            for name, average in zip(named, self._average, strict=True):
                average.copy_(self._loaded[name])
            self._loaded = None

    @torch.no_grad()
    def include(self, weight: float) -> None:
        """Move the average towards the current weights by a share of the way."""
        pairs = zip(self._current, self._average, strict=True)
        current = [c if c.dtype == a.dtype else c.to(a.dtype) for c, a in pairs]
        torch._foreach_lerp_(self._average, current, weight)
        self.count += 1

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        self._put(average=True)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue training the weights."""
        self._put(average=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the model: it is the result."""
        self._put(average=True)

    @torch.no_grad()
    def _put(self, *, average: bool) -> None:
        """Swap both sets if the model does not hold the one that is wanted."""
        if average == self._swapped or not self.count:
            return
        for current, other in zip(self._current, self._average, strict=True):
            kept = current.clone()
            current.copy_(other)
            other.copy_(kept)
        self._swapped = average

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides the two sets."""
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the average."""
        self.count = int(state_dict["count"])

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average as the weights, and the weights that training continues from."""
        if not self.count:
            return
        whole: dict[str, torch.Tensor] = checkpoint["state_dict"]
        kept = self._kept(network(pl_module), _prefix(pl_module))
        other = {name: kept.get(name, value) for name, value in whole.items()}
        # A validation that was broken off leaves the average in the model.
        average, raw = (whole, other) if self._swapped else (other, whole)
        checkpoint["state_dict"], checkpoint[RAW] = average, raw

    def _kept(self, model: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
        """The set that is not in the model, by checkpoint names: tied weights have two."""
        place = {id(tensor): i for i, tensor in enumerate(self._current)}
        return {
            prefix + name: self._average[place[id(tensor)]]
            for name, tensor in _all_names(model)
            if id(tensor) in place
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take over both sets; the average has been put into the model by Lightning."""
        raw = checkpoint.get(RAW)
        if raw is None:
            return
        average: Mapping[str, torch.Tensor] = checkpoint["state_dict"]
        names = floating(network(pl_module))
        prefix = _prefix(pl_module)
        self._loaded = {name: average[prefix + name].clone() for name in names}
        pl_module.load_state_dict(raw)


def _prefix(task: pl.LightningModule) -> str:
    """Return what stands before the names of the network's weights in a checkpoint."""
    return MODEL if isinstance(task, Task) else ""


def floating(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what can be averaged: parameters and stored buffers of real numbers, each once."""
    stored, found, seen = model.state_dict().keys(), {}, set()
    for name, tensor in _all_names(model):
        if name in stored and tensor.is_floating_point() and id(tensor) not in seen:
            found[name] = tensor
            seen.add(id(tensor))
    return found


def _all_names(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _precise(tensor: torch.Tensor) -> torch.Tensor:
    """Copy it, in float32 at least: bfloat16 would lose steps of a thousandth."""
    return tensor.detach().clone().to(torch.promote_types(tensor.dtype, torch.float32))


class EMA(WeightAverage):
    """Exponential moving average of the weights, and of batch norm's statistics.

    After optimizer step t, `average = d * average + (1 - d) * weights`, from the initial weights on
    (Polyak and Juditsky 1992; Szegedy et al., CVPR 2016, section 8). With `warmup` the decay d is
    `min(decay, (1 + t) / (10 + t))`, t counted from 0, as in TensorFlow's
    `ExponentialMovingAverage`; without, the initial weights count for `decay ** t`: a third of the
    whole after 1,000 steps of 0.999.

    One kernel a step, and the device is asked nothing.
    """

    quiet = True  # logs nothing: see litlab.training.loop

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
