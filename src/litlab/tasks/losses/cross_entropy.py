from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from litlab.config.hyperparameters import Positive, Probability
from litlab.data.spec import DataSpec
from litlab.tasks.losses.classes import (
    as_probabilities,
    full_precision,
    total_weight,
    weight_vector,
)


class CrossEntropy(nn.Module):
    """Softmax cross-entropy, `-sum_c w_c t_c log p_c`, averaged over the batch.

    With class weights the average divides by the sum of the samples' weights, as torch's does
    for class indices. For soft labels torch divides by B instead, which gives a one-hot target
    another loss than its index; here both give the same.

    Label smoothing mixes the target with the uniform distribution (Szegedy et al., "Rethinking
    the Inception Architecture", CVPR 2016, section 7).

    Args:
        spec: Data whose targets are classes, or tokens.
        label_smoothing: The uniform distribution's share of the target.
        class_weights: One weight per class, "balanced" for `n / (C * n_c)`, or None.

    Raises:
        ValueError: The data have no classes, or the weights do not fit them.
    """

    weight: Tensor | None

    def __init__(
        self,
        spec: DataSpec,
        *,
        label_smoothing: Probability = 0.0,
        class_weights: list[Positive] | Literal["balanced"] | None = None,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        if spec.task == "language_model":
            if class_weights is not None:
                raise ValueError("loss.class_weights does not apply to tokens; set it to null")
            weight = None
        else:
            weight = weight_vector(class_weights, spec, "loss.class_weights")
        # Not saved: the configuration and the data give it again.
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss, a scalar, in nats.

        Args:
            logits: `(B, C)`.
            target: Class indices `(B,)` int64 or probabilities `(B, C)` float.
        """
        logits = full_precision(logits)
        if target.is_floating_point():
            target = as_probabilities(logits, target)
        weight = None if self.weight is None else self.weight.to(logits.dtype)
        total = F.cross_entropy(
            logits, target, weight, reduction="sum", label_smoothing=self.label_smoothing
        )
        return total / (len(target) if weight is None else total_weight(target, weight))

    def denominator(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """Return the sum of the samples' weights, a scalar; None without weights."""
        if self.weight is None:
            return None
        return total_weight(targets, self.weight.to(full_precision(outputs).dtype))
