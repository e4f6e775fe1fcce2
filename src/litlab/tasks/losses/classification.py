from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litlab.config.hyperparameters import NonNegative, Positive, Probability
from litlab.data.spec import DataSpec


def l1_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """Return `sum |w|` over the weights, a scalar that carries gradients.

    Weights are the parameters of two dimensions or more; biases and the gains of norms are left
    out, for shrinking them does not make a model simpler (Goodfellow et al., "Deep Learning",
    2016, section 7.1). Training adds `lambda * l1_penalty(...)` to the loss of each batch; the
    validation loss goes without it (Tibshirani, "Regression Shrinkage and Selection via the
    Lasso", 1996).
    """
    terms = [parameter.abs().sum() for parameter in parameters if parameter.ndim >= 2]
    return torch.stack(terms).sum() if terms else torch.zeros(())


# What the classification losses share: class weights, and targets as probabilities.
#
# B samples, C classes.


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
