from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from litlab.data.spec import SPLITS, DataSpec
from litlab.report.words import METRICS, hide_passwords, number, short_hash

SPLIT_NAMES = {"train": "Train", "val": "Validation", "test": "Test"}
AXES = {
    "image": "channels × height × width",
    "sequence": "channels × steps",
    "tabular": "features",
    "text": "tokens",
}
RUN_NAMES = {
    "run_id": "Run",
    "experiment": "Experiment",
    "tracking_uri": "Tracking",
    "started": "Started",
    "duration_seconds": "Duration",
    "git_commit": "Git commit",
    "git_dirty": "Uncommitted changes",
    "data_checksum": "Data checksum",
    "device": "Device",
}
Rows = list[tuple[str, str]]


class MetricRow(NamedTuple):
    """One metric: its value by split, "" where a split lacks it, and its test interval."""

    name: str
    meaning: str
    values: list[str]
    interval: str


class ClassRow(NamedTuple):
    """One class on the test split. Precision of a class that was never predicted is NaN."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


class LabelRow(NamedTuple):
    """One of several labels on the test split; NaN is a share of nothing."""

    name: str
    threshold: float
    precision: float
    recall: float
    f1: float
    average_precision: float
    support: int


def metric_splits(metrics: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str]]:
    """Return the splits that have metrics, with their headings, in the order of the corridor."""
    known = [split for split in SPLITS if metrics.get(split)]
    other = sorted(split for split in metrics if split not in SPLITS and metrics[split])
    return [(split, SPLIT_NAMES.get(split, split)) for split in known + other]


def metric_rows(
    metrics: Mapping[str, Mapping[str, float]], intervals: Mapping[str, tuple[float, float]]
) -> list[MetricRow]:
    """Return the table of metrics, the loss last."""
    splits = [split for split, _ in metric_splits(metrics)]
    names = dict.fromkeys(name for split in reversed(splits) for name in metrics[split])
    rows = []
    for name in sorted(names, key=lambda name: name == "loss"):
        cells = [metrics[split].get(name) for split in splits]
        values = ["" if cell is None else number(cell) for cell in cells]
        ends = intervals.get(name)
        interval = f"{number(ends[0])} to {number(ends[1])}" if ends else ""
        rows.append(MetricRow(name, METRICS.get(name, ""), values, interval))
    return rows


def class_rows(
    actual: Sequence[str] | NDArray[Any], predicted: Sequence[str] | NDArray[Any], spec: DataSpec
) -> list[ClassRow]:
    """Return precision, recall, F1 and support of every class, in the order of the spec."""
    columns = precision_recall_fscore_support(
        list(actual), list(predicted), labels=list(spec.classes), zero_division=np.nan
    )
    rows = zip(spec.classes, *columns, strict=True)
    return [ClassRow(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in rows]


def data_rows(spec: DataSpec) -> Rows:
    """Return the data card."""
    sizes = [f"{SPLIT_NAMES.get(split, split)} {size:,}" for split, size in spec.sizes.items()]
    checksums = [f"{name} {short_hash(value)}" for name, value in spec.checksums.items()]
    axes = AXES[spec.kind]
    rows = [
        ("Name", spec.name if spec.name == spec.source else f"{spec.name}, from {spec.source}"),
        ("Kind", f"{spec.kind}, for {spec.task}"),
        ("Shape of a sample", f"{' × '.join(map(str, spec.shape))} ({axes}), {spec.dtype}"),
        ("Samples", ", ".join(sizes)),
        (_classes_label(spec), _classes(spec)),
        ("Targets", ", ".join(spec.targets)),
        (f"Features ({len(spec.features)})", _some(spec.features)),
        ("Vocabulary", f"{spec.vocab_size:,} tokens" if spec.vocab_size else ""),
        ("Settings", _settings(spec.settings)),
        ("Licence", spec.licence),
        ("Origin", spec.origin),
        ("Checksums", ", ".join(checksums)),
        ("Split hash", short_hash(spec.split_hash)),
    ]
    return [(name, hide_passwords(value)) for name, value in rows if value]


def run_rows(run: Mapping[str, str]) -> Rows:
    """Return the facts of the run: those with a name of their own first, then the others."""
    keys = [key for key in RUN_NAMES if key in run] + [key for key in run if key not in RUN_NAMES]
    rows = []
    for key in keys:
        value = str(run[key])
        if key == "duration_seconds":
            value = _duration(value)
        label = RUN_NAMES.get(key, key.replace("_", " ").capitalize())
        rows.append((label, hide_passwords(value)))
    return rows


def is_dirty(run: Mapping[str, str]) -> bool:
    """Return whether the run was started from a tree with uncommitted changes."""
    return str(run.get("git_dirty", "")).lower() in {"true", "yes", "1"}


def _duration(seconds: str) -> str:
    try:
        whole = float(seconds)
        minutes, rest = divmod(round(whole), 60)
    except (ValueError, OverflowError):  # not a number, or one that cannot be a duration
        return seconds
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{whole:.1f} s"


def _classes_label(spec: DataSpec) -> str:
    counted = len(spec.class_counts) == len(spec.classes)
    noun = "Labels" if spec.task == "multi_label" else "Classes"
    return f"{noun} ({len(spec.classes)}{'; samples in train' if counted else ''})"


def _classes(spec: DataSpec) -> str:
    if len(spec.class_counts) != len(spec.classes):
        return _some(spec.classes)
    pairs = zip(spec.classes, spec.class_counts, strict=True)
    return _some([f"{name} ({count:,})" for name, count in pairs])


def _some(names: Iterable[str], most: int = 24) -> str:
    names = list(names)
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _settings(settings: Mapping[str, object], prefix: str = "") -> str:
    """Nested settings in one line, `a.b value, ...`."""
    parts = [
        _settings(value, f"{prefix}{name}.")
        if isinstance(value, Mapping)
        else f"{prefix}{name} {value}"
        for name, value in settings.items()
    ]
    return ", ".join(parts)
