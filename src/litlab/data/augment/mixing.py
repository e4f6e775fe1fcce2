import torch
from torch.nn import functional as F

from litlab.config.hyperparameters import Fraction
from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec

TABLE = 4096  # pieces of Beta's quantile function


class Mixing(Augmentation):
    """Mixes each sample with a partner, and their labels in the same share.

    The loader serves the partners as the batch's second half. Class numbers become soft labels
    `(B, C)`; regression targets are mixed as they are.

    Args:
        spec: The data it is for.
        p: Share of the samples that are mixed.

    Raises:
        ValueError: The data's targets cannot be mixed.
    """

    mixes = True

    def __init__(self, spec: DataSpec, p: Fraction) -> None:
        super().__init__(spec)
        if spec.task == "language_model":
            raise ValueError(
                f"{type(self).__name__} mixes labels, and the targets of '{spec.name}' are tokens"
            )
        self.p, self.num_classes = p, len(spec.classes)

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mixed inputs and soft targets of the first half.

        Args:
            x: `(2B, ...)`, the batch and then the partners.
            y: `(2B,)` class numbers, or `(2B, T)` float.
            draws: Of the batch's samples, `(B,)` or more of them.
        """
        self.follow(x.device)
        if self.num_classes and not y.is_floating_point():
            y = F.one_hot(y, self.num_classes).to(torch.float32)
        (x, partner), (y, other) = x.chunk(2), y.chunk(2)
        draws = draws.first(len(x))
        hit = draws.bernoulli(self.p)
        mixed, share = self.mix(x, partner, hit, draws)
        return mixed, torch.lerp(other, y, share.to(y.dtype).reshape(-1, *(1,) * (y.ndim - 1)))

    def mix(
        self, x: torch.Tensor, partner: torch.Tensor, hit: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mixed inputs and each sample's own share in them, `(B,)`; 1 where not hit."""
        raise NotImplementedError


class BetaTable(torch.nn.Module):
    """Draws from Beta(alpha, alpha), by its quantile function.

    Linear between 4097 points of equal probability, so its distribution function is off by at most
    1/4096; a rejection sampler would need as many draws as it happens to need.
    """

    quantiles: torch.Tensor

    def __init__(self, alpha: float) -> None:
        super().__init__()
        import numpy as np
        from scipy.special import betaincinv

        points = betaincinv(alpha, alpha, np.linspace(0, 1, TABLE + 1))
        quantiles = torch.from_numpy(points).to(torch.float32)
        self.register_buffer("quantiles", quantiles, persistent=False)

    def forward(self, draws: Draws) -> torch.Tensor:
        """Return `(B,)` in [0, 1]."""
        place = draws.uniform() * TABLE
        piece = place.floor().to(torch.int64)
        low, high = self.quantiles[piece], self.quantiles[piece + 1]
        return torch.lerp(low, high, place - piece)
