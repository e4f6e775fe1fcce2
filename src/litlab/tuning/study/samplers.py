"""Optuna's samplers and pruners by name, and one whose draws depend on (seed, number) alone."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from litlab.tuning.study.grid import KeyedGrid, cells_of
from litlab.tuning.study.settings import StudySettings
from litlab.tuning.study.space import Space
from litlab.utils.errors import ConfigError

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
        shift: Differs between commands of one study: what goes on with the same seed would draw
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
