"""K-fold cross-validation: one run a fold, and what their scores have in common."""

import math
from dataclasses import dataclass
from statistics import fmean, stdev

from litlab.config.compose import COMPOSED
from litlab.config.schema import Config
from litlab.evaluation.run import Run
from litlab.runs.folder import find
from litlab.training.preflight import folds as rules_of_folds
from litlab.training.preflight import preflight
from litlab.training.run import train
from litlab.utils.errors import require
from litlab.utils.names import extended


@dataclass(frozen=True)
class CrossValidation:
    """The runs of all folds, and their validation metrics: mean and sample deviation."""

    runs: list[Run]
    metrics: dict[str, tuple[float, float]]


def cross_validate(config: Config, command: list[str] | None = None) -> CrossValidation:
    """Train once a fold, each with another fold as validation; the test split stays shut.

    A score is that of the fold's best epoch, chosen on the fold itself, which flatters it a little.

    Args:
        config: A checked configuration with `data.num_folds`.
        command: What the user typed.

    Raises:
        ConfigError: The number of folds is missing, a single fold is chosen, or several processes.
        LitlabError: See `litlab.training.run.train`.
    """
    require(config, Config, "litlab.cross_validate(config)", COMPOSED)
    preflight(config, [rules_of_folds])
    folds = config.data.num_folds
    assert folds is not None
    if config.init_from is not None:  # once for all: "last" would be the fold before
        checkpoint = str(find(config.init_from).checkpoint)
        config = config.model_copy(update={"init_from": checkpoint})
    configs = [_of_fold(config, fold, folds) for fold in range(folds)]
    runs = [train(of_fold, command=command) for of_fold in configs]
    names = [name for name in runs[0].record.metrics if name.startswith("val/")]
    scores = {name: [run.record.metrics[name] for run in runs] for name in names}
    return CrossValidation(runs, {name: _spread(found) for name, found in scores.items()})


def _spread(values: list[float]) -> tuple[float, float]:
    """Return mean and sample deviation; a value that is not finite leaves neither."""
    if not all(map(math.isfinite, values)):
        return math.nan, math.nan
    return fmean(values), stdev(values)


def _of_fold(config: Config, fold: int, folds: int) -> Config:
    """Return the configuration of one fold, whose data and run have names of their own."""
    number = f"fold{fold + 1}of{folds}"
    data = config.data.model_copy(
        update={
            "name": extended(config.data.name, number, "data.name"),
            "num_folds": folds,
            "fold": fold,
        }
    )
    tags = {**config.tracking.tags, "cv": config.run_name, "cv.fold": str(fold)}
    tracking = config.tracking.model_copy(update={"tags": tags})
    name = extended(config.run_name, number, "name")
    return config.model_copy(update={"data": data, "tracking": tracking, "name": name})
