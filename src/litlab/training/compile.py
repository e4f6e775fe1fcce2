"""The network as this machine runs it fastest: compiled, its images with channels last.

Both change the network in place, and neither its parameters' names nor their values: a checkpoint
fits whichever way it is used.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

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
