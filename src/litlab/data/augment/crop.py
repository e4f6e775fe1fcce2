import torch
from torch.nn import functional as F

from litlab.data.augment.base import Augmentation
from litlab.data.spec import DataSpec
from litlab.hyperparameters import Count


class Crop(Augmentation):
    """Pads each side, then cuts the original size out at a random place (He et al. 2016, §4.2).

    Padding is zeros, as in the paper. Every sample has its own place: one gather, no kornia (whose
    RandomCrop warps by a homography and is several times slower for whole-pixel shifts).
    """

    kinds = frozenset({"image"})

    def __init__(self, spec: DataSpec, *, padding: Count = 4) -> None:
        super().__init__(spec)
        self.padding = padding

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """Return `(B, C, H, W)`, each image shifted by up to `padding` pixels a side."""
        batch, _, height, width = x.shape
        padded = F.pad(x, (self.padding,) * 4)
        top, left = torch.randint(0, 2 * self.padding + 1, (2, batch), device=x.device)
        rows = (top[:, None] + torch.arange(height, device=x.device))[:, None, :, None]
        columns = (left[:, None] + torch.arange(width, device=x.device))[:, None, None, :]
        samples = torch.arange(batch, device=x.device)[:, None, None, None]
        channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
        return padded[samples, channels, rows, columns]
