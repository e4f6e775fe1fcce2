import kornia.augmentation as K
import torch

from litlab.data.augment.base import Augmentation
from litlab.data.spec import DataSpec
from litlab.hyperparameters import Fraction


class Erasing(Augmentation):
    """Random Erasing (Zhong et al. 2020): a rectangle of the image is set to zero.

    Args:
        spec: The data it is for.
        p: Share of the images that lose a rectangle.
        area: The rectangle's share of the image, from and to.
    """

    kinds = frozenset({"image"})

    def __init__(
        self, spec: DataSpec, *, p: Fraction = 0.25, area: tuple[Fraction, Fraction] = (0.02, 0.2)
    ) -> None:
        super().__init__(spec)
        if area[0] > area[1]:
            raise ValueError(f"area={list(area)}: the smaller share comes first")
        self.erase = K.RandomErasing(scale=tuple(area), p=p)

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return `(B, C, H, W)`."""
        erased: torch.Tensor = self.erase(x)
        return erased
