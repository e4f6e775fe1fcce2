import torch

from litlab.config.hyperparameters import NonNegative
from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class Noise(Augmentation):
    """Adds Gaussian noise; `std` is in units of the train split's own deviation.

    The deviation is that of each channel, or of each feature of a table, whose categorical codes
    stay as they are.
    """

    kinds = frozenset({"image", "sequence", "tabular"})

    amount: torch.Tensor

    def __init__(self, spec: DataSpec, *, std: NonNegative = 0.1) -> None:
        super().__init__(spec)
        amount = std * torch.tensor(spec.std)
        if spec.kind == "tabular":
            amount[spec.num_numeric :] = 0
        amount = amount.reshape(-1, *(1,) * (len(spec.shape) - 1))
        self.register_buffer("amount", amount, persistent=False)

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return the same shape."""
        return draws.normal(*x.shape[1:]).mul_(self.amount).add_(x)
