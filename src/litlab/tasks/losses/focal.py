from typing import Literal

import torch
from torch import Tensor, nn

from litlab.config.hyperparameters import NonNegative, Positive
from litlab.data.spec import DataSpec
from litlab.tasks.losses.classes import (
    as_probabilities,
    full_precision,
    total_weight,
    weight_vector,
)


class Focal(nn.Module):
    """Focal loss, `-sum_c alpha_c t_c (1 - p_c)^gamma log p_c`, averaged over the batch.

    Well-classified samples count less, the more so the larger gamma is (Lin et al., "Focal Loss
    for Dense Object Detection", ICCV 2017, equation 5). The paper's p is one sigmoid; ours is the
    softmax over C classes. The paper divides by the number of foreground anchors; we divide by
    the sum of the samples' alpha, so that gamma = 0 is `CrossEntropy` with these class weights.

    Args:
        spec: Data whose targets are classes.
        gamma: The focusing parameter; 0 is cross-entropy, the paper finds 2 best.
        alpha: One weight per class, "balanced" for `n / (C * n_c)`, or None.

    Raises:
        ValueError: The data have no classes, or alpha does not fit them.
    """

    alpha: Tensor | None

    def __init__(
        self,
        spec: DataSpec,
        *,
        gamma: NonNegative = 2.0,
        alpha: list[Positive] | Literal["balanced"] | None = None,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        weight = weight_vector(alpha, spec, "loss.alpha")
        self.register_buffer("alpha", weight, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss, a scalar, in nats.

        Args:
            logits: `(B, C)`.
            target: Class indices `(B,)` int64 or probabilities `(B, C)` float.
        """
        log_p = full_precision(logits).log_softmax(dim=1)
        target = as_probabilities(log_p, target)
        # Where p rounds to 1, 1 - p is 0 and the gradient of its power is infinite for gamma < 1;
        # the clamp makes that gradient 0, which is its limit times log p.
        one_minus_p = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        loss = -target * one_minus_p**self.gamma * log_p
        weight = None if self.alpha is None else self.alpha.to(loss.dtype)
        if weight is None:
            return loss.sum() / len(target)
        return (loss * weight).sum() / total_weight(target, weight)

    def denominator(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """Return the sum of the samples' weights, a scalar; None without weights."""
        if self.alpha is None:
            return None
        return total_weight(targets, self.alpha.to(full_precision(outputs).dtype))
