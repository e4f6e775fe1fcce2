"""Losses of several labels a sample: a sigmoid for each, and the mean over samples and labels.

B samples, K labels; targets are 0 or 1, or shares of mixed samples.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litlab.config.hyperparameters import Fraction, NonNegative, Positive
from litlab.data.spec import DataSpec
from litlab.tasks.losses.classification import full_precision


def require_labels(spec: DataSpec) -> None:
    """Refuse data whose samples do not have several labels.

    Raises:
        ValueError: They are for another task.
    """
    if spec.task != "multi_label":
        raise ValueError(
            f"loss: needs several labels a sample, but data '{spec.name}' are for {spec.task};"
            " leave loss out"
        )


def positive_weights(
    weights: list[Positive] | Positive | Literal["balanced"] | None, spec: DataSpec
) -> Tensor | None:
    """Return how much more samples with a label weigh, `(K,)` float32, or None for 1.

    "balanced" is `(n - n_k) / n_k`, from the counts of the train split: those with the label weigh
    together as much as those without it.

    Args:
        weights: One for each label, in the order of `spec.classes`, or one for all.
        spec: Where the labels and their counts come from.

    Raises:
        ValueError: There is not one weight for each label, or none to be balanced by.
    """
    names = ", ".join(spec.classes)
    if weights is None:
        return None
    if weights == "balanced":
        counts = torch.tensor(spec.class_counts, dtype=torch.float64)
        total = spec.sizes["train"]
        rare = [n for n, c in zip(spec.classes, counts, strict=True) if not 0 < c < total]
        if rare:
            raise ValueError(
                "loss.pos_weight: 'balanced' needs train samples with and without each label, not"
                f" so {', '.join(rare)}; give the weights as a list of {len(counts)}"
            )
        return ((total - counts) / counts).float()
    listed = [weights] * len(spec.classes) if isinstance(weights, int | float) else list(weights)
    if len(listed) != len(spec.classes):
        raise ValueError(
            f"loss.pos_weight: {len(listed)} weights for {len(spec.classes)} labels ({names});"
            " give one for each, in this order"
        )
    return torch.tensor(listed, dtype=torch.float32)


class LabelCrossEntropy(nn.Module):
    """Binary cross-entropy of each label, from logits: torch's `BCEWithLogitsLoss`.

    There is no label smoothing: which labels a sample lacks is known, and smoothing towards 1/2
    would only move the thresholds, which are chosen on validation anyhow.

    Args:
        spec: Data with several labels a sample.
        pos_weight: How much more the samples with a label weigh: one number, one for each label,
            "balanced" for `(n - n_k) / n_k`, or None for 1.

    Raises:
        ValueError: The data are for another task, or the weights do not fit them.
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        spec: DataSpec,
        *,
        pos_weight: list[Positive] | Positive | Literal["balanced"] | None = None,
    ) -> None:
        super().__init__()
        require_labels(spec)
        # Not saved: the configuration and the data give it again.
        self.register_buffer("pos_weight", positive_weights(pos_weight, spec), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of `(B, K)` logits and targets, a scalar, in nats."""
        logits = full_precision(logits)
        weight = None if self.pos_weight is None else self.pos_weight.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(
            logits, target.to(logits.dtype), pos_weight=weight
        )


class LabelFocal(nn.Module):
    """Focal loss of each label, `-alpha_t (1 - p_t)^gamma log p_t`, p_t of the true answer.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5, with its sigmoid.
    The paper divides by the number of foreground anchors; this is the mean over samples and labels.

    Args:
        spec: Data with several labels a sample.
        gamma: The focusing parameter; 0 is the cross-entropy.
        alpha: Weight of the samples with a label, 1 - alpha being that of the others; None weighs
            both by 1. The paper has 0.25 with gamma = 2.

    Raises:
        ValueError: The data are for another task.
    """

    def __init__(
        self, spec: DataSpec, *, gamma: NonNegative = 2.0, alpha: Fraction | None = None
    ) -> None:
        super().__init__()
        require_labels(spec)
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of `(B, K)` logits and targets, a scalar, in nats."""
        logits = full_precision(logits)
        target = target.to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        p = logits.sigmoid()
        wrong = p * (1 - target) + (1 - p) * target  # 1 - p_t, of a mixed sample their mean
        # The clamp: at 0 the gradient of a power below 1 is infinite.
        loss = loss * wrong.clamp_min(torch.finfo(loss.dtype).tiny) ** self.gamma
        if self.alpha is not None:
            loss = loss * (self.alpha * target + (1 - self.alpha) * (1 - target))
        return loss.mean()
