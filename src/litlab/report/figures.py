import base64
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import confusion_matrix as count_pairs
from sklearn.metrics import precision_recall_curve

from litlab.report.intervals import calibration_bins, calibration_error
from litlab.report.tables import LabelRow

DPI = 130
LONGEST_SIDE = 160  # pixels; the gallery shows samples at about 100


def sample_uri(sample: NDArray[np.uint8]) -> str:
    """Return a uint8 image `(C, H, W)` as a PNG `data:` URI.

    Three or more channels: the first three as red, green and blue; fewer: the first as grey.

    Raises:
        ValueError: The array is not uint8 with three axes.
    """
    if sample.dtype != np.uint8 or sample.ndim != 3:
        raise ValueError(f"need uint8 (C, H, W), got {sample.dtype} {sample.shape}")
    pixels = sample[:3].transpose(1, 2, 0) if len(sample) >= 3 else sample[0]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue())


# Three of the eight colours that Okabe and Ito (2008) chose to differ for colour-blind eyes.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#5c6370"
# Those colours that can be told from each other on white as thin lines.
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8a6d3b")
MAX_CURVES = len(COLOURS)
MAX_TICKS = 40

History = Sequence[dict[str, float | None]]


def quantities(history: History) -> list[str]:
    """Return what train or validation recorded by epoch, loss first, the rest as first met."""
    names = [
        key.split("/", 1)[1]
        for row in history
        for key, value in row.items()
        if value is not None and key.startswith(("train/", "val/"))
    ]
    return sorted(dict.fromkeys(names), key=lambda name: name != "loss")


def _series(history: History, key: str) -> tuple[list[float], list[float]]:
    """Return epochs, from 1, and values of one column, without the rows that did not record it."""
    epochs, values = [], []
    for i, row in enumerate(history):
        value, epoch = row.get(key), row.get("epoch")
        if value is not None:
            epochs.append(1 + float(i if epoch is None else epoch))
            values.append(value if math.isfinite(value) else math.nan)
    return epochs, values


def curve_panel(axes: Axes, history: History, name: str, best_epoch: int | None) -> None:
    """Draw one quantity by epoch, train against validation."""
    dots = "o" if len(history) <= 30 else ""
    drawn: list[float] = []
    styles = (("train", BLUE, "--"), ("val", ORANGE, "-"))
    for split, colour, line in styles:
        epochs, values = _series(history, f"{split}/{name}")
        if epochs:
            label = "validation" if split == "val" else split
            axes.plot(epochs, values, line, color=colour, marker=dots, markersize=3.5, label=label)
        drawn += values
        best = None if best_epoch is None else best_epoch + 1
        if split == "val" and best in epochs:
            value = values[epochs.index(best)]
            axes.plot([best], [value], "o", color=colour, markersize=8, fillstyle="none")
            note = f"validation {value:.4g} at best"
            axes.set_title(note, loc="right", fontsize=9, color=GREY)
    axes.set_title(name, loc="left", fontweight="bold", fontsize=11, parse_math=False)
    finite = [value for value in drawn if math.isfinite(value)]
    # Not accuracies: a logarithm would hide the end of training, which is what one looks for.
    if "loss" in name and finite and min(finite) > 0 and max(finite) > 50 * min(finite):
        axes.set_yscale("log")
    _by_epoch(axes, best_epoch)


def lr_panel(axes: Axes, history: History, best_epoch: int | None) -> None:
    """Draw the learning rate by epoch."""
    epochs, values = _series(history, "lr")
    axes.plot(epochs, values, color=GREY, marker="o" if len(epochs) <= 30 else "", markersize=3)
    axes.set_title("learning rate", loc="left", fontweight="bold", fontsize=11)
    _by_epoch(axes, best_epoch)


def _by_epoch(axes: Axes, best_epoch: int | None) -> None:
    if axes.get_yscale() == "linear":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useOffset=False)
    if best_epoch is not None:
        label = f"best epoch ({best_epoch + 1})"
        axes.axvline(best_epoch + 1, color=GREY, linestyle=":", linewidth=1.4, label=label)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    tidy(axes)


def class_ticks(axes: Axes, classes: Sequence[str]) -> None:
    """Name the rows and columns of a matrix; of many classes, every few."""
    step = math.ceil(len(classes) / MAX_TICKS)
    ticks = range(0, len(classes), step)
    names = [_short(classes[i]) for i in ticks]
    size = 10 if len(classes) <= 12 else 8 if len(classes) <= 24 else 7
    turned = max(map(len, names)) > 3 or len(classes) > 24
    axes.set_yticks(ticks, names, fontsize=size, parse_math=False)
    axes.set_xticks(ticks, names, fontsize=size, parse_math=False)
    if turned:
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", va="top", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def scatter_panel(
    axes: Axes, actual: NDArray[np.float64], predicted: NDArray[np.float64], target: str
) -> None:
    """Draw predictions against the truth, with the diagonal on which a perfect model lies."""
    low = float(min(actual.min(), predicted.min()))
    high = float(max(actual.max(), predicted.max()))
    pad = 0.04 * (high - low) or 0.1 * max(abs(high), 1.0)
    limits = (low - pad, high + pad)
    axes.plot(limits, limits, color=GREY, linestyle="--", linewidth=1, label="predicted = actual")
    # Dots fade as they grow in number, so that dense regions stay darker than thin ones.
    alpha = min(0.8, max(0.05, 40 / len(actual) ** 0.6))
    axes.scatter(actual, predicted, s=18, alpha=alpha, color=BLUE, linewidths=0)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_xlabel(f"actual {target}", parse_math=False)
    axes.set_ylabel(f"predicted {target}", parse_math=False)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    tidy(axes)


def residual_panel(axes: Axes, residuals: NDArray[np.float64], target: str) -> None:
    """Draw a histogram of predicted minus actual, with its mean."""
    mean = float(residuals.mean())
    # Equal residuals have no width to cut into bins, and numpy refuses to try.
    if np.ptp(residuals) > 1e-9 * np.abs(residuals).max():
        bins = int(np.clip(2 * len(residuals) ** (1 / 3), 12, 40))  # Rice's rule, within reason
        axes.hist(residuals, bins=bins, color=BLUE, edgecolor="white", linewidth=0.4)
    else:
        axes.plot([mean, mean], [0, len(residuals)], color=BLUE, linewidth=6)
    axes.axvline(0, color=GREY, linestyle="--", linewidth=1, label="no error")
    axes.axvline(mean, color=ORANGE, linewidth=1.6, label=f"mean {mean:.3g}")
    axes.set_xlabel(f"predicted - actual {target}", parse_math=False)
    axes.set_ylabel("samples")
    axes.margins(y=0.18)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    tidy(axes)


def empty(message: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    figure = Figure(figsize=(5.0, 1.4), facecolor="white")
    figure.text(0.5, 0.5, message, ha="center", va="center", color=GREY)
    return figure


def png(figure: Figure, dpi: int | None = None, *, crop: bool = False) -> bytes:
    """Return a figure as PNG; `crop` cuts off its empty margins."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script the font lacks is drawn as boxes; the tables spell it out.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        more: dict[str, Any] = {"bbox_inches": "tight"} if crop else {}
        figure.savefig(buffer, format="png", dpi=dpi or DPI, metadata={"Software": None}, **more)
    return buffer.getvalue()


def tidy(axes: Axes) -> None:
    """Leave the two axes that are read, and a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9aa0a8")
    axes.grid(visible=True, color="#e4e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(color="#9aa0a8", labelsize=9)


def _short(name: str, longest: int = 18) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


Values = NDArray[np.float64]


def draw(lrs: Values, losses: Values, smoothed: Values, suggestion: float | None) -> Figure:
    """Draw the loss by learning rate, and the rate that is suggested.

    Args:
        lrs: `(S,)`.
        losses: `(S,)`.
        smoothed: `(S,)`.
        suggestion: Where the smoothed loss falls fastest.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.plot(lrs, losses, ".", color=GREY, markersize=4, label="loss")
    axes.plot(lrs, smoothed, color=BLUE, label="smoothed")
    if suggestion is not None:
        at = float(np.interp(np.log(suggestion), np.log(lrs), smoothed))
        label = f"falls fastest: {suggestion:.2g}"
        axes.plot([suggestion], [at], "o", color=ORANGE, markersize=9, label=label)
    low, high = float(smoothed.min()), float(smoothed.max())
    room = 0.15 * (high - low) or 1.0
    axes.set(xscale="log", xlabel="learning rate", ylim=(low - room, high + room))
    axes.set_title("loss by learning rate", loc="left", fontweight="bold", fontsize=11)
    axes.legend(frameon=False)
    tidy(axes)
    return figure


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
    names = quantities(history)
    has_lr = any(row.get("lr") is not None for row in history)
    if not names and not has_lr:
        return empty("no values by epoch were recorded")
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
        curve_panel(axes, history, name, best_epoch)
    if has_lr:
        place = grid[rows - 1, columns - 1] if in_hole else grid[len(heights) - 1, :]
        lr_panel(figure.add_subplot(place), history, best_epoch)
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
    class_ticks(axes, classes)
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


def precision_recall(
    actual: NDArray[Any], predicted: NDArray[Any], labels: Sequence[LabelRow]
) -> Figure:
    """Draw precision by recall of the most frequent labels, with a dot at each one's threshold.

    Args:
        actual: 0 or 1, `(N, K)`.
        predicted: Probabilities `(N, K)`.
        labels: K of them.
    """
    order = sorted(range(len(labels)), key=lambda k: -labels[k].support)[:MAX_CURVES]
    drawn = [k for k in sorted(order) if labels[k].support]
    if not drawn:
        return empty("no test sample has a label")
    figure = Figure(figsize=(5.2, 5.2), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for k, colour in zip(drawn, COLOURS, strict=False):
        row = labels[k]
        precision, recall, _ = precision_recall_curve(actual[:, k], predicted[:, k])
        name = f"{_short(row.name)}  {row.average_precision:.3f}"
        axes.step(recall, precision, where="post", color=colour, linewidth=1.6, label=name)
        if math.isfinite(row.precision):
            axes.plot([row.recall], [row.precision], "o", color=colour, markersize=6)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    legend = axes.legend(
        loc="lower left", fontsize=9, title="average precision", title_fontsize=9, framealpha=0.85
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    tidy(axes)
    return figure


def label_bars(labels: Sequence[LabelRow], n: int) -> Figure:
    """Draw the average precision of each label against its share of the n samples, best first."""
    known = sorted((r for r in labels if r.support), key=lambda r: -r.average_precision)
    if not known:
        return empty("no test sample has a label")
    rows, left_out = known[:MAX_TICKS], max(0, len(known) - MAX_TICKS)
    height = max(2.0, 0.9 + 0.3 * len(rows))
    figure = Figure(figsize=(5.2, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    places = np.arange(len(rows))
    axes.barh(places, [row.average_precision for row in rows], color=BLUE, height=0.7)
    shares = [row.support / n for row in rows]
    axes.plot(shares, places, "|", color=ORANGE, markersize=13, markeredgewidth=2.2)
    axes.set_yticks(places, [_short(row.name) for row in rows], fontsize=9, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.02), xlabel="average precision  (orange: of guessing)")
    if left_out:
        axes.set_title(f"{left_out} labels below these are left out", loc="right", fontsize=9)
    tidy(axes)
    axes.grid(visible=False, axis="y")
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
        return empty("no prediction is a finite number")
    size = (9.6, 4.4) if columns > 1 else (5.0, 8.2)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(1, 2) if columns > 1 else figure.add_gridspec(2, 1)
    scatter, residuals = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    scatter_panel(scatter, actual, predicted, target)
    residual_panel(residuals, predicted - actual, target)
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
        tidy(panel)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(figure))


def data_uri(drawn: bytes) -> str:
    """Return a PNG as a `data:` URI that a page holds within itself."""
    return "data:image/png;base64," + base64.b64encode(drawn).decode("ascii")


def _share_bar(figure: Figure, axes: Axes, image: AxesImage) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, format="{x:.0%}")
    bar.set_label("share of the actual class")
    bar.outline.set_visible(False)
