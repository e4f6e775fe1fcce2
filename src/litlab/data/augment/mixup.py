import torch

from litlab.config.hyperparameters import Fraction, Positive
from litlab.data.augment.draws import Draws
from litlab.data.augment.mixing import BetaTable, Mixing
from litlab.data.spec import DataSpec


class Mixup(Mixing):
    """mixup (Zhang et al. 2018): weighted means of pairs of samples and of their labels.

    The weight is drawn from Beta(alpha, alpha), once a sample (the paper draws once a batch). A
    table's categorical codes have no mean: they are those of the sample of the greater weight.

    Args:
        spec: The data it is for.
        alpha: Of Beta: small values leave most pairs nearly as they were, 1 draws evenly.
        p: Share of the samples that are mixed.

    Raises:
        ValueError: Its inputs or targets cannot be mixed.
    """

    kinds = frozenset({"image", "sequence", "tabular"})
    instead = "token ids cannot be averaged: use augment=cutmix"

    def __init__(self, spec: DataSpec, *, alpha: Positive = 0.2, p: Fraction = 1.0) -> None:
        super().__init__(spec, p)
        self.blend, self.beta = Blend(spec), BetaTable(alpha)

    def mix(
        self, x: torch.Tensor, partner: torch.Tensor, hit: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weighted mean, and the weight."""
        weight = torch.where(hit, self.beta(draws), 1.0)
        return self.blend(x, partner, weight), weight


class Blend(torch.nn.Module):
    """The weighted mean of two samples; of codes, the one that weighs more."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.num_numeric = spec.num_numeric if spec.cardinalities else None

    def forward(self, x: torch.Tensor, partner: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return inputs of x's shape; `weight` `(B,)` is x's own."""
        weight = weight.reshape(-1, *(1,) * (x.ndim - 1))
        mixed = torch.lerp(partner, x, weight)
        if self.num_numeric is not None:
            codes = slice(self.num_numeric, None)
            mixed[:, codes] = torch.where(weight >= 0.5, x[:, codes], partner[:, codes])
        return mixed
