import io
import math
import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

# Three of the eight colours that Okabe and Ito (2008) chose to differ for colour-blind eyes.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#5c6370"
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


def png(figure: Figure, dpi: int) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script the font lacks is drawn as boxes; the tables spell it out.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
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
