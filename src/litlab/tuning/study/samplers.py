"""Optuna's samplers and pruners by name, and one whose draws depend on (seed, number) alone."""

import hashlib
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
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from litlab.tuning.study.settings import StudySettings
from litlab.tuning.study.space import DIGITS, WHERE, Parameter, Space
from litlab.utils.errors import ConfigError

# Every combination of a space, in an order that depends on the seed alone.


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


WARMUP_TRIALS = 5  # whole ones before any is pruned
WARMUP_EPOCHS = 3


class KeyedRandom(RandomSampler):
    """Random search in which a trial's values are a function of (seed, number, name).

    So one worker and four, and a study that was interrupted, try the same set.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.seed = seed

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one value."""
        words = f"{self.seed}/{trial.number}/{param_name}".encode()
        key = int.from_bytes(hashlib.sha256(words).digest()[:8], "little")
        self._rng._rng = np.random.RandomState(key % 2**32)
        return super().sample_independent(study, trial, param_name, param_distribution)


def make_sampler(
    settings: StudySettings, space: Space, current: Mapping[str, Any], shift: int
) -> BaseSampler:
    """Return the sampler that a study asks for.

    Args:
        settings: The study's.
        space: What is varied.
        current: The first trial's values.
        shift: Differs between commands of one study: a resumed study with the same seed would draw
            again what it has drawn. Random search and grids need none; they go by trial numbers.

    Raises:
        ConfigError: The space has no grid, or the sampler knows a single objective only.
    """
    samplers, name = optuna.samplers, settings.sampler
    seed = (settings.seed + shift) % 2**32
    if name == "cmaes" and len(settings.objectives) > 1:
        what, fix = "CMA-ES supports a single objective", "use tpe, gp, random, grid or qmc"
        raise ConfigError(what, "study.sampler=cmaes", fix)
    if name == "random":
        return KeyedRandom(settings.seed)
    if name == "grid":
        return KeyedGrid(cells_of(space, current, settings.seed))
    if name == "tpe":
        return samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=8
        )
    if name == "gp":
        return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    if name == "cmaes":
        return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    assert name == "qmc", name
    return samplers.QMCSampler(seed=settings.seed, scramble=True, warn_independent_sampling=False)


def make_pruner(name: str, max_epochs: int) -> BasePruner:
    """Return a pruner.

    Args:
        name: "median", "hyperband", "patient" or "none".
        max_epochs: Of a whole training.
    """
    pruners = optuna.pruners
    median = pruners.MedianPruner(n_startup_trials=WARMUP_TRIALS, n_warmup_steps=WARMUP_EPOCHS)
    if name == "median":
        return median
    if name == "patient":
        return pruners.PatientPruner(median, patience=3)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=max_epochs)
    return pruners.NopPruner()
