"""Trials of several objectives: those that no other is better than in all of them."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from litlab.report.panels import BLUE, GREY, ORANGE, tidy
from litlab.tuning.report.drawn import mark
from litlab.tuning.report.paired import first_trial
from litlab.tuning.report.scales import worst_shown
from litlab.tuning.study.objectives import Objective

MOST = 6  # pairs of objectives
NEAR = 0.05  # of the panel: numbers nearer to each other than this would be drawn into each other


def pareto(study: optuna.Study, objectives: Sequence[Objective]) -> Figure | None:
    """Draw each pair of objectives; None with a single one, or without two completed trials.

    Args:
        study: With trials.
        objectives: What it looked for, in the study's order.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = [t for t in trials if np.isfinite(t.values).all()]
    if len(objectives) < 2 or len(trials) < 2:
        return None
    best = {t.number for t in study.best_trials}
    is_best = [t.number in best for t in trials]
    pairs = list(combinations(range(len(objectives)), 2))[:MOST]
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    size = (6.8 if columns == 1 else 9.6, 4.2 * rows + 0.4)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    for place, pair in enumerate(pairs):
        axes = figure.add_subplot(rows, columns, place + 1)
        for k, direction in zip(pair, "xy", strict=True):
            _axis(axes, direction, objectives[k], shown(trials, is_best, objectives[k], k))
        xs, ys = (shown(trials, is_best, objectives[k], k) for k in pair)
        _panel(axes, np.stack([xs, ys], axis=1), [t.number for t in trials], is_best)
    marks = [mark("no other is better in all", color=ORANGE, marker="o", ls="", markersize=7)]
    marks.append(mark("completed", color=BLUE, alpha=0.5, marker="o", ls="", markersize=5))
    if any(t.number == 0 for t in trials):
        ring = {"color": GREY, "mfc": "none", "markersize": 11, "mew": 1.6}
        marks.append(mark(first_trial(study), marker="o", ls="", **ring))
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def shown(
    trials: Sequence[FrozenTrial], is_best: Sequence[bool], objective: Objective, k: int
) -> NDArray[np.float64]:
    """Return values `(trials,)`, those far worse than the rest at the edge of what is drawn.

    Args:
        trials: Completed ones.
        is_best: Whether each is on the front: those are drawn where they lie.
        objective: Whose values.
        k: Its place among the study's.
    """
    values = np.asarray([t.values[k] for t in trials], dtype=np.float64)
    minimize = objective.direction == "minimize"
    front, limit = values[is_best], worst_shown(list(values), minimize)
    if minimize:
        return values.clip(max=max(limit, front.max(initial=-np.inf)))
    return values.clip(min=min(limit, front.min(initial=np.inf)))


def _axis(axes: Axes, direction: str, objective: Objective, values: NDArray[np.float64]) -> None:
    log = values.min() > 0 and values.max() > 20 * values.min()
    better = "less" if objective.direction == "minimize" else "more"
    label = f"{objective.name} ({better} is better)"
    if direction == "x":
        axes.set_xscale("log" if log else "linear")
        axes.set_xlabel(label, parse_math=False)
    else:
        axes.set_yscale("log" if log else "linear")
        axes.set_ylabel(label, parse_math=False)


def _panel(
    axes: Axes, at: NDArray[np.float64], numbers: Sequence[int], is_best: Sequence[bool]
) -> None:
    """Draw trials at `(trials, 2)`, the best on top, with their numbers where there is room."""
    rest = at[~np.asarray(is_best)]
    axes.plot(*rest.T, "o", color=BLUE, alpha=0.5, markersize=5, mew=0)
    axes.plot(*at[is_best].T, "o", color=ORANGE, markersize=7)
    if 0 in numbers:
        first = at[numbers.index(0)]
        axes.plot(*first, "o", mfc="none", color=GREY, markersize=12, mew=1.6)
    axes.margins(0.08)
    axes.autoscale_view()
    tidy(axes)
    written: list[NDArray[np.float64]] = []
    for place, number, best in zip(at, numbers, is_best, strict=True):
        there = axes.transAxes.inverted().transform(axes.transData.transform(place))
        if best and all(np.hypot(*(there - other)) > NEAR for other in written):
            axes.annotate(str(number), place, (6, 5), textcoords="offset points", fontsize=8)
            written.append(there)
