import torch

from litlab.config.hyperparameters import Fraction, NonNegative
from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.augment.warp import warp
from litlab.data.spec import DataSpec


class Affine(Augmentation):
    """Turns, moves, scales and shears each image by amounts of its own, bilinearly.

    Args:
        spec: The data it is for.
        degrees: Rotation about the centre, up to this either way.
        translate: Shift, up to this share of the width and of the height either way.
        scale: Relative size, between 1 - scale and 1 + scale.
        shear: Horizontal shear, degrees, up to this either way.
        p: Share of the images that are changed.

    Raises:
        ValueError: An image would shrink to nothing, or be sheared to a line.
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
        if scale == 1 or shear >= 90:
            raise ValueError(f"scale={scale}, shear={shear}: keep scale below 1, shear below 90")
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear
        self.p = p

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, C, H, W)`; what comes in from outside is zero."""
        hit = draws.bernoulli(self.p)
        moved = warp(x, self._sources(x.shape[2], x.shape[3], draws), "bilinear")
        return torch.where(hit[:, None, None, None], moved, x)

    def _sources(self, height: int, width: int, draws: Draws) -> torch.Tensor:
        """Return where each pixel comes from, `(B, 2, 3)`: the inverse of shift, turn and shear."""
        turn, right, down, size, lean = draws.uniform(5, low=-1, high=1).unbind(1)
        turn, lean = (turn * self.degrees).deg2rad(), (lean * self.shear).deg2rad().tan()
        right, down = right * self.translate * width, down * self.translate * height
        size = 1 + size * self.scale
        cos, sin = turn.cos() / size, turn.sin() / size
        unsheared = [[cos + lean * sin, sin - lean * cos], [-sin, cos]]
        rows = [[a, b, -(a * right + b * down)] for a, b in unsheared]
        return torch.stack([torch.stack(row, 1) for row in rows], 1)
