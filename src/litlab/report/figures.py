import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix as count_pairs

from litlab.report import panels
from litlab.report.calibration import calibration_bins, calibration_error
from litlab.report.panels import BLUE, GREY, ORANGE, History

DPI = 130
MAX_NUMBERED_CLASSES = 20


def learning_curves(history: History, best_epoch: int | None, columns: int = 2) -> Figure:
    """Draw every quantity of a run by epoch, train against validation, and the learning rate.

    Args:
        history: One row per epoch: "epoch", "train/NAME", "val/NAME", "lr"; any may be missing.
            None is a value that was not recorded; NaN and infinity leave a gap in the line.
        best_epoch: The epoch whose checkpoint was kept; it is marked.
            Epochs are given from 0 and drawn from 1.
        columns: 1 draws the narrow figure for a phone.
    """
    names = panels.quantities(history)
    has_lr = any(row.get("lr") is not None for row in history)
    if not names and not has_lr:
        return panels.empty("no values by epoch were recorded")
    width = 5.0 if columns == 1 else 9.6
    columns = max(1, min(columns, len(names)))
    rows = math.ceil(len(names) / columns)
    # The learning rate takes the hole that an odd number of panels leaves, or a low row.
    in_hole = has_lr and len(names) % columns != 0
    heights = [2.9] * rows + ([1.5] if has_lr and not in_hole else [])
    figure = Figure(figsize=(width, sum(heights) + 0.4), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for i, name in enumerate(names):
        axes = figure.add_subplot(grid[i // columns, i % columns])
        panels.curve_panel(axes, history, name, best_epoch)
    if has_lr:
        place = grid[rows - 1, columns - 1] if in_hole else grid[len(heights) - 1, :]
        panels.lr_panel(figure.add_subplot(place), history, best_epoch)
    entries: dict[Any, Any] = {}
    for axes in figure.axes:
        entries.update(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if entries:
        figure.legend(
            list(entries.values()), list(entries), loc="outside upper left", ncols=3, frameon=False
        )
    return figure


def confusion_matrix(
    actual: Sequence[str] | NDArray[Any],
    predicted: Sequence[str] | NDArray[Any],
    classes: Sequence[str],
    columns: int = 2,
) -> Figure:
    """Draw counts of actual (rows) against predicted (columns), coloured by share of the row.

    Above 20 classes the numbers are left out, above 40 some names. `columns=1` leaves out the
    colour bar, for a phone.
    """
    counts = np.asarray(count_pairs(list(actual), list(predicted), labels=list(classes)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    n = len(classes)
    side = min(max(1.5 + 0.45 * n, 3.6), 8.0 if columns > 1 else 5.2)
    width = side + 0.9 if columns > 1 else side
    figure = Figure(figsize=(width, side), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    panels.class_ticks(axes, classes)
    if n <= MAX_NUMBERED_CLASSES:
        size = (11 if n <= 12 else 8) if columns > 1 else (10 if n <= 12 else 6)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.55 else "#222222"
            text = f"{count}" if count else "·"  # so that the mistakes stand out, not the zeros
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("actual class")
    if columns > 1:
        _share_bar(figure, axes, image)
    return figure


def predicted_against_true(
    actual: NDArray[Any], predicted: NDArray[Any], target: str, columns: int = 2
) -> Figure:
    """Draw one target's predictions against the truth, beside a histogram of the residuals.

    Args:
        actual: `(N,)`, in the units of the target.
        predicted: `(N,)`. Pairs that are not finite are left out, and the figure says how many.
        target: Name of the target, with its unit if it has one.
        columns: 1 puts the histogram under the scatter, for a phone.
    """
    actual, predicted = np.asarray(actual, np.float64), np.asarray(predicted, np.float64)
    finite = np.isfinite(actual) & np.isfinite(predicted)
    lost = int((~finite).sum())
    actual, predicted = actual[finite], predicted[finite]
    if not len(actual):
        return panels.empty("no prediction is a finite number")
    size = (9.6, 4.4) if columns > 1 else (5.0, 8.2)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(1, 2) if columns > 1 else figure.add_gridspec(2, 1)
    scatter, residuals = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    panels.scatter_panel(scatter, actual, predicted, target)
    panels.residual_panel(residuals, predicted - actual, target)
    if lost:
        note = f"{lost} non-finite values left out"
        scatter.set_title(note, loc="right", fontsize=9, color=ORANGE)
    return figure


def reliability(correct: NDArray[Any], confidence: NDArray[Any], bins: int = 10) -> Figure:
    """Draw how often predictions of a given confidence are right, with their number below.

    Args:
        correct: `(N,)` booleans.
        confidence: `(N,)` probabilities of the predicted class, in [0, 1].
        bins: Bins of equal width.
    """
    number, right, mean = calibration_bins(correct, confidence, bins)
    seen = number > 0
    figure = Figure(figsize=(5.2, 5.2), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(2, 1, height_ratios=[3, 1])
    axes = figure.add_subplot(grid[0])
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
    axes.plot(mean[seen], right[seen], "o-", color=BLUE, markersize=5, label="this model")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), ylabel="share of correct predictions")
    error = calibration_error(correct, confidence, bins)
    axes.set_title(f"ECE {error:.4f} in {bins} bins", loc="right", size=9)
    axes.legend(frameon=False, loc="upper left")
    below = figure.add_subplot(grid[1], sharex=axes)
    edges = np.linspace(0, 1, bins + 1)
    below.bar(edges[:-1], number, width=1 / bins, align="edge", color=BLUE, edgecolor="white")
    below.set(xlabel="confidence in the predicted class", ylabel="samples")
    for panel in (axes, below):
        panels.tidy(panel)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_png(figure))


def to_data_uri(figure: Figure) -> str:
    """Return a figure as a `data:` URI that a page holds within itself."""
    return "data:image/png;base64," + base64.b64encode(_png(figure)).decode("ascii")


def _png(figure: Figure) -> bytes:
    return panels.png(figure, DPI)


def _share_bar(figure: Figure, axes: Axes, image: AxesImage) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, format="{x:.0%}")
    bar.set_label("share of the actual class")
    bar.outline.set_visible(False)
