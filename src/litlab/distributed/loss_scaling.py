"""A batch shared out among processes: each has its part, and all together take one step.

A process's loss is the mean over its own part, and DDP and FSDP average gradients over processes.
Where the parts differ in size (100 samples in 3 processes: 34, 33, 33), that mean of means is not
the mean over the batch. So each loss is scaled by `W n_r / sum_r n_r`, n_r being what it was
divided by in process r of W: the average of the gradients is then that of one process alone.
"""

from collections.abc import Callable
from typing import Any

import torch

Reduce = Callable[[torch.Tensor], torch.Tensor]
Measured = tuple[torch.Tensor, torch.Tensor]


def scaled(
    loss: torch.Tensor, weight: torch.Tensor | None, share: Any, world: int, reduce: Reduce
) -> torch.Tensor:
    """Return the loss whose gradients, averaged over processes, are those of the whole batch.

    Args:
        loss: The mean loss of this process's part, a scalar.
        weight: What the mean was divided by, where that is not the number of samples.
        share: `(own, all)`: the samples of this process, and of the batch.
        world: How many processes there are.
        reduce: Sums a tensor over all processes.
    """
    own, whole = share
    if weight is None:  # known everywhere, nothing has to be sent
        factor: float = world * own / whole
        return loss * factor
    weight = weight.detach() if own else torch.zeros_like(weight)
    return loss * (world * weight / reduce(weight.clone()))


def counted(
    outputs: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor | None, share: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return what the metrics are to see: nothing, where the sample is a mere stand-in."""
    if share[0]:
        return outputs, targets, weight
    return outputs[:0], targets[:0], None if weight is None else torch.zeros_like(weight)
