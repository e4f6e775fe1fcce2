"""What the classification losses share: class weights, and targets as probabilities.

B samples, C classes.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from litlab.config.hyperparameters import Positive
from litlab.data.spec import DataSpec


def require_classes(spec: DataSpec) -> None:
    """Refuse data whose targets are not classes.

    Raises:
        ValueError: The data are a regression problem, or a language model's.
    """
    if spec.task != "classification":
        others = "loss=mse, loss=mae or loss=huber"
        raise ValueError(
            f"loss: a classification loss needs classes, but data '{spec.name}' are for"
            f" {spec.task}; set {others if spec.task == 'regression' else 'loss=cross_entropy'}"
        )


def weight_vector(
    weights: list[Positive] | Literal["balanced"] | None, spec: DataSpec, setting: str
) -> Tensor | None:
    """Return the weight of each class, `(C,)` float32, or None when all weigh the same.

    "balanced" is `n / (C * n_c)`, the formula of scikit-learn's `compute_class_weight`, from the
    counts of the train split (King and Zeng, "Logistic Regression in Rare Events Data", 2001).

    Args:
        weights: One weight per class, in the order of `spec.classes`, or "balanced", or None.
        spec: Where the classes and their counts come from.
        setting: The setting's full name, for the messages.

    Raises:
        ValueError: There is not one weight per class, or balancing finds a class without samples.
    """
    require_classes(spec)
    if weights is None:
        return None
    classes = ", ".join(spec.classes)
    if weights == "balanced":
        counts = torch.tensor(spec.class_counts, dtype=torch.float64)
        if len(counts) != len(spec.classes) or not bool((counts > 0).all()):
            raise ValueError(
                f"{setting}: 'balanced' needs at least one training sample of each class"
                f" ({classes}), the counts are {list(spec.class_counts)}; give the weights as a"
                " list"
            )
        return (counts.sum() / (len(counts) * counts)).float()
    if len(weights) != len(spec.classes):
        raise ValueError(
            f"{setting}: {len(weights)} weights for {len(spec.classes)} classes ({classes});"
            " give one weight per class, in this order"
        )
    return torch.tensor(list(weights), dtype=torch.float32)


def full_precision(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 at least: bfloat16 keeps 8 bits, float16 overflows at 65504."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def as_probabilities(logits: Tensor, target: Tensor) -> Tensor:
    """Return the target as class probabilities `(B, C)`.

    Args:
        logits: `(B, C)`.
        target: Class indices `(B,)` int64, or probabilities `(B, C)` float.

    Raises:
        ValueError: The target is neither.
    """
    if target.ndim == 1 and not target.is_floating_point():
        return F.one_hot(target, logits.shape[1]).to(logits.dtype)
    # Checked here because (B, 1) would broadcast against (B, C) in silence.
    if target.shape != logits.shape or not target.is_floating_point():
        raise ValueError(
            f"the target must be class indices (B,) or probabilities {tuple(logits.shape)},"
            f" got {tuple(target.shape)} of {target.dtype}"
        )
    return target.to(logits.dtype)


def total_weight(target: Tensor, weight: Tensor) -> Tensor:
    """Return the sum of the samples' weights, which a weighted mean divides by.

    A sample with soft labels weighs what its classes do on average, so that a one-hot target
    weighs what its index does.

    Args:
        target: Class indices `(B,)` or probabilities `(B, C)`.
        weight: `(C,)`.
    """
    return (target * weight).sum() if target.is_floating_point() else weight[target].sum()
