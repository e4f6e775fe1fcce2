"""The network as this machine runs it fastest: compiled, its images with channels last.

Both change the network in place, and neither its parameters' names nor their values: a checkpoint
fits whichever way it is used.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from litlab.tasks.own_module import network
from litlab.utils.errors import EnvironmentFault

AutoOrBool = bool | Literal["auto"]


def compile_in_place(model: nn.Module) -> None:
    """Let torch.compile make kernels for the network's forward and backward pass, at first use.

    The network and not the LightningModule: that has the loss, metrics and logging in its step,
    which would only break the graph.
    """
    model.compile()


def wants_channels_last(
    setting: AutoOrBool, model: nn.Module, device: torch.device, *, plain: bool
) -> bool:
    """Return whether images go through the network as `(B, H, W, C)` in memory.

    `auto`: on the CPU, where benchmarks/precision.py finds convolutions faster so. Not together
    with compilation, which loses by it there, and not on a GPU, where nobody measured it.

    Args:
        setting: trainer.channels_last.
        model: The network.
        device: Where it runs.
        plain: Whether it is neither compiled nor cut into shards.
    """
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if setting is True and not convolves:
        warnings.warn(
            "trainer.channels_last is for two-dimensional convolutions, and there is none",
            stacklevel=2,
        )
    return convolves and (setting is True or (setting == "auto" and plain and device.type == "cpu"))


def use_channels_last(model: nn.Module) -> None:
    """Lay out weights `(C', C, H, W)` and inputs `(B, C, H, W)` with channels last in memory."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.register_forward_pre_hook(_inputs_channels_last)


def _inputs_channels_last(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    x, *rest = inputs
    if isinstance(x, torch.Tensor) and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x, *rest


def lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer's state the memory layout of its parameters.

    torch's fused kernels walk through both in the order of memory, without looking: after loading
    the state of a run that had another layout, they would pair a weight with another one's moments.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if (
                isinstance(value, torch.Tensor)
                and value.shape == parameter.shape
                and value.stride() != parameter.stride()
            ):
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


@contextmanager
def explained() -> Iterator[None]:
    """Make one line of the many that a failed compilation prints.

    Raises:
        EnvironmentFault: torch.compile failed.
    """
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # The first may only say whose error follows.
        what = next((line for line in lines if not line.endswith("raised:")), str(error))
        raise EnvironmentFault(
            f"torch.compile failed: {what}", "trainer.compile", "set trainer.compile=false"
        ) from error


# Compilation and memory layout, at the right moments of a fit.


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
