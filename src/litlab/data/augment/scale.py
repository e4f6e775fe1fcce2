import torch

from litlab.config.hyperparameters import Fraction
from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class Scale(Augmentation):
    """Multiplies each sequence by a factor of its own between 1 - amount and 1 + amount."""

    kinds = frozenset({"sequence"})

    def __init__(self, spec: DataSpec, *, amount: Fraction = 0.1) -> None:
        super().__init__(spec)
        self.amount = amount

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, C, L)`."""
        return x * draws.uniform(1, 1, low=1 - self.amount, high=1 + self.amount)
