import torch

from litlab.config.hyperparameters import Fraction
from litlab.data.augment.base import Augmentation, inside
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class TimeMask(Augmentation):
    """A span of each sequence becomes the channels' train mean (time masking of SpecAugment).

    Park et al. 2019, section 2. Its length is drawn evenly between nothing and `share` of the
    steps.
    """

    kinds = frozenset({"sequence"})

    mean: torch.Tensor

    def __init__(self, spec: DataSpec, *, share: Fraction = 0.2, p: Fraction = 1.0) -> None:
        super().__init__(spec)
        self.share, self.p = share, p
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None], persistent=False)

    def change(self, x: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, C, L)`."""
        length = x.shape[2]
        hit = draws.bernoulli(self.p)
        number = draws.integers(0, int(self.share * length) + 1) * hit
        return torch.where(inside(number, draws.uniform(), length)[:, None], self.mean, x)
