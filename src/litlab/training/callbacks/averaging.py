"""What averages of the weights share: validation and checkpoints have them, training does not."""

from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from litlab.runs.checkpoint.io import RAW
from litlab.tasks.own_module import network
from litlab.tasks.task import Task

MODEL = "model."  # what the task calls its network


class WeightAverage(Callback):
    """Keeps a second set of weights, and puts it in the place of the first to be validated.

    A checkpoint's `state_dict` is the average, so whatever loads it for prediction has that; the
    weights that training goes on from are beside it, and resuming restores both.

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
        """Go on training the weights."""
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
