"""The trials of a study as figures draw them: states, values, and the look they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from optuna.trial import FrozenTrial, TrialState

from litlab.report.panels import BLUE, GREY, ORANGE, tidy
from litlab.tuning.report.importances import completed
from litlab.tuning.report.paired import first_trial
from litlab.tuning.report.scales import worst_shown
from litlab.tuning.study.objectives import Objective

TITLE: dict[str, Any] = {
    "loc": "left",
    "fontweight": "bold",
    "fontsize": 11,
    "parse_math": False,
}


@dataclass(frozen=True)
class Drawn:
    """A study's trials and one of its objectives.

    Attributes:
        objective: What is on the value's axis.
        index: Its place among the study's.
        whole: Trials that were completed.
        pruned: With the last value they reported; of a single objective only.
        failed: Those that failed.
        first: What the first trial is called.
    """

    objective: Objective
    index: int
    whole: list[FrozenTrial]
    pruned: list[tuple[FrozenTrial, float]]
    failed: list[FrozenTrial]
    first: str = "baseline"

    @property
    def minimize(self) -> bool:
        """Whether less is better."""
        return self.objective.direction == "minimize"

    def value(self, trial: FrozenTrial) -> float:
        """Return a completed trial's value."""
        return float(trial.values[self.index])

    @property
    def values(self) -> list[float]:
        """Of the completed trials, in their order."""
        return [self.value(t) for t in self.whole]

    @property
    def best(self) -> FrozenTrial:
        """The best completed trial."""
        return (min if self.minimize else max)(self.whole, key=self.value)

    @property
    def limit(self) -> float:
        """The worst value that is drawn where it lies."""
        return worst_shown(self.values, self.minimize)

    def at(self, value: float) -> float:
        """Return where a value is drawn: at the limit if it is worse."""
        return min(value, self.limit) if self.minimize else max(value, self.limit)

    @property
    def is_wide(self) -> bool:
        """Whether a log scale shows more."""
        low, high = self._ends
        return self.minimize and 0 < 30 * low < high

    @property
    def _ends(self) -> tuple[float, float]:
        """The least and the greatest value that is drawn; a pruned trial may have had the best."""
        pruned = (self.at(v) for _, v in self.pruned)
        drawn = [self.value(self.best), self.limit, *pruned]
        return min(drawn), max(drawn)

    @property
    def bounds(self) -> tuple[float, float]:
        """Of the value's axis, with room around what is drawn."""
        low, high = self._ends
        if self.is_wide:
            ratio = (high / low) ** 0.07
            return low / ratio, high * ratio
        room = 0.07 * (high - low) or 0.05 * abs(low) or 1.0
        return low - room, high + room

    def frame(self, axes: Axes) -> None:
        """Set the value's axis."""
        axes.set_yscale("log" if self.is_wide else "linear")
        axes.set_ylim(*self.bounds)
        tidy(axes)


def drawn(study: optuna.Study, objectives: Sequence[Objective], index: int) -> Drawn:
    """Return what there is to draw of an objective.

    Args:
        study: With trials.
        objectives: What it looked for, in the study's order.
        index: Which of them.
    """
    trials = study.get_trials(deepcopy=False)
    pruned = []
    if len(objectives) == 1:
        for trial in trials:
            reported = trial.intermediate_values
            if trial.state == TrialState.PRUNED and reported:
                value = reported[max(reported)]
                if np.isfinite(value):
                    pruned.append((trial, float(value)))
    failed = [t for t in trials if t.state == TrialState.FAIL]
    whole = completed(study, index)
    return Drawn(objectives[index], index, whole, pruned, failed, first_trial(study))


def trial_marks(axes: Axes, of: Drawn, xs: Sequence[float], pruned_xs: Sequence[float]) -> None:
    """Draw completed trials as dots and pruned ones as crosses.

    Args:
        axes: Where.
        of: The trials.
        xs: Of the completed ones; NaN leaves one out.
        pruned_xs: Of the pruned ones.
    """
    ys = [of.at(v) for _, v in of.pruned]
    axes.plot(pruned_xs, ys, "x", color=GREY, markersize=5, alpha=0.7)
    axes.plot(xs, [of.at(v) for v in of.values], "o", color=BLUE, markersize=5, alpha=0.75, mew=0)
    best = of.whole.index(of.best)
    axes.plot([xs[best]], [of.value(of.best)], "o", color=ORANGE, markersize=7)


def legend_marks(of: Drawn) -> list[Line2D]:
    """Return what these marks mean."""
    marks = [mark("best", color=ORANGE, marker="o", ls="", markersize=7)]
    marks.append(mark("completed", color=BLUE, marker="o", ls="", markersize=5))
    if of.pruned:
        label = "pruned, at the last value it reported"
        marks.append(mark(label, color=GREY, marker="x", ls="", markersize=5))
    return marks


def mark(label: str, **style: Any) -> Line2D:
    """Return an entry of a legend."""
    return Line2D([], [], label=label, **style)
