from typing import ClassVar

import torch
from torch import nn

from litlab.data.spec import DataSpec


class Augmentation(nn.Module):
    """Changes a training batch: `(x, y) -> (x, y)`, whole batches, each sample its own draw.

    It sees inputs before normalization: images in [0, 1], sequences and tables in their own unit.
    Random numbers come from torch's global generator, which the run's seed sets.

    Args:
        spec: The data it is for.

    Raises:
        ValueError: It is not made for this kind of data.
    """

    kinds: ClassVar[frozenset[str]]

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if spec.kind not in self.kinds:
            name, made_for = type(self).__name__, " and ".join(sorted(self.kinds))
            raise ValueError(f"{name} is for {made_for} data; '{spec.name}' is {spec.kind}")

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the changed batch; labels stay unless a subclass mixes them."""
        return self.change(x), y

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return changed inputs of the same shape."""
        raise NotImplementedError
