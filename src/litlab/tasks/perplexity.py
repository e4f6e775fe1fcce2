from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric


class Perplexity(Metric):
    """`exp(mean of -log p)`, p being the probability of the token that came (Jelinek et al. 1977).

    A model that guesses among V tokens has a perplexity of V. Unlike the loss it knows no label
    smoothing. From logits, where torchmetrics' own takes the logarithm of probabilities, which
    float32 rounds to 0.

    Shapes: logits `(N, V)` and token ids `(N,)`.
    """

    higher_is_better = False
    is_differentiable = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Take in N tokens."""
        self.total += F.cross_entropy(logits.float(), targets, reduction="sum")
        self.count += len(targets)

    def compute(self) -> Tensor:
        """Return it, a scalar."""
        return (self.total / self.count).exp()


class BitsPerToken(Perplexity):
    """The mean of `-log2 p`: with a character tokenizer, bits per character."""

    def compute(self) -> Tensor:
        """Return it, a scalar."""
        return self.total / self.count / torch.log(torch.tensor(2.0))
