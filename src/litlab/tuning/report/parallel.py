"""All settings of each trial side by side, and what came of them."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from litlab.report.canvas import cut
from litlab.report.panels import GREY, ORANGE
from litlab.tuning.report.drawn import Drawn, mark
from litlab.tuning.report.scales import ValueScale
from litlab.tuning.report.slices import settings

MOST = 9  # settings
ABSENT = -0.13  # where a line passes a setting that its trial does not have
SHADES = (0.25, 0.95)  # of the map of blues: the worst is still to be seen


def parallel(of: Drawn) -> Figure | None:
    """Draw a line for each completed trial; None with fewer than two settings or trials.

    Args:
        of: The objective that colours the lines.
    """
    scales = settings(of)[:MOST]
    if len(scales) < 2 or len(of.whole) < 2:
        return None
    values = [of.at(v) for v in of.values]
    value = ValueScale(of.objective.name, False, (), min(values), max(values))
    lines, goodness = [], []
    for trial, v in zip(of.whole, values, strict=True):
        places = [
            s.share(trial.params[s.path]) if s.path in trial.params else ABSENT for s in scales
        ]
        lines.append([*enumerate(places), (len(scales), value.share_of(v))])
        goodness.append(1 - value.share_of(v) if of.minimize else value.share_of(v))
    order = np.argsort(goodness, kind="stable")  # the best on top
    size = (max(6.0, 1.5 * (len(scales) + 1)), 4.4)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    shades = colormaps["Blues"](np.interp([goodness[i] for i in order], [0, 1], SHADES))
    ordered = [lines[i] for i in order]
    axes.add_collection(LineCollection(ordered, colors=shades, linewidths=1.3, alpha=0.85))
    best = lines[of.whole.index(of.best)]
    axes.plot(*zip(*best, strict=True), color=ORANGE, linewidth=2.4)
    for x, scale in enumerate([*scales, value]):
        _axis(axes, x, scale)
    absent = [x for x in range(len(scales)) if any(line[x][1] == ABSENT for line in lines)]
    for x in absent:
        axes.text(x + 0.05, ABSENT, "not set", va="center", fontsize=8, color=GREY, zorder=4)
    axes.set(xlim=(-0.35, len(scales) + 0.45), ylim=(-0.2 if absent else -0.06, 1.24))
    axes.set_axis_off()
    _legend(figure, of)
    return figure


def _axis(axes: Axes, x: int, scale: ValueScale) -> None:
    axes.plot([x, x], [0, 1], color="#9aa0a8", linewidth=1.2, zorder=3)
    ground: dict[str, Any] = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}
    for tick in scale.ticks(4):
        y = scale.share_of(tick)
        axes.plot([x, x + 0.03], [y, y], color="#9aa0a8", linewidth=1.2, zorder=3)
        text = axes.text(x + 0.05, y, scale.label(tick), fontsize=8, va="center", parse_math=False)
        text.set(bbox=ground, zorder=4)
    head, _, tail = scale.path.rpartition(".")
    name = "\n".join(filter(None, [cut(head, 20), cut(tail, 20)]))
    axes.text(x, 1.06, name, ha="center", va="bottom", fontsize=9, parse_math=False)


def _legend(figure: Figure, of: Drawn) -> None:
    shades = [colormaps["Blues"](share) for share in SHADES]
    marks = [
        mark(f"best: trial {of.best.number}", color=ORANGE, linewidth=2.4),
        mark("nearly as good", color=shades[1], linewidth=2),
        mark("worst", color=shades[0], linewidth=2),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
