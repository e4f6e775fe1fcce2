import torch

from litlab.data.augment.base import Augmentation
from litlab.data.spec import DataSpec
from litlab.hyperparameters import NonNegative


class Noise(Augmentation):
    """Adds Gaussian noise; `std` is in units of the train split's own deviation, by channel."""

    kinds = frozenset({"image", "sequence", "tabular"})

    amount: torch.Tensor

    def __init__(self, spec: DataSpec, *, std: NonNegative = 0.1) -> None:
        super().__init__(spec)
        tail = (1,) * (len(spec.shape) - 1)
        amount = std * torch.tensor(spec.std).reshape(-1, *tail)
        self.register_buffer("amount", amount, persistent=False)

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same shape."""
        return x + torch.randn_like(x) * self.amount.to(x.device)
