import torch

from litlab.data.augment.base import Augmentation
from litlab.data.spec import DataSpec
from litlab.hyperparameters import Fraction


class Scale(Augmentation):
    """Multiplies each sequence by a factor of its own between 1 - amount and 1 + amount."""

    kinds = frozenset({"sequence"})

    def __init__(self, spec: DataSpec, *, amount: Fraction = 0.1) -> None:
        super().__init__(spec)
        self.amount = amount

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return `(B, C, L)`."""
        factor = 1 + self.amount * (2 * torch.rand(len(x), 1, 1, device=x.device) - 1)
        return x * factor
