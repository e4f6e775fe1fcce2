"""What a preview says of a data set and of one of its batches, before anything is drawn."""

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Range:
    """Smallest value, mean and largest value."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, of which there is one more."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Lengths:
    """How many tokens the texts of a split have.

    Attributes:
        minimum: Of the shortest.
        median: Half of the texts are longer.
        p95: A twentieth of the texts are longer.
        maximum: Of the longest.
        at_limit: Texts as long as the longest that is kept: at most so many were cut.
        padding: Share of the positions in this run's batches that are padding.
        histogram: Of the lengths.
    """

    minimum: int
    median: float
    p95: float
    maximum: int
    at_limit: int
    padding: float
    histogram: Histogram


@dataclass(frozen=True)
class SplitStatistics:
    """One split.

    Attributes:
        size: Samples; windows of a language model.
        looked_at: Of how many samples `values` (or `tokens`) are.
        classes: Samples a class.
        targets: Of a regression, by target.
        histogram: Of a regression's first target.
        values: By channel or numeric column, in the units that augmentation sees: images of bytes
            in [0, 1].
        lengths: Of texts.
        tokens: How often the most frequent ones come, of a language model's text.
    """

    size: int
    looked_at: int
    classes: dict[str, int] = field(default_factory=dict)
    targets: dict[str, Range] = field(default_factory=dict)
    histogram: Histogram | None = None
    values: dict[str, Range] = field(default_factory=dict)
    lengths: Lengths | None = None
    tokens: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchStatistics:
    """The samples that are shown.

    Attributes:
        shown: How many.
        size: Of the batch they are the first of.
        changed: How many of them augmentation changed, label or input.
        values: As in `SplitStatistics`, after augmentation.
        model_input: All values after normalization: what the model sees; None of texts.
    """

    shown: int
    size: int
    changed: int
    values: dict[str, Range] = field(default_factory=dict)
    model_input: Range | None = None


@dataclass(frozen=True)
class Statistics:
    """All that is written as JSON.

    `sizes` are of all three splits, as prepared; of the test split nothing else is known here, for
    only an evaluation opens it. `guard` is what the leakage check said when the data were prepared.
    """

    data: str
    kind: str
    task: str
    shape: tuple[int, ...]
    seed: int
    epoch: int
    augment: tuple[str, ...]
    sizes: dict[str, int]
    splits: dict[str, SplitStatistics]
    batch: BatchStatistics
    guard: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreviewSamples:
    """n samples of a training batch.

    Images `(n, C, H, W)` in [0, 1], to look at, and sequences `(n, C, L)` in their unit are arrays;
    of tables and texts there is a list of cells or tokens a sample.

    Attributes:
        before: As prepared.
        after: Augmented; None where nothing is configured that would change them.
        labels: As prepared, in words; empty for a language model.
        new_labels: Augmented.
        targets: The tokens that a language model is to predict.
        joint: What stands between two tokens.
    """

    before: NDArray[Any] | list[list[str]]
    after: NDArray[Any] | list[list[str]] | None
    labels: list[str] = field(default_factory=list)
    new_labels: list[str] = field(default_factory=list)
    targets: list[list[str]] = field(default_factory=list)
    joint: str = " "
