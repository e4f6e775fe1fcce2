"""When each trial ran."""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from litlab.report.panels import BLUE, GREY, ORANGE, tidy
from litlab.tuning.report.drawn import mark

COLOURS = {
    TrialState.COMPLETE: (BLUE, "completed"),
    TrialState.PRUNED: ("#b9bec7", "pruned"),
    TrialState.FAIL: (ORANGE, "failed"),
}
GAP = 0.02  # of the time in which trials ran: what a longer pause is shortened to

Span = tuple[float, float]


@dataclass(frozen=True)
class TimeAxis:
    """When trials ran, with long pauses cut short.

    Attributes:
        trials: Those that have ended.
        spans: When each began and ended, in `unit`s since the first began.
        pauses: Where pauses were cut short.
        unit: "seconds", "minutes" or "hours".
    """

    trials: list[FrozenTrial]
    spans: list[Span]
    pauses: list[float]
    unit: str

    @property
    def label(self) -> str:
        """What to write below the axis."""
        return self.unit + (", pauses between two commands cut short" if self.pauses else "")


def clock(study: optuna.Study) -> TimeAxis | None:
    """Return when a study's trials ran; None where fewer than two have ended.

    Args:
        study: With trials.
    """
    trials, spans = [], []
    for trial in study.get_trials(deepcopy=False):
        start, end = trial.datetime_start, trial.datetime_complete
        if trial.state in COLOURS and start and end:
            trials.append(trial)
            spans.append((start.timestamp(), end.timestamp()))
    if len(trials) < 2:
        return None
    pauses = long_pauses(spans)
    ends = [[shortened(x, spans, pauses) for x in span] for span in spans]
    longest = max(end for _, end in ends)
    unit, name = _unit(longest)
    least = 0.002 * longest  # so that a trial of no time is still to be seen
    shown = [(start / unit, max(end, start + least) / unit) for start, end in ends]
    cuts = [shortened((a + b) / 2, spans, pauses) / unit for a, b in pauses]
    return TimeAxis(trials, shown, cuts, name)


def timeline(study: optuna.Study) -> Figure | None:
    """Draw the trials that have ended against the clock; None where there are fewer than two.

    Args:
        study: With trials.
    """
    ran = clock(study)
    if ran is None:
        return None
    height = min(7.0, 1.6 + 0.09 * len(ran.trials))
    figure = Figure(figsize=(8.0, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for trial, (start, end) in zip(ran.trials, ran.spans, strict=True):
        colour = COLOURS[trial.state][0]
        axes.barh(trial.number, end - start, left=start, height=0.8, color=colour)
    for at in ran.pauses:
        axes.axvline(at, color=GREY, linestyle=":", linewidth=1.2)
    axes.set_xlabel(ran.label)
    axes.set_ylabel("trial")
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    numbers = [t.number for t in ran.trials]
    axes.set_ylim(max(numbers) + 0.6, min(numbers) - 0.6)
    tidy(axes)
    states = [state for state in COLOURS if any(t.state == state for t in ran.trials)]
    marks = [mark(COLOURS[s][1], color=COLOURS[s][0], lw=6) for s in states]
    figure.legend(handles=marks, loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def _unit(longest: float) -> tuple[int, str]:
    """Return a unit of which there are a few, in seconds, and its name."""
    if longest > 7200:
        return 3600, "hours"
    return (60, "minutes") if longest > 120 else (1, "seconds")


def long_pauses(spans: Sequence[Span]) -> list[Span]:
    """Return when no trial ran for longer than a twentieth of the time in which any ran.

    Args:
        spans: Start and end of each trial.
    """
    busy, pauses, end = 0.0, [], min(start for start, _ in spans)
    for start, stop in sorted(spans):
        if start > end:
            pauses.append((end, start))
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return [(a, b) for a, b in pauses if b - a > 0.05 * busy]


def shortened(time: float, spans: Sequence[Span], pauses: Sequence[Span]) -> float:
    """Return the time since the first trial began, with long pauses cut short.

    Args:
        time: A timestamp.
        spans: Start and end of each trial.
        pauses: The long ones.
    """
    first, last = min(a for a, _ in spans), max(b for _, b in spans)
    paused = sum(b - a for a, b in pauses)
    short = GAP * (last - first - paused)
    at = time - first
    for start, end in pauses:
        if time > start:
            passed = min(time, end) - start
            at += passed * (short / (end - start) - 1) if end > start else 0.0
    return at
