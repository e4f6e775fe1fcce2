"""Numbers about prepared data, from a bounded sample: quick for any size."""

import math
from collections import Counter
from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch

from litlab.data.encode.decode import token_names
from litlab.data.loading.arrays import Split
from litlab.data.loading.bucket_sampler import padding_share
from litlab.data.loading.preprocess import Preprocess
from litlab.data.spec import Array, DataSpec
from litlab.report.preview.batch import Histogram, Lengths, Range, SplitStatistics

SAMPLES = 1000
VALUES = 2**21  # numbers looked at
TOKENS = 2**20
BATCHES = 500  # whose padding is counted
FREQUENT = 100  # tokens
BINS = 30
COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}


def describe(split: Split, spec: DataSpec, batches: Iterable[torch.Tensor]) -> SplitStatistics:
    """Return the statistics of an opened split.

    Args:
        split: Train or validation.
        spec: The data.
        batches: Sample numbers of an epoch's batches, for the share of padding.
    """
    if spec.task == "language_model":
        number = min(len(split.x), TOKENS)
        return SplitStatistics(len(split), number, tokens=_frequent(split.x[:number], spec))
    classes, targets, histogram, lengths = {}, {}, None, None
    if spec.task == "regression":
        y = split.y.numpy()
        targets = dict(zip(spec.targets, ranges(y), strict=True))
        histogram = _histogram(y[:, 0])
    else:
        counts = torch.bincount(split.y, minlength=len(spec.classes)).tolist()
        classes = dict(zip(spec.classes, counts, strict=True))
    if split.lengths is not None:
        lengths = _lengths(split.lengths, spec.shape[0], batches)
        return SplitStatistics(len(split), len(split), classes, targets, histogram, lengths=lengths)
    number = min(len(split), SAMPLES, max(1, VALUES // math.prod(spec.shape)))
    rows = torch.linspace(0, len(split) - 1, number, dtype=torch.float64).long()
    x = Preprocess(spec).to_float(split.take(rows)[0])
    return SplitStatistics(
        len(split), number, classes, targets, histogram, values=by_name(x.numpy(), spec)
    )


def by_name(x: Array, spec: DataSpec) -> dict[str, Range]:
    """Return the ranges of samples `(n, C or F, ...)` by channel or numeric column."""
    if spec.kind == "text":
        return {}
    tabular = spec.kind == "tabular"
    number = spec.num_numeric if tabular else spec.shape[0]
    names = spec.feature_names if tabular else tuple(f"channel {i}" for i in range(number))
    if spec.kind == "sequence" and number == 1:
        names = ("value",)
    if spec.kind == "image":
        names = COLOURS.get(number, names)
    return dict(zip(names[:number], ranges(x[:, :number]), strict=True))


def ranges(x: Array) -> list[Range]:
    """Return the range of each column of `(n, F, ...)`."""
    moved = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
    low, mean, high = moved.min(1), moved.mean(1, dtype=np.float64), moved.max(1)
    return [Range(*map(float, three)) for three in zip(low, mean, high, strict=True)]


def _frequent(ids: torch.Tensor, spec: DataSpec) -> dict[str, int]:
    counts = torch.bincount(ids)
    number, found = counts.topk(min(FREQUENT, int((counts > 0).sum())))
    names = token_names(spec, found.numpy())
    frequent: Counter[str] = Counter()
    for i, n in zip(found.tolist(), number.tolist(), strict=True):
        frequent[names[i]] += n  # two parts of a character may both be written as "�"
    return dict(frequent)


def _lengths(lengths: torch.Tensor, limit: int, batches: Iterable[torch.Tensor]) -> Lengths:
    values = lengths.numpy()
    median, p95 = np.percentile(values, [50, 95])
    return Lengths(
        minimum=int(values.min()),
        median=float(median),
        p95=float(p95),
        maximum=int(values.max()),
        at_limit=int((values >= limit).sum()),
        padding=padding_share(lengths, islice(batches, BATCHES)),
        histogram=_histogram(values),
    )


def _histogram(values: Array) -> Histogram:
    """Count values in bins of equal width; those of whole numbers are whole numbers wide."""
    low, high = float(values.min()), float(values.max())
    bins = int(np.clip(2 * len(values) ** (1 / 3), 5, BINS))  # Rice's rule, within reason
    if values.dtype.kind in "iu":
        step = max(1, math.ceil((high - low + 1) / bins))
        edges = np.arange(low, high + 1 + step, step) - 0.5
    elif low < high:
        edges = np.linspace(low, high, bins + 1)
    else:
        edges = np.array([low - 0.5, low + 0.5])
    counts, _ = np.histogram(values, edges)
    return Histogram(edges.tolist(), counts.tolist())
