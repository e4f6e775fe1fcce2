"""Studies made of trials that are written down, not run."""

import datetime
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from litlab.tuning.results.outcome import Finalist
from litlab.tuning.study.settings import Objective
from litlab.tuning.study.space import Space

optuna.logging.set_verbosity(optuna.logging.WARNING)

LOSS = Objective("val/loss", "minimize")
SIZE = Objective("parameters", "minimize")
CONTENT: dict[str, Any] = {
    "optimizer.lr": {"low": 1e-4, "high": 1e-1},
    "model.width": {"low": 16, "high": 256, "step": 16},
    "model.dropout": {"low": 0.0, "high": 0.5},
    "model": ["mlp", "cnn"],
    "model.kernel_size": {"low": 3, "high": 7, "step": 2, "when": {"model": "cnn"}},
}
SPACE = Space(CONTENT)
START = datetime.datetime(2026, 1, 5, 9, 0)

Params = dict[str, Any]


def draw(space: Space, rng: np.random.Generator) -> Params:
    """Return values drawn evenly, on each range's own scale."""
    params: Params = {}
    for p in space.parameters:
        if p.applies(params):
            params[p.path] = _one(p.distribution, rng)
    return params


def _one(d: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(d, CategoricalDistribution):
        return d.choices[rng.integers(len(d.choices))]
    if isinstance(d, IntDistribution):
        return int(d.low + d.step * rng.integers((d.high - d.low) // d.step + 1))
    assert isinstance(d, FloatDistribution)
    if d.log:
        return float(np.exp(rng.uniform(math.log(d.low), math.log(d.high))))
    return float(rng.uniform(d.low, d.high))


def trial(
    space: Space,
    params: Params,
    values: float | list[float] | None = None,
    state: TrialState = TrialState.COMPLETE,
    reason: str = "",
    reported: dict[int, float] | None = None,
) -> FrozenTrial:
    distributions = {p.path: p.distribution for p in space.parameters if p.path in params}
    made = create_trial(
        state=state,
        values=[values] if isinstance(values, float) else values,
        params=params,
        distributions=distributions,
        intermediate_values=reported,
        user_attrs={"failed": reason} if reason else {"seconds": 1.0},
    )
    made.datetime_complete = START
    return made


def study(trials: list[FrozenTrial], *directions: str) -> optuna.Study:
    """Return a study of these trials, which took a minute each, one after the other."""
    made = optuna.create_study(directions=list(directions or ["minimize"]), study_name="made")
    for i, one in enumerate(trials):
        one.datetime_start = START + datetime.timedelta(minutes=i)
        one.datetime_complete = one.datetime_start + datetime.timedelta(seconds=50)
        made.add_trial(one)
    return made


def random_study(
    n: int, value: Callable[[Params], float], seed: int = 0, space: Space = SPACE
) -> optuna.Study:
    """Return a study of n completed trials whose settings were drawn evenly."""
    rng = np.random.default_rng(seed)
    drawn = [draw(space, rng) for _ in range(n)]
    return study([trial(space, params, float(value(params))) for params in drawn])


def by_rate(best: float) -> Callable[[Params], float]:
    """Return a loss that is least at a learning rate."""
    return lambda p: 0.1 + (math.log10(p["optimizer.lr"] / best)) ** 2


def mixed(several: bool = False, seed: int = 0) -> optuna.Study:
    """Return a study with trials of every state, conditional settings and one that diverged."""
    rng, trials = np.random.default_rng(seed), []
    for i in range(30):
        params = draw(SPACE, rng)
        loss = by_rate(3e-3)(params) + float(rng.normal(0, 0.01))
        loss = 1e4 if i == 7 else loss
        if i % 9 == 5:
            trials.append(trial(SPACE, params, None, TrialState.FAIL, f"RuntimeError: <b>{i}"))
        elif i % 4 == 3 and not several:
            reported = {0: loss + 1, 1: loss}
            trials.append(trial(SPACE, params, None, TrialState.PRUNED, reported=reported))
        else:
            values = [loss, 100.0 * params["model.width"]] if several else loss
            trials.append(trial(SPACE, params, values))
    return study(trials, *["minimize"] * (1 + several))


def finalist(number: int, *values: float) -> Finalist:
    seeds = tuple(range(1, len(values) + 1))
    params = {"optimizer.lr": 0.01} if number else {}  # without any: as it was
    return Finalist(number, params, seeds, {"val/loss": values})
