"""What an evaluation says of each of several labels, and of each sample's."""

from collections.abc import Sequence
from typing import Any

import torch

from litlab.data.loading import Split
from litlab.data.spec import DataSpec
from litlab.evaluation.inference import Outputs
from litlab.report.tables import LabelRow
from litlab.tasks.multi_label import MultiLabelTask, average_precisions
from litlab.tasks.task import Task

SEPARATOR = ";"  # between labels in a cell


def names_of(spec: DataSpec, decided: torch.Tensor) -> list[list[str]]:
    """Return the labels that hold of each sample, by name; `decided` is bool `(N, K)`."""
    return [
        [name for name, holds in zip(spec.classes, row, strict=True) if holds]
        for row in decided.tolist()
    ]


def joined(labels: Sequence[Sequence[str]]) -> list[str]:
    """Return each sample's labels as one text."""
    return [SEPARATOR.join(names) for names in labels]


def label_rows(
    task: MultiLabelTask, outputs: Outputs, split: Split, spec: DataSpec
) -> list[LabelRow]:
    """Return precision, recall, F1, average precision and support of each label.

    A share of nothing is NaN: the precision of a label that was never predicted, the recall and
    average precision of one that no sample has.
    """
    found, truth = task.decide(outputs.predictions), split.y.bool()
    hits, decided, support = (t.sum(0).tolist() for t in (found & truth, found, truth))
    precisions = average_precisions(outputs.predictions.numpy(), split.y.numpy())
    return [
        LabelRow(
            name=name,
            threshold=threshold,
            precision=_share(hits[k], decided[k]),
            recall=_share(hits[k], support[k]),
            f1=_share(2 * hits[k], decided[k] + support[k]),
            average_precision=float(precisions[k]),
            support=support[k],
        )
        for k, (name, threshold) in enumerate(thresholds_of(task, spec).items())
    ]


def prediction_rows(
    task: MultiLabelTask, outputs: Outputs, split: Split, spec: DataSpec
) -> list[dict[str, Any]]:
    """Return one row a sample: the labels it has, those predicted, and each one's probability."""
    actual, predicted = decisions(task, outputs, split, spec)
    index, each = split.source_index.tolist(), outputs.predictions.tolist()
    return [
        {
            "index": i,
            "actual": a,
            "predicted": p,
            **{f"p({n})": round(v, 6) for n, v in zip(spec.classes, values, strict=True)},
        }
        for i, a, p, values in zip(index, joined(actual), joined(predicted), each, strict=True)
    ]


def decisions(
    task: MultiLabelTask, outputs: Outputs, split: Split, spec: DataSpec
) -> tuple[list[list[str]], list[list[str]]]:
    """Return the labels that each sample has, and those that were predicted."""
    return names_of(spec, split.y.bool()), names_of(spec, task.decide(outputs.predictions))


def largest_errors(
    task: MultiLabelTask, outputs: Outputs, split: Split, most: int
) -> list[tuple[int, int]]:
    """Return samples with a wrong label, and that label: those furthest from the truth first."""
    wrong = task.decide(outputs.predictions) != split.y.bool()
    away = (outputs.predictions - split.y.float()).abs().nan_to_num(1.0)
    size, label = torch.where(wrong, away, -1.0).max(1)
    order = size.argsort(descending=True, stable=True)[:most].tolist()
    return [(i, int(label[i])) for i in order if size[i] >= 0]


def thresholds_of(task: Task, spec: DataSpec) -> dict[str, float]:
    """Return the threshold of each label; nothing for another task."""
    if not isinstance(task, MultiLabelTask):
        return {}
    values = task.thresholds.expand(len(spec.classes)).tolist()
    return dict(zip(spec.classes, values, strict=True))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
