import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from litlab.report.panels import BLUE, GREY, ORANGE, tidy

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
