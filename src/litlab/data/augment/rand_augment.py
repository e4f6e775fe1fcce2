import torch

from litlab.config.hyperparameters import Count, Index
from litlab.data.augment import policy
from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class RandAugment(Augmentation):
    """Some operations for each image, one after another, all of one strength (Cubuk et al. 2020).

    Each is drawn from fourteen, so that one may come twice; the sign of what can go either way is
    drawn too. At the greatest strength: rotation by 30 degrees, shear by 0.3, translation by 45 %
    of the side, posterizing to 4 bits. Where the paper's enhancement factor goes from 0.1 to 1.9
    with the strength, so that strength 15 does nothing, here it goes from 1 to 1 ± 0.9. Images are
    sheared about their centre; what comes in from outside is black. Images of one channel have
    no colour: that operation then changes nothing.

    Args:
        spec: The data it is for.
        num_ops: Operations an image, the paper's N.
        magnitude: Their strength, 0 to 30, the paper's M.

    Raises:
        ValueError: There is no such strength.
    """

    kinds = frozenset({"image"})
    on_bytes = True

    def __init__(self, spec: DataSpec, *, num_ops: Count = 2, magnitude: Index = 9) -> None:
        super().__init__(spec)
        if magnitude > policy.MAX_MAGNITUDE:
            raise ValueError(f"magnitude={magnitude}: must be at most {policy.MAX_MAGNITUDE}")
        self.num_ops, self.magnitude = num_ops, magnitude
        share = 150 / 331  # AutoAugment's 150 pixels of ImageNet's 331
        pixels = (spec.shape[2] * share, spec.shape[1] * share)
        self.ranges = policy.Ranges(30.0, 0.3, pixels, 4, 0.9)

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, C, H, W)`."""
        choices = draws.integers(0, len(policy.NAMES), self.num_ops)
        signs = draws.integers(0, 2, self.num_ops) * 2 - 1
        magnitude = torch.full_like(choices[:, 0], self.magnitude)
        for choice, sign in zip(choices.unbind(1), signs.unbind(1), strict=True):
            x = policy.apply(x, choice, magnitude, sign, self.ranges)
        return x
