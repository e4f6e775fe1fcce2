import kornia.augmentation as K
import torch

from litlab.data.augment.base import Augmentation
from litlab.data.spec import DataSpec
from litlab.hyperparameters import Fraction, NonNegative


class Affine(Augmentation):
    """Turns, moves, scales and shears each image by amounts of its own.

    Args:
        spec: The data it is for.
        degrees: Rotation, up to this either way.
        translate: Shift, up to this share of the height and width.
        scale: Relative size, between 1 - scale and 1 + scale.
        shear: Shear, degrees, up to this either way.
        p: Share of the images that are changed.
    """

    kinds = frozenset({"image"})

    def __init__(
        self,
        spec: DataSpec,
        *,
        degrees: NonNegative = 10.0,
        translate: Fraction = 0.1,
        scale: Fraction = 0.1,
        shear: NonNegative = 0.0,
        p: Fraction = 1.0,
    ) -> None:
        super().__init__(spec)
        self.affine = K.RandomAffine(
            degrees=degrees,
            translate=(translate, translate),
            scale=(1 - scale, 1 + scale),
            shear=shear or None,
            p=p,
        )

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return `(B, C, H, W)`; what comes in from outside is zero."""
        moved: torch.Tensor = self.affine(x)
        return moved
