"""Every combination of a space, in an order that depends on the seed alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from litlab.tuning.study.space import DIGITS, WHERE, Parameter, Space
from litlab.utils.errors import ConfigError

MOST = 100_000  # combinations: more is no grid


class KeyedGrid(BaseSampler):
    """Grid search in which a trial's values are a function of (seed, number).

    Trial 0 is the configuration as it is, so trial n has the combination n - 1.

    Args:
        cells: The combinations, as `cells_of` returns them.
    """

    def __init__(self, cells: Sequence[Mapping[str, Any]]) -> None:
        self.cells = cells

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return nothing: each value is looked up by itself."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the trial's value."""
        return self.cells[trial.number - 1][param_name]


def cells_of(space: Space, current: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """Return all combinations but the current one.

    Raises:
        ConfigError: A range has no steps, or there are too many.
    """
    cells: list[dict[str, Any]] = [{}]
    for parameter in space.parameters:
        values = _values(parameter)
        cells = [
            new
            for cell in cells
            for new in (
                [{**cell, parameter.path: v} for v in values] if parameter.applies(cell) else [cell]
            )
        ]
        if len(cells) > MOST:
            fix = "fewer choices, larger steps, or sampler=random"
            raise ConfigError(f"a grid of more than {MOST:,} combinations", WHERE, fix)
    cells = [cell for cell in cells if cell != current]
    order = np.random.default_rng(seed).permutation(len(cells))
    return [cells[place] for place in order]


def _values(parameter: Parameter) -> list[Any]:
    d = parameter.distribution
    if isinstance(d, CategoricalDistribution):
        return list(d.choices)
    if isinstance(d, IntDistribution) and not d.log:
        return list(range(d.low, d.high + 1, d.step))
    if isinstance(d, FloatDistribution) and d.step is not None:
        number = round((d.high - d.low) / d.step)
        return [round(d.low + place * d.step, DIGITS) for place in range(number + 1)]
    where, fix = f"{WHERE}.{parameter.path}", "give it a step, or choices such as [0.001, 0.01]"
    raise ConfigError("a grid needs a finite number of values", where, fix)
