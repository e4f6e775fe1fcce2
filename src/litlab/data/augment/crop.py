import torch
from torch.nn import functional as F

from litlab.config.hyperparameters import Count
from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class Crop(Augmentation):
    """Pads each side and cuts the original size out at random (He et al. 2016, §4.2).

    Args:
        spec: The data it is for.
        padding: Pixels a side.
        reflect: Whether the padding mirrors the image (as the CIFAR speed runs do); else it is
            zero, which is black.

    Raises:
        ValueError: There are not as many pixels to mirror.
    """

    kinds = frozenset({"image"})
    on_bytes = True

    def __init__(self, spec: DataSpec, *, padding: Count = 4, reflect: bool = False) -> None:
        super().__init__(spec)
        if reflect and padding >= min(spec.shape[1:]):
            raise ValueError(
                f"padding={padding} is too large to reflect images of {spec.shape[1]}x"
                f"{spec.shape[2]}: use at most {min(spec.shape[1:]) - 1}, or reflect=false"
            )
        self.padding, self.mode = padding, "reflect" if reflect else "constant"

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, C, H, W)`, each image shifted by up to `padding` pixels a side."""
        batch, channels, height, width = x.shape
        top, left = draws.integers(0, 2 * self.padding + 1, 2).unbind(1)
        wide = F.pad(x, (self.padding,) * 4, mode=self.mode).contiguous()
        tall, across = wide.shape[2:]
        # Every place in the padded images as the start of a row of `width` pixels: the rows overlap
        # in memory, and index_select copies each in one piece. Eight times as fast as indexing.
        rows = wide.as_strided((wide.numel() - width + 1, width), (1, 1))
        image = torch.arange(batch * channels, device=x.device).reshape(batch, channels, 1)
        row = torch.arange(height, device=x.device) + top[:, None, None]
        start = (image * tall + row) * across + left[:, None, None]
        return rows.index_select(0, start.flatten()).reshape(x.shape)
