import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litlab.config.hyperparameters import Positive, Probability
from litlab.data.spec import DataSpec
from litlab.tasks.losses.classes import as_probabilities, full_precision, require_classes


class BinaryCrossEntropy(nn.Module):
    """Sigmoid cross-entropy of each logit against its own class: one class versus the rest.

    Averaged over samples and logits, as torch does, so the value is about 1/C of the sum that
    "ResNet strikes back" (Wightman et al., 2021, section 3) minimizes. Two classes are no other
    case: they have two logits.

    Label smoothing is that of softmax: `t (1 - s) + s / C`. A prediction is the sigmoids divided
    by their sum (`link`, read by `litlab.tasks.task.ClassificationTask.predict`).

    Args:
        spec: Data whose targets are classes.
        pos_weight: How much more the term of a sample's own class weighs; None is 1. At C - 1
            the one positive term weighs as much as the C - 1 negative ones.
        label_smoothing: The uniform distribution's share of the target.

    Raises:
        ValueError: The data have no classes.
    """

    link = "sigmoid"
    pos_weight: Tensor | None

    def __init__(
        self,
        spec: DataSpec,
        *,
        pos_weight: Positive | None = None,
        label_smoothing: Probability = 0.0,
    ) -> None:
        super().__init__()
        require_classes(spec)
        self.label_smoothing = label_smoothing
        weight = None if pos_weight is None else torch.tensor([pos_weight])
        self.register_buffer("pos_weight", weight, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss, a scalar, in nats.

        Args:
            logits: `(B, C)`.
            target: Class indices `(B,)` int64 or probabilities `(B, C)` float.
        """
        logits = full_precision(logits)
        target = as_probabilities(logits, target)
        if self.label_smoothing:
            uniform = self.label_smoothing / logits.shape[1]
            target = target * (1 - self.label_smoothing) + uniform
        weight = None if self.pos_weight is None else self.pos_weight.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
