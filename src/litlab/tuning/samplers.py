"""Optuna's samplers and pruners by name, and one whose draws depend on (seed, number) alone."""

import hashlib
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

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


def make_sampler(name: str, seed: int, *, several: bool) -> BaseSampler:
    """Return a sampler.

    Args:
        name: "tpe", "gp", "cmaes", "random" or "qmc".
        seed: Its own; not that of the trainings.
        several: Whether several trials run at the same time.
    """
    samplers = optuna.samplers
    if name == "random":
        return KeyedRandom(seed)
    if name == "tpe":
        return samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=several, n_startup_trials=8
        )
    if name == "gp":
        return samplers.GPSampler(seed=seed)
    if name == "cmaes":
        return samplers.CmaEsSampler(seed=seed)
    assert name == "qmc", name
    return samplers.QMCSampler(seed=seed, scramble=True)


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
