import torch

from litlab.config.hyperparameters import Fraction
from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class Flip(Augmentation):
    """Mirrors images left to right, or upside down, where a mirrored sample keeps its label.

    Args:
        spec: The data it is for.
        horizontal: Share of the images that are mirrored left to right.
        vertical: Share of the images that are turned upside down.
        alternate: Whether each image is mirrored left to right in every other epoch, a coin of its
            own telling in which (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024):
            any two epochs in a row show it both ways.

    Raises:
        ValueError: They alternate, and the share is not one half.
    """

    kinds = frozenset({"image"})
    on_bytes = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        horizontal: Fraction = 0.5,
        vertical: Fraction = 0.0,
        alternate: bool = False,
    ) -> None:
        super().__init__(spec)
        if alternate and horizontal != 0.5:
            raise ValueError(
                f"horizontal={horizontal}, but alternate=true mirrors each image in half of "
                "the epochs; set horizontal=0.5, or alternate=false"
            )
        self.horizontal, self.vertical, self.alternate = horizontal, vertical, alternate

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, C, H, W)`."""
        if self.alternate:
            mirrored = draws.lasting().bernoulli(0.5) ^ bool(draws.epoch % 2)
            x = _choose(x, x.flip(3), mirrored)
        elif self.horizontal:
            x = _choose(x, x.flip(3), draws.stream("horizontal").bernoulli(self.horizontal))
        if self.vertical:
            x = _choose(x, x.flip(2), draws.stream("vertical").bernoulli(self.vertical))
        return x


def _choose(x: torch.Tensor, flipped: torch.Tensor, hit: torch.Tensor) -> torch.Tensor:
    """Take whole images from one or the other; copying images is faster than choosing pixels."""
    place = torch.arange(len(x), device=x.device) + len(x) * hit
    return torch.cat([x, flipped]).index_select(0, place)
