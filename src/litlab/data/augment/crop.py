import kornia.augmentation as K
import torch

from litlab.data.augment.base import Augmentation
from litlab.data.spec import DataSpec
from litlab.hyperparameters import Count


class Crop(Augmentation):
    """Pads each side with zeros and cuts the original size out at random (He et al. 2016, §4.2)."""

    kinds = frozenset({"image"})

    def __init__(self, spec: DataSpec, *, padding: Count = 4) -> None:
        super().__init__(spec)
        # "slice" copies whole pixels; kornia's other mode warps, three times slower here.
        self.crop = K.RandomCrop(spec.shape[1:], padding=padding, cropping_mode="slice")

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return `(B, C, H, W)`, each image shifted by up to `padding` pixels a side."""
        cropped: torch.Tensor = self.crop(x)
        return cropped
