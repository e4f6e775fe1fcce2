import torch

from litlab.config.hyperparameters import Count
from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class Shift(Augmentation):
    """Moves each sequence in time by up to `steps` either way; ends wrap around, or become zero."""

    kinds = frozenset({"sequence"})

    def __init__(self, spec: DataSpec, *, steps: Count = 4, wrap: bool = True) -> None:
        super().__init__(spec)
        self.steps, self.wrap = steps, wrap

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, C, L)`."""
        batch, channels, length = x.shape
        by = draws.integers(-self.steps, self.steps + 1, 1, 1)
        places = torch.arange(length, device=x.device) - by
        moved = x.gather(2, (places % length).expand(batch, channels, length))
        return moved if self.wrap else moved * ((places >= 0) & (places < length))
