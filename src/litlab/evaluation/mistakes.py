"""The test samples that a network got most wrong, in the words of their source."""

import torch

from litlab.data.encode import decode
from litlab.data.loading.arrays import Split
from litlab.data.spec import DataSpec
from litlab.evaluation.inference import Outputs
from litlab.evaluation.language_model import TokenOutputs, context
from litlab.report.page import Mistake, WorstSamples
from litlab.utils.output import number

MOST = 12
COLUMNS = 4  # of a table, that are shown
TEXT = 240  # characters of a text
STEPS = 120  # of a sequence
SURE = "The misclassified test samples of highest confidence."


def surest(outputs: Outputs, split: Split, spec: DataSpec) -> list[Mistake]:
    """Return wrongly classified images, those that the network was surest of first."""
    if spec.kind != "image" or not spec.classes:
        return []
    confidence, label, order = _wrong(outputs, split.y)
    return [
        Mistake(
            sample=split.x[i].numpy(),
            actual=spec.classes[int(split.y[i])],
            predicted=spec.classes[int(label[i])],
            confidence=float(confidence[i]),
        )
        for i in order
    ]


def worst(outputs: Outputs | TokenOutputs, split: Split, spec: DataSpec) -> WorstSamples | None:
    """Return the worst predictions as a table; None where there are none, or a gallery is better.

    Of a classification, mistakes by the confidence in them; of a regression, the largest errors, of
    several targets each in deviations of its own; of a language model, tokens.
    """
    if isinstance(outputs, TokenOutputs):
        return _tokens(outputs, spec)
    if spec.classes and spec.kind == "image":
        return None
    found = _classified(outputs, split, spec) if spec.classes else _regressed(outputs, split, spec)
    samples, title, note, columns, cells = found
    if not samples:
        return None
    at = torch.tensor(samples)
    names, inputs = _inputs(split.take(at)[0], spec)
    index = split.source_index[at].tolist()
    rows = [[str(i), *own, *cell] for i, own, cell in zip(index, inputs, cells, strict=True)]
    note += " The index is that of predictions.csv: its place in the source, from 0."
    return WorstSamples(
        title, note, ["Index", *names, *columns], rows, _curves(split.take(at)[0], spec)
    )


Found = tuple[list[int], str, str, list[str], list[list[str]]]


def _classified(outputs: Outputs, split: Split, spec: DataSpec) -> Found:
    confidence, label, order = _wrong(outputs, split.y)
    cells = [
        [spec.classes[int(split.y[i])], spec.classes[int(label[i])], f"{100 * confidence[i]:.1f} %"]
        for i in order
    ]
    columns = ["Actual", "Predicted", "Confidence"]
    return order, "Most confident mistakes", SURE, columns, cells


def _regressed(outputs: Outputs, split: Split, spec: DataSpec) -> Found:
    error = outputs.predictions - split.y
    scale = torch.tensor(spec.target_std) if len(spec.targets) > 1 else torch.ones(1)
    size = (error / scale).nan_to_num(torch.inf).abs().flatten()
    order = size.argsort(descending=True, stable=True)[:MOST].tolist()
    several, pairs = len(spec.targets) > 1, [divmod(i, len(spec.targets)) for i in order]
    cells = [
        [spec.targets[t]] * several
        + [number(float(v)) for v in (split.y[i, t], outputs.predictions[i, t], error[i, t])]
        for i, t in pairs
    ]
    columns = ["Target"] * several + ["Actual", "Predicted", "Error"]
    note = "Test samples whose prediction is furthest from the truth"
    note += ", measured in standard deviations of each target." if several else "."
    return [i for i, _ in pairs], "Largest errors", note, columns, cells


def _wrong(outputs: Outputs, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Return confidences and labels of all, and the wrong ones' numbers, the surest first."""
    confidence, label = outputs.predictions.max(1)
    wrong = (label != y).nonzero().flatten()
    order = wrong[confidence[wrong].argsort(descending=True, stable=True)][:MOST]
    return confidence, label, order.tolist()


def _tokens(outputs: TokenOutputs, spec: DataSpec) -> WorstSamples | None:
    wrong = (outputs.predicted != outputs.actual).flatten().nonzero().flatten()
    if not len(wrong):
        return None
    sure = outputs.confidence.flatten()[wrong]
    places = wrong[sure.argsort(descending=True, stable=True)][:MOST].tolist()
    rows = [
        [*context(outputs, spec, place), f"{100 * outputs.confidence.flatten()[place]:.1f} %"]
        for place in places
    ]
    note = "The wrongly predicted tokens of highest confidence."
    columns = ["After", "Actual", "Predicted", "Confidence"]
    return WorstSamples("Most confident mistakes", note, columns, rows)


def _inputs(x: torch.Tensor, spec: DataSpec) -> tuple[list[str], list[list[str]]]:
    """Return what tells samples apart: a table's first columns, a text's words."""
    if spec.kind == "text":
        joint = decode.joint(spec)
        return ["Text"], [[_cut(joint.join(words))] for words in decode.tokens(spec, x)]
    if spec.kind == "tabular":
        return list(spec.feature_names)[:COLUMNS], [row[:COLUMNS] for row in decode.cells(spec, x)]
    return [], [[] for _ in x]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"


def _curves(x: torch.Tensor, spec: DataSpec) -> list[str]:
    """Return the first channel of sequences as points of a polyline, 0 to 100 by 0 to 30."""
    if spec.kind != "sequence":
        return []
    return [_points(sample[0].double()) for sample in x]


def _points(values: torch.Tensor) -> str:
    steps = torch.linspace(0, len(values) - 1, min(len(values), STEPS)).round().long()
    values = values[steps].nan_to_num(0.0)
    low, high = values.min(), values.max()
    heights = 28 - 26 * (values - low) / (high - low).clamp(min=1e-12)
    across = torch.linspace(1, 99, len(values)).tolist()
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, heights.tolist(), strict=True))
