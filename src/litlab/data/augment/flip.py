import kornia.augmentation as K
import torch

from litlab.data.augment.base import Augmentation
from litlab.data.spec import DataSpec
from litlab.hyperparameters import Fraction


class Flip(Augmentation):
    """Mirrors images left to right, or upside down, where a mirrored sample keeps its label."""

    kinds = frozenset({"image"})

    def __init__(
        self, spec: DataSpec, *, horizontal: Fraction = 0.5, vertical: Fraction = 0.0
    ) -> None:
        super().__init__(spec)
        flips = [(K.RandomHorizontalFlip, horizontal), (K.RandomVerticalFlip, vertical)]
        self.flips = torch.nn.Sequential(*(flip(p=p) for flip, p in flips if p > 0))

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return `(B, C, H, W)`."""
        flipped: torch.Tensor = self.flips(x)
        return flipped
