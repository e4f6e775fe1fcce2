import torch

from litlab.config.hyperparameters import Fraction, Positive
from litlab.data.augment.cutmix import Paste
from litlab.data.augment.draws import Draws
from litlab.data.augment.mixing import BetaTable, Mixing
from litlab.data.augment.mixup import Blend, Mixup
from litlab.data.spec import DataSpec


class MixupCutMix(Mixing):
    """mixup for some samples, CutMix for the others, as most recipes for large networks do.

    Args:
        spec: The data it is for.
        mixup_alpha: Of mixup's Beta.
        cutmix_alpha: Of CutMix's Beta.
        switch: Share of the mixed samples that get CutMix.
        p: Share of the samples that are mixed.

    Raises:
        ValueError: Its inputs or targets cannot be mixed.
    """

    kinds = Mixup.kinds
    instead = Mixup.instead

    def __init__(
        self,
        spec: DataSpec,
        *,
        mixup_alpha: Positive = 0.2,
        cutmix_alpha: Positive = 1.0,
        switch: Fraction = 0.5,
        p: Fraction = 1.0,
    ) -> None:
        super().__init__(spec, p)
        self.blend, self.paste, self.switch = Blend(spec), Paste(spec), switch
        self.of_mixup, self.of_cutmix = BetaTable(mixup_alpha), BetaTable(cutmix_alpha)

    def mix(
        self, x: torch.Tensor, partner: torch.Tensor, hit: torch.Tensor, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each sample with its partner's part in it, and its own share."""
        cut = draws.bernoulli(self.switch)
        size = torch.where(hit & cut, 1 - self.of_cutmix(draws), 0.0)
        weight = torch.where(hit & ~cut, self.of_mixup(draws), 1.0)
        mixed, share = self.paste(x, partner, size, draws)
        return self.blend(mixed, partner, weight), share * weight
