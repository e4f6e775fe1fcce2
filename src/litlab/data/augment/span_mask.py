import torch

from litlab.config.hyperparameters import Fraction
from litlab.data.augment.base import TextAugmentation, inside, mask_id
from litlab.data.augment.draws import Draws
from litlab.data.spec import DataSpec


class SpanMask(TextAugmentation):
    """Hides a span of each text, as in Joshi et al. 2020 (SpanBERT) and Park et al. 2019.

    Its tokens become `<mask>`, or `<unk>` where the vocabulary lacks it; where it lacks both, each
    becomes any token at random.

    Args:
        spec: The data it is for.
        share: The span's share of the text's tokens: at least one is hidden, at least one stays.
        p: Share of the texts that lose a span.
    """

    def __init__(self, spec: DataSpec, *, share: Fraction = 0.15, p: Fraction = 0.5) -> None:
        super().__init__(spec)
        assert spec.vocab_size is not None
        self.share, self.p = share, p
        self.mask_id, self.vocab_size = mask_id(spec), spec.vocab_size

    def rewrite(self, x: torch.Tensor, length: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return `(B, L)`."""
        number = torch.minimum((self.share * length).round().clamp(min=1), length - 1)
        hit, at = draws.bernoulli(self.p), draws.uniform()
        hidden = inside(number.clamp(min=0) * hit, at, x.shape[1], length)
        if self.mask_id is not None:
            return x.masked_fill(hidden, self.mask_id)
        other = draws.integers(0, self.vocab_size - 1, x.shape[1])
        return torch.where(hidden, (other + (other >= self.pad_id)).to(x.dtype), x)
