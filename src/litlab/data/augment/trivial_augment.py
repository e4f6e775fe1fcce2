import torch

from litlab.data.augment import policy
from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec

MOST_PIXELS = 32  # of translation


class TrivialAugment(Augmentation):
    """One operation for each image, of a strength drawn at random (Müller and Hutter 2021).

    Each of fourteen operations is as likely as another, each strength of 0 to 30 too; there is
    nothing to tune. `wide` is the paper's wide space, TA (Wide): rotation to 135 degrees, shear to
    0.99, translation to 32 pixels, posterizing to 2 bits, enhancement by a factor of 0.01 to 1.99.
    The other space is that of RandAugment's operations: 30 degrees, 0.3, 10 of 32 pixels, 4 bits,
    0.1 to 1.9.

    Unlike in the paper's code, translation ends at half of a side, so that something of a small
    image stays, and images are sheared about their centre. What comes in from outside is black.
    Images of one channel have no colour: that operation then changes nothing.

    Args:
        spec: The data it is for.
        wide: Whether to go to the ends of the wide space.
    """

    kinds = frozenset({"image"})
    on_bytes = True

    def __init__(self, spec: DataSpec, *, wide: bool = True) -> None:
        super().__init__(spec)
        height, width = spec.shape[1:]
        if wide:
            pixels = (min(MOST_PIXELS, width / 2), min(MOST_PIXELS, height / 2))
            self.ranges = policy.Ranges(135.0, 0.99, pixels, 6, 0.99)
        else:
            self.ranges = policy.Ranges(30.0, 0.3, (width * 10 / 32, height * 10 / 32), 4, 0.9)

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, C, H, W)`."""
        choice = draws.integers(0, len(policy.NAMES))
        magnitude = draws.integers(0, policy.MAX_MAGNITUDE + 1)
        sign = draws.integers(0, 2) * 2 - 1
        return policy.apply(x, choice, magnitude, sign, self.ranges)
