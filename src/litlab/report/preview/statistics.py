"""Statistics of the data, train against validation: classes or targets, values, lengths."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.ticker import MaxNLocator, PercentFormatter

from litlab.data.spec import DataSpec
from litlab.report.canvas import MARGIN, WIDTH, Canvas, Section, cut, fitting
from litlab.report.panels import BLUE, GREY, ORANGE, tidy
from litlab.report.preview.batch import Histogram, Range, Statistics

SPLITS = (("train", "train", BLUE), ("val", "validation", ORANGE))  # key, name, colour
NAMED, DRAWN = 24, 40  # classes of which each is named; that are bars
TOKENS = 15
ROWS = 16  # channels or columns whose ranges are drawn
HEIGHT, TOP = 1.9, 0.62  # of a panel, inches


def statistics_panels(spec: DataSpec, statistics: Statistics) -> Section:
    """Draw two panels side by side: what is to be predicted, and what it is predicted from."""
    train = statistics.splits["train"]
    rows = list(train.values)[:ROWS]
    high = max(HEIGHT, 0.17 * len(rows) + 0.2)
    note = _explanation(spec, statistics)
    below = 0.35 + 0.14 * (1 + note.count("\n")) if rows else 0.55

    def draw(canvas: Canvas) -> None:
        _legend(canvas, statistics)
        left, last = MARGIN + 0.5, WIDTH - MARGIN
        if not rows and train.lengths is None:
            _bars(canvas.axes(left, TOP, last - left, HEIGHT), statistics)
            return
        axes = canvas.axes(left, TOP, 3.9, HEIGHT)
        if train.histogram:
            _histograms(axes, [statistics.splits[key].histogram for key, _, _ in SPLITS])
            _title(axes, next(iter(train.targets)))
        else:
            _bars(axes, statistics)
        left = 5.35 + (1.1 if spec.kind == "tabular" else 0.25 if rows else 0)
        axes = canvas.axes(left, TOP, last - left, high)
        if rows:
            _ranges(axes, spec, statistics, rows)
            axes.set_xlabel(note, fontsize=8, color=GREY)
        else:
            _lengths(axes, statistics, spec.shape[0])

    return Section(TOP + max(HEIGHT + _room(_names(statistics)), high + below), draw)


def _room(names: list[str]) -> float:
    """How many inches the names of bars take."""
    return (
        0.4
        if len(names) > NAMED
        else max(0.4, 0.12 + 0.065 * min(12, max(map(len, names), default=0)))
    )


def _legend(canvas: Canvas, statistics: Statistics) -> None:
    sizes = statistics.sizes
    what = "windows" if statistics.task == "language_model" else "samples"
    left = MARGIN
    notes = [(f"{name}: {sizes[key]:,}", colour) for key, name, colour in SPLITS]
    notes.append((f"test, not opened: {sizes['test']:,} {what}", GREY))
    for note, colour in notes:
        canvas.text(left, 0.08, note, fontsize=10, color=colour, fontweight="bold")
        left += 0.25 + 0.085 * len(note)


def _title(axes: Axes, title: str, note: str = "") -> None:
    style: dict[str, Any] = {"y": 1.0, "parse_math": False}  # a fixed y: none is looked for
    axes.set_title(fitting(title, 3.5, 10), loc="left", fontsize=10, fontweight="bold", **style)
    if note:
        axes.set_title(note, loc="right", fontsize=8, color=GREY, **style)


def _bars(axes: Axes, statistics: Statistics) -> None:
    """Draw how often each class, or each of the most frequent tokens, comes in each split."""
    tokens, names = statistics.task == "language_model", _names(statistics)
    for i, (key, _, colour) in enumerate(SPLITS):
        part = statistics.splits[key]
        counts = [(part.tokens if tokens else part.classes).get(name, 0) for name in names]
        shares = np.array(counts) / max(1, part.looked_at if tokens else sum(counts))
        places = np.arange(len(names))
        if len(names) <= DRAWN:
            left, right, low = places + 0.4 * i - 0.4, places + 0.4 * i, np.zeros(len(names))
            x, y = np.stack([left, left, right, right], 1), np.stack([low, shares, shares, low], 1)
            corners = list(np.stack([x, y], 2))
            axes.add_collection(PolyCollection(corners, facecolor=colour))  # one artist: quick
        else:
            axes.plot(places, shares, ".", markersize=4, alpha=0.6, color=colour)
    if len(names) <= NAMED:
        shown = [cut(name.replace(" ", "␣") if tokens else name, 12) for name in names]
        axes.set_xticks(range(len(names)), shown, fontsize=8, parse_math=False)
        if sum(map(len, shown)) + len(shown) > 55 * axes.bbox.width / axes.figure.dpi / 3.9:
            for label in axes.get_xticklabels():
                label.set(rotation=45, ha="right", va="top", rotation_mode="anchor")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("number of the class", fontsize=8)
    axes.autoscale_view()
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    tidy(axes)
    axes.grid(visible=False, axis="x")
    axes.tick_params(labelsize=8)
    title = "most frequent tokens" if tokens else "class balance"
    _title(axes, title, "share of the split")


def _names(statistics: Statistics) -> list[str]:
    train = statistics.splits["train"]
    return list(train.tokens)[:TOKENS] or list(train.classes)


def _histograms(axes: Axes, found: Sequence[Histogram | None]) -> None:
    for (_, _, colour), histogram in zip(SPLITS, found, strict=True):
        if histogram:
            density = np.array(histogram.counts) / max(1, sum(histogram.counts))
            density /= np.diff(histogram.edges)
            axes.stairs(density, histogram.edges, color=colour, linewidth=1.4)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    tidy(axes)
    axes.tick_params(labelsize=8)


def _lengths(axes: Axes, statistics: Statistics, limit: int) -> None:
    """Draw how long texts are."""
    found = [statistics.splits[key].lengths for key, _, _ in SPLITS]
    _histograms(axes, [lengths.histogram if lengths else None for lengths in found])
    train = found[0]
    assert train is not None
    axes.axvline(train.median, color=GREY, linestyle=":", linewidth=1.2)
    axes.axvline(train.p95, color=GREY, linestyle="--", linewidth=1.2)
    note = f"median {train.median:g}, 95 % up to {train.p95:.0f}, longest {train.maximum}"
    axes.set_xlabel(
        f"tokens per text in train: {note}\n{train.padding:.1%} of a batch is padding; "
        f"texts at the limit of {limit} tokens: {train.at_limit:,}",
        fontsize=8,
        color=GREY,
    )
    _title(axes, "text lengths")


def _ranges(axes: Axes, spec: DataSpec, statistics: Statistics, names: list[str]) -> None:
    """Draw smallest, mean and largest value of each channel or column."""
    parts = [(statistics.splits[key].values, colour) for key, _, colour in SPLITS]
    if statistics.augment:
        parts.append((statistics.batch.values, GREY))
    table = spec.kind == "tabular"
    centre = np.array(spec.mean[: len(names)]) if table else 0.0
    scale = np.array(spec.std[: len(names)]) if table else 1.0
    for i, (values, colour) in enumerate(parts):
        found = [values[name] for name in names]
        low, mean, high = ((np.array(part) - centre) / scale for part in _columns(found))
        y = np.arange(len(names)) + 0.22 * (i - (len(parts) - 1) / 2)
        axes.hlines(y, low, high, color=colour, linewidth=1.6)
        axes.plot(mean, y, "o", color=colour, markersize=3.2)
    size = 8 if len(names) <= 12 else 7
    axes.set_yticks(
        range(len(names)), [fitting(n, 1.3, size) for n in names], fontsize=size, parse_math=False
    )
    axes.set_ylim(len(names) - 0.5, -0.5)
    tidy(axes)
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="y", labelsize=size, length=0)
    left_out = len(statistics.splits["train"].values) - len(names)
    _title(axes, "values", f"{left_out} more columns" if left_out else "")


def _columns(found: list[Range]) -> list[list[float]]:
    return [[r.low for r in found], [r.mean for r in found], [r.high for r in found]]


def _explanation(spec: DataSpec, statistics: Statistics) -> str:
    units = {"image": "; 0 black, 1 white", "tabular": "\nin deviations from train's mean"}
    lines = ["smallest, mean (dot), largest" + units.get(spec.kind, "")]
    looked_at = statistics.splits["train"].looked_at
    if looked_at < statistics.splits["train"].size:
        lines.append(f"of at most {looked_at:,} samples per split")
    if statistics.augment:
        lines.append(f"grey: the {statistics.batch.shown} augmented samples")
    return "\n".join(lines)
