from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from matplotlib.figure import Figure
from numpy.typing import NDArray

from litlab.data.spec import DataSpec
from litlab.report import figures, tables, words
from litlab.report.figures import quantities, sample_uri

MAX_MISTAKES = 24
MAX_TARGETS = 6  # figures of about 60 kB each; the page is to stay under 600 kB


@dataclass(frozen=True)
class Mistake:
    """One test sample that the model got wrong, and how sure it was.

    `sample` is a uint8 image `(C, H, W)`; `confidence` is in [0, 1]: of the prediction, or with
    several labels of the one that it is `about`.
    """

    sample: NDArray[np.uint8]
    actual: str
    predicted: str
    confidence: float
    about: str = ""


@dataclass(frozen=True)
class WorstSamples:
    """Other samples than images that the model got most wrong, as a table.

    `curves` are sequences drawn as a polyline each, of points in a box of 100 by 30; empty for
    samples that the rows say enough of.
    """

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    curves: Sequence[str] = ()


@dataclass(frozen=True)
class ReportRecord:
    """Everything the page shows, as the run recorded it.

    Args:
        title: Heading of the page.
        spec: What the data are.
        model_name: The configuration's name of the model.
        num_parameters: Trainable parameters.
        model_text: `repr` of the network.
        config_yaml: The whole resolved configuration.
        metrics: Split to metric to value: "test", and "val" at the best epoch.
        history: One row an epoch; see `figures.learning_curves`.
        best_epoch: The epoch whose checkpoint was kept, from 0; the page counts from 1.
        actual: Truth of the test split: class names `(N,)`, 0 or 1 of each label `(N, K)`, or
            numbers `(N,)` or `(N, T)`.
        predicted: Predictions of the test split, shaped like `actual`; of labels, probabilities.
        confidence: `(N,)` probabilities of the predicted class, where there are any.
        intervals: Test metric to its 95 % interval.
        run: Facts of the run, such as run_id, git_commit, git_dirty, device, duration_seconds.
        repeat: Shell commands that repeat the run.
        mistakes: The most confidently wrong test samples; only images are shown.
        worst: The worst predictions of other samples.
        by_target: Of several targets, each one's metrics on the test split.
        labels: Of several labels a sample, each one's.
        written: What a language model writes.
        drawn: Wide figures that have been drawn already, as PNG: "learning_curves",
            "confusion_matrix" and "predicted_TARGET".
    """

    title: str
    spec: DataSpec
    model_name: str
    num_parameters: int
    model_text: str
    config_yaml: str
    metrics: Mapping[str, Mapping[str, float]]
    history: Sequence[dict[str, float | None]] = ()
    best_epoch: int | None = None
    actual: Sequence[str] | NDArray[Any] = ()
    predicted: Sequence[str] | NDArray[Any] = ()
    confidence: NDArray[Any] | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    run: Mapping[str, str] = field(default_factory=dict)
    repeat: Sequence[str] = ()
    mistakes: Sequence[Mistake] = ()
    worst: WorstSamples | None = None
    by_target: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    labels: Sequence[tables.LabelRow] = ()
    written: str = ""
    drawn: Mapping[str, bytes] = field(default_factory=dict)


class _Draw(Protocol):
    def __call__(self, columns: int) -> Figure: ...


@dataclass(frozen=True)
class _Picture:
    wide: str
    narrow: str  # empty: the wide one does for a phone too
    alt: str


def render(record: ReportRecord) -> str:
    """Return the report of a run as one HTML page that needs nothing from outside itself.

    Raises:
        ValueError: `actual` and `predicted` differ in shape.
    """
    if np.shape(record.actual) != np.shape(record.predicted):
        shapes = f"{np.shape(record.actual)} and {np.shape(record.predicted)}"
        raise ValueError(f"actual and predicted differ in shape: {shapes}")
    spec, n = record.spec, len(record.actual)
    by_class = n > 0 and spec.task == "classification"
    return _template().render(
        record=record,
        spec=spec,
        lead=words.lead(
            record.metrics, record.intervals, spec, n, _model(record), record.by_target
        ),
        metric_splits=tables.metric_splits(record.metrics),
        metric_rows=tables.metric_rows(record.metrics, record.intervals),
        target_names=list(dict.fromkeys(m for row in record.by_target.values() for m in row)),
        curves=_curves(record) if quantities(record.history) else None,
        results=_results(record, by_class),
        class_rows=tables.class_rows(record.actual, record.predicted, spec) if by_class else [],
        mistakes=_gallery(record),
        more_targets=max(0, len(spec.targets) - MAX_TARGETS),
        data_rows=tables.data_rows(spec),
        run_rows=tables.run_rows(record.run),
        dirty=tables.is_dirty(record.run),
        config=words.hide_passwords(record.config_yaml),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("litlab.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = words.number
    return environment.get_template("page.html")


def _model(record: ReportRecord) -> str:
    return f"The model {record.model_name} ({record.num_parameters:,} parameters)"


def _curves(record: ReportRecord) -> _Picture:
    names, epochs = quantities(record.history), len(record.history)
    alt = f"Train and validation {words.listed(names)} over {words.counted(epochs, 'epoch')}"
    if record.best_epoch is not None:
        alt += f"; the checkpoint of epoch {record.best_epoch + 1} was kept"
    draw: _Draw = lambda columns: figures.learning_curves(  # noqa: E731
        record.history, record.best_epoch, columns
    )
    return _picture(draw, alt + ".", record.drawn.get("learning_curves"))


def _results(record: ReportRecord, by_class: bool) -> list[_Picture]:
    if record.labels:
        return _labelled(record)
    return _classified(record) if by_class else _regressed(record)


def _labelled(record: ReportRecord) -> list[_Picture]:
    actual, predicted = np.asarray(record.actual), np.asarray(record.predicted)
    some = min(len(record.labels), figures.MAX_CURVES)
    of = f"the {some} most frequent labels" if some < len(record.labels) else "each label"
    curves = figures.precision_recall(actual, predicted, record.labels)
    bars = figures.label_bars(record.labels, len(actual))
    return [
        _Picture(
            figures.data_uri(figures.png(curves)),
            "",
            f"Precision by recall of {of}; the dot is where the label's threshold lies.",
        ),
        _Picture(
            figures.data_uri(figures.png(bars)),
            "",
            "Average precision of each label, and what guessing would have: the label's share.",
        ),
    ]


def _classified(record: ReportRecord) -> list[_Picture]:
    actual, predicted = list(record.actual), list(record.predicted)
    draw: _Draw = lambda columns: figures.confusion_matrix(  # noqa: E731
        actual, predicted, record.spec.classes, columns
    )
    text = words.confusion_text(actual, predicted)
    pictures = [_picture(draw, text, record.drawn.get("confusion_matrix"))]
    if record.confidence is not None:
        correct = np.asarray([a == p for a, p in zip(actual, predicted, strict=True)])
        figure = figures.reliability(correct, record.confidence)
        alt = "Share of correct predictions by confidence, in ten bins."
        pictures.append(_Picture(figures.data_uri(figures.png(figure)), "", alt))
    return pictures


def _regressed(record: ReportRecord) -> list[_Picture]:
    if not len(record.actual):
        return []
    n = len(record.actual)
    actual = np.asarray(record.actual, np.float64).reshape(n, -1)
    predicted = np.asarray(record.predicted, np.float64).reshape(n, -1)
    pictures = []
    for i, target in enumerate(record.spec.targets[:MAX_TARGETS]):
        text = f"Predicted against actual {target} of {n:,} test samples, and their residuals."
        draw = _scatter(actual[:, i], predicted[:, i], target)
        pictures.append(_picture(draw, text, record.drawn.get(f"predicted_{target}")))
    return pictures


def _scatter(actual: NDArray[Any], predicted: NDArray[Any], target: str) -> _Draw:
    return lambda columns: figures.predicted_against_true(actual, predicted, target, columns)


def _picture(draw: Callable[[int], Figure], alt: str, wide: bytes | None) -> _Picture:
    drawn = figures.png(draw(2)) if wide is None else wide
    return _Picture(figures.data_uri(drawn), figures.data_uri(figures.png(draw(1))), alt)


def _gallery(record: ReportRecord) -> list[tuple[str, Mistake]]:
    if record.spec.kind != "image":
        return []
    return [(sample_uri(mistake.sample), mistake) for mistake in record.mistakes[:MAX_MISTAKES]]
