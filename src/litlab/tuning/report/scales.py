"""A setting's values as places along an axis: numbers, logarithms, choices, "not set"."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from litlab.report.canvas import cut

LONGEST = 14  # characters of a choice


@dataclass(frozen=True)
class ValueScale:
    """Where the values of a setting lie.

    Attributes:
        path: The setting's.
        log: Whether on a log scale.
        choices: The names of choices; empty for numbers.
        low: Of the range.
        high: Of the range.
        step: Between two values; 0 if there are others between any two.
    """

    path: str
    log: bool
    choices: tuple[str, ...]
    low: float
    high: float
    step: float = 0.0

    def at(self, value: Any) -> float:
        """Return a value's place: choices are numbered."""
        return float(self.choices.index(repr(value))) if self.choices else float(value)

    def share(self, value: Any) -> float:
        """Return a value's place from 0 to 1."""
        return self.share_of(self.at(value))

    def share_of(self, place: float) -> float:
        """Return it of a number on the axis."""
        low, high = self.low, self.high
        if self.log:
            low, high, place = math.log(low), math.log(high), math.log(place)
        return (place - low) / (high - low) if high > low else 0.5

    def label(self, place: float) -> str:
        """Return what to write there."""
        if self.choices:
            return cut(self.choices[int(place)].strip("'\""), LONGEST)
        return f"{place:.3g}"

    def ticks(self, most: int = 5) -> list[float]:
        """Return a few round places within the range."""
        if self.choices:
            return [float(i) for i in range(len(self.choices))]
        if self.step and not self.log and self.high - self.low <= most * self.step:
            return [float(x) for x in np.arange(self.low, self.high + self.step / 2, self.step)]
        if self.log and self.high / self.low >= 10:
            found = LogLocator(subs=(1.0,)).tick_values(self.low, self.high)
            if sum(self.low <= x <= self.high for x in found) < 3:
                found = LogLocator(subs=(1.0, 3.0)).tick_values(self.low, self.high)
        else:
            whole = self.high - self.low >= 1 and float(self.low).is_integer()
            found = MaxNLocator(most, integer=whole).tick_values(self.low, self.high)
        return [float(x) for x in found if self.low <= x <= self.high]

    def put_on(self, axes: Axes) -> None:
        """Make the horizontal axis this one."""
        pad = 0.04
        if self.log:
            axes.set_xscale("log")
            ratio = (self.high / self.low) ** pad
            axes.set_xlim(self.low / ratio, self.high * ratio)
        else:
            room = 0.5 if self.choices else pad * (self.high - self.low)
            axes.set_xlim(self.low - room, self.high + room)
        ticks = self.ticks()
        labels = [self.label(tick) for tick in ticks]
        axes.set_xticks(ticks, labels, parse_math=False)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        if self.choices and sum(map(len, labels)) > 24:
            for text in axes.get_xticklabels():
                text.set(rotation=30, ha="right", va="top", rotation_mode="anchor")


def scale_of(path: str, trials: Sequence[FrozenTrial]) -> ValueScale | None:
    """Return a setting's scale; None if it has one value, or only in trials without any.

    Args:
        path: The setting's.
        trials: Those to be drawn.
    """
    distributions: list[BaseDistribution] = [
        t.distributions[path] for t in trials if path in t.distributions
    ]
    if not distributions or distributions[0].single():
        return None
    first = distributions[0]
    if isinstance(first, CategoricalDistribution):
        names = tuple(map(repr, first.choices))
        return ValueScale(path, False, names, 0.0, len(names) - 1.0)
    assert isinstance(first, FloatDistribution | IntDistribution)
    return ValueScale(
        path, first.log, (), float(first.low), float(first.high), float(first.step or 0)
    )


def worst_shown(values: Sequence[float], minimize: bool) -> float:
    """Return the worst value that is drawn where it lies: those beyond go to the edge.

    Beyond are those outside Tukey's outer fences on the worse side: one trial that diverged would
    flatten the rest.
    """
    own = np.asarray(values)
    q1, q3 = np.quantile(own, [0.25, 0.75])
    room = 3 * (q3 - q1) or math.inf
    return float(own[own <= q3 + room].max() if minimize else own[own >= q1 - room].min())
