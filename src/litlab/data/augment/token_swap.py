import math

import torch

from litlab.config.hyperparameters import Fraction
from litlab.data.augment.base import TextAugmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class TokenSwap(TextAugmentation):
    """Lets tokens of a text change places (random swap of EDA, Wei and Zou 2019).

    Args:
        spec: The data it is for.
        share: Swaps for each token: a text of n tokens has n times as many on average. The two
            places of a swap may be the same one.
    """

    def __init__(self, spec: DataSpec, *, share: Fraction = 0.1) -> None:
        super().__init__(spec)
        self.share = share

    def rewrite(self, x: torch.Tensor, length: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, L)`."""
        number = (self.share * length + draws.uniform()).floor()  # rounded up or down at random
        x, row = x.clone(), torch.arange(len(x), device=x.device)
        most = math.ceil(self.share * x.shape[1])
        last = (length - 1).clamp(min=0)[:, None]
        pairs = (draws.uniform(2 * most) * length[:, None]).floor().to(torch.int64)
        pairs = torch.minimum(pairs, last)  # in float32, u * n may round up to n
        for i in range(most):
            one, other = pairs[:, 2 * i], pairs[:, 2 * i + 1]
            other = torch.where(i < number, other, one)
            x[row, one], x[row, other] = x[row, other], x[row, one]
        return x
