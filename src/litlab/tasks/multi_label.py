"""Several labels a sample: the task, its metrics, and the thresholds that decide each label.

B or N samples, K labels. Metrics take probabilities `(N, K)` and targets of 0 or 1 `(N, K)`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torchmetrics import Metric

from litlab.config.hyperparameters import NonNegative
from litlab.tasks.metrics import EpochMeter, Reduce
from litlab.tasks.task import Batch, OptimizerMaker, Parts, SchedulerMaker, Task

if TYPE_CHECKING:
    from litlab.data.spec import DataSpec

DEFAULT = 0.5  # threshold of a label before one was chosen


def average_precisions(probabilities: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
    """Return each label's average precision `(K,)`, NaN where no sample has the label.

    `sum_n (R_n - R_{n-1}) P_n` over the distinct probabilities, as scikit-learn computes it.
    """
    found, order, ends = _ranked(probabilities, targets)
    ranks = np.arange(1, len(order) + 1)[:, None]
    precision = np.take_along_axis(np.cumsum(found, 0) / ranks, ends, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        averaged: NDArray[np.float64] = (precision * found).sum(0) / found.sum(0)
    return averaged


def best_thresholds(probabilities: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float32]:
    """Return the threshold of each label with the largest F1, `(K,)`; a label holds from it on.

    A threshold lies halfway between two neighbouring probabilities; of several as good, it is the
    one nearest to 0.5. A label that no sample has keeps 0.5.
    """
    found, order, ends = _ranked(probabilities, targets)
    number = found.sum(0)
    ranks = np.arange(1, len(order) + 1)[:, None]
    f1 = 2 * np.cumsum(found, 0) / (ranks + np.maximum(number, 1))
    values = np.take_along_axis(np.asarray(probabilities, np.float64), order, 0)
    below = np.concatenate([values[1:], np.zeros((1, values.shape[1]))])
    halfway = ((values + below) / 2).astype(np.float32)
    # Between neighbours in float32 there is nothing: the upper one itself.
    cuts = np.where(halfway > below, halfway, values.astype(np.float32))
    f1[ends != np.arange(len(order))[:, None]] = -1  # equal probabilities cannot be told apart
    best = f1.max(0)
    away = np.where(f1 >= best - 1e-12, np.abs(cuts - DEFAULT), np.inf)
    chosen = np.take_along_axis(cuts, away.argmin(0)[None], 0)[0]
    kept: NDArray[np.float32] = np.where(number > 0, chosen, DEFAULT).astype(np.float32)
    return kept


def _ranked(
    probabilities: NDArray[Any], targets: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Sort each label's samples by falling probability.

    Returns:
        The targets in that order, the order, and for each place the last one of equal probability,
        `(N, K)` each.
    """
    order = np.argsort(-probabilities, axis=0, kind="stable")
    values = np.take_along_axis(probabilities, order, 0)
    found = np.take_along_axis(targets, order, 0).astype(np.int64)
    places = np.arange(len(order))[:, None]
    last = np.full(values.shape, len(order) - 1)
    last[:-1] = np.where(values[1:] != values[:-1], places[:-1], len(order) - 1)
    ends = np.minimum.accumulate(last[::-1], 0)[::-1]
    return found, order, ends


class _Kept(Metric):
    """Keeps all samples of an epoch."""

    probabilities: list[torch.Tensor]
    targets: list[torch.Tensor]
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("probabilities", "targets"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, probabilities: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in `(N, K)` each."""
        self.probabilities.append(probabilities.detach().float())
        self.targets.append(targets.to(torch.uint8))

    def _arrays(self) -> tuple[NDArray[Any], NDArray[Any]]:
        # Lists, or already joined over processes. On the CPU: cumulative sums of CUDA are refused
        # where the run is to be deterministic.
        parts = [self.probabilities, self.targets]
        joined = [torch.cat(part) if isinstance(part, list) else part for part in parts]
        return joined[0].cpu().numpy(), joined[1].cpu().numpy()


class MeanAveragePrecision(_Kept):
    """The mean over the labels of `average_precisions`; labels that no sample has are left out."""

    higher_is_better = True

    def compute(self) -> torch.Tensor:
        """Return it, a scalar; NaN where there is no label at all."""
        each = average_precisions(*self._arrays())
        known = each[~np.isnan(each)]
        return torch.tensor(known.mean() if len(known) else float("nan"))


class ThresholdSearch(_Kept):
    """Finds each label's threshold; its value is their mean.

    Attributes:
        chosen: What was found when it was computed last, `(K,)`; None before.
    """

    higher_is_better = None

    def __init__(self) -> None:
        super().__init__()
        self.chosen: torch.Tensor | None = None

    def compute(self) -> torch.Tensor:
        """Find the thresholds."""
        self.chosen = torch.from_numpy(best_thresholds(*self._arrays()))
        return self.chosen.mean()


class AtThresholds(Metric):
    """A metric of decisions, at 0.5 or the thresholds that are set.

    Attributes:
        thresholds: One for all, or one for each label `(K,)`.
    """

    thresholds: float | torch.Tensor = DEFAULT
    full_state_update = False

    def decided(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return which labels the samples have, bool `(N, K)`."""
        limit = self.thresholds
        limit = limit.to(probabilities.device) if isinstance(limit, torch.Tensor) else limit
        return probabilities >= limit


class LabelF1(AtThresholds):
    """F1 = 2 TP / (2 TP + FP + FN); 0 where there is nothing to find and nothing was found.

    Args:
        num_labels: K.
        average: macro is the mean of the labels' F1; micro is F1 of all decisions together.
    """

    higher_is_better = True
    hits: torch.Tensor
    decisions: torch.Tensor
    truths: torch.Tensor

    def __init__(self, num_labels: int, *, average: Literal["macro", "micro"] = "macro") -> None:
        super().__init__()
        self.average = average
        for name in ("hits", "decisions", "truths"):
            zeros = torch.zeros(num_labels, dtype=torch.long)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, probabilities: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in `(N, K)` each."""
        decided, truth = self.decided(probabilities), targets.bool()
        self.hits += (decided & truth).sum(0)
        self.decisions += decided.sum(0)
        self.truths += truth.sum(0)

    def compute(self) -> torch.Tensor:
        """Return it, a scalar."""
        hits, of = self.hits, self.decisions + self.truths
        if self.average == "micro":
            hits, of = hits.sum(), of.sum()
        return (2 * hits / of.clamp(min=1)).mean()


class _Share(AtThresholds):
    """A share of samples, or of decisions."""

    counted: torch.Tensor
    total: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("counted", "total"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def compute(self) -> torch.Tensor:
        """Return it, a scalar."""
        return self.counted / self.total


class ExactMatch(_Share):
    """Share of the samples whose labels are all right."""

    higher_is_better = True

    def update(self, probabilities: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in `(N, K)` each."""
        right = (self.decided(probabilities) == targets.bool()).all(1)
        self.counted += right.sum()
        self.total += len(right)


class HammingLoss(_Share):
    """Share of the decisions that are wrong, over all samples and labels."""

    higher_is_better = False

    def update(self, probabilities: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in `(N, K)` each."""
        wrong = self.decided(probabilities) != targets.bool()
        self.counted += wrong.sum()
        self.total += wrong.numel()


class _ChoosingMeter(EpochMeter):
    """Meter of validation, which finds the labels' thresholds as well."""

    SEARCH = "thresholds"

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        super().__init__({**metrics, self.SEARCH: ThresholdSearch()})

    def compute(self, reduce: Reduce = lambda x: x) -> dict[str, float]:
        """Return the epoch's means; `chosen` then has the thresholds."""
        values = super().compute(reduce)
        del values[self.SEARCH]
        return values

    @property
    def chosen(self) -> torch.Tensor | None:
        """The thresholds of the last epoch `(K,)`."""
        search = self.metrics[self.SEARCH]
        assert isinstance(search, ThresholdSearch)
        return search.chosen


class MultiLabelTask(Task):
    """Several labels a sample: logits `(B, K)`, targets 0 or 1 `(B, K)`, shares in mixed samples.

    Each validation finds the threshold of each label with the largest F1; a checkpoint has those
    of its epoch, and evaluations and predictions decide by them. Metrics of training and validation
    decide at 0.5: on the split that thresholds were chosen on, they would flatter.

    By default with binary cross-entropy, and with mean average precision, F1 (macro and micro),
    exact match and Hamming loss. See `Task` for the arguments.

    Attributes:
        thresholds: Probability from which on each label holds, `(K,)`; 0.5 before a validation.
    """

    targets = "multi_label"
    thresholds: torch.Tensor

    def __init__(
        self,
        model: nn.Module,
        spec: "DataSpec | None" = None,
        parts: Parts | None = None,
        *,
        loss: nn.Module | None = None,
        optimizer: OptimizerMaker | None = None,
        scheduler: SchedulerMaker | None = None,
        metrics: Mapping[str, Metric] | None = None,
        monitor: str = "val/loss",
        l1: NonNegative = 0.0,
    ) -> None:
        own: dict[str, Any] = {"loss": loss, "optimizer": optimizer, "scheduler": scheduler}
        super().__init__(model, spec, parts, **own, metrics=metrics, monitor=monitor, l1=l1)
        self.meters["val_split"] = _ChoosingMeter(self.parts.metrics)
        number = len(spec.classes) if spec else 1  # one for all, until there are some
        self.register_buffer("thresholds", torch.full((number,), DEFAULT))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        held = state_dict.get(f"{prefix}thresholds")
        if held is not None and held.shape != self.thresholds.shape and len(self.thresholds) == 1:
            self.thresholds = held.clone().to(self.thresholds)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def default_loss(self) -> nn.Module:
        """Return the binary cross-entropy, in nats."""
        return nn.BCEWithLogitsLoss()

    def default_metrics(self, spec: "DataSpec | None") -> dict[str, Metric]:
        """Return mean average precision, and what is decided by thresholds."""
        metrics: dict[str, Metric] = {"mean_average_precision": MeanAveragePrecision()}
        if spec is not None:
            number = len(spec.classes)
            metrics["f1_macro"] = LabelF1(number, average="macro")
            metrics["f1_micro"] = LabelF1(number, average="micro")
        return {**metrics, "exact_match": ExactMatch(), "hamming_loss": HammingLoss()}

    def measured(self, outputs: torch.Tensor, targets: torch.Tensor) -> Batch:
        """Return probabilities, and 0 or 1; of a mixed sample, the labels of its larger part."""
        if targets.is_floating_point():
            targets = (targets >= 0.5).to(torch.uint8)
        return self.predict(outputs), targets

    def targets_for_loss(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the targets as floats."""
        return targets if targets.is_floating_point() else targets.float()

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the probability of each label `(B, K)`."""
        return outputs.float().sigmoid()

    def decide(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return which labels hold, bool `(B, K)`."""
        return probabilities >= self.thresholds.to(probabilities.device)

    def test_metrics(self) -> dict[str, Metric]:
        """Return the metrics of an evaluation, at the labels' thresholds."""
        metrics = {name: metric.clone() for name, metric in self.parts.metrics.items()}
        for metric in metrics.values():
            if isinstance(metric, AtThresholds):
                metric.thresholds = self.thresholds.cpu()
        return metrics

    def on_validation_epoch_end(self) -> None:
        """Record validation, and take over the thresholds that were found."""
        super().on_validation_epoch_end()
        meter = self._meter("val")
        if isinstance(meter, _ChoosingMeter) and meter.chosen is not None:
            self.thresholds = meter.chosen.to(self.thresholds)
