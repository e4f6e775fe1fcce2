import math

import torch

from litlab.config.hyperparameters import Fraction
from litlab.data.augment.base import Augmentation, inside
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec

RATIO = 0.3  # of height to width, from this to its inverse, as in the paper


class Erasing(Augmentation):
    """Random Erasing (Zhong et al. 2020): a rectangle of the image is set to zero, which is black.

    The ratio of its sides is drawn evenly on a logarithmic scale, so that high and wide ones are
    equally likely (the paper draws the ratio itself); a side longer than the image's is cut off.

    Args:
        spec: The data it is for.
        p: Share of the images that lose a rectangle.
        area: The rectangle's share of the image, from and to.
    """

    kinds = frozenset({"image"})
    on_bytes = True

    def __init__(
        self, spec: DataSpec, *, p: Fraction = 0.25, area: tuple[Fraction, Fraction] = (0.02, 0.2)
    ) -> None:
        super().__init__(spec)
        if area[0] > area[1]:
            raise ValueError(f"area={list(area)}: the smaller share comes first")
        self.p, self.area = p, area

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, C, H, W)`."""
        height, width = x.shape[2:]
        hit = draws.bernoulli(self.p)
        size, shape, top, left = draws.uniform(4).unbind(1)
        area = (self.area[0] + (self.area[1] - self.area[0]) * size) * (height * width)
        root = torch.exp((shape - 0.5) * -math.log(RATIO))  # of the ratio
        rows = ~inside((area.sqrt() * root).round() * hit, top, height)
        columns = ~inside((area.sqrt() / root).round(), left, width)
        # Multiplied, not filled, and by bytes, not by bools: a third of the time.
        keep = rows.to(torch.uint8)[:, :, None] | columns.to(torch.uint8)[:, None]
        return x * keep[:, None]
