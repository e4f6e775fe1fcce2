"""Grids, and the other samplers by name."""

import optuna
import pytest

from litlab.tuning.study.samplers import cells_of, make_pruner, make_sampler
from litlab.tuning.study.settings import StudySettings
from litlab.tuning.study.space import Space
from litlab.utils.errors import ConfigError

optuna.logging.set_verbosity(optuna.logging.WARNING)
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
CONTENT = {
    "model": ["mlp", "cnn"],
    "model.kernel_size": {"choices": [3, 5], "when": {"model": "cnn"}},
    "model.depth": {"low": 1, "high": 5, "step": 2},
    "model.dropout": {"low": 0.0, "high": 0.2, "step": 0.1},
}
ALL = (1 + 2) * 3 * 3


def key(cell: dict) -> tuple:
    return tuple(sorted((k, round(v, 6) if isinstance(v, float) else v) for k, v in cell.items()))


def test_every_combination_once() -> None:
    space = Space(CONTENT)
    cells = cells_of(space, {}, seed=0)
    assert len(cells) == len({key(cell) for cell in cells}) == ALL
    for cell in cells:
        assert ("model.kernel_size" in cell) == (cell["model"] == "cnn")
        assert cell["model.depth"] in (1, 3, 5)
    current = {"model": "mlp", "model.depth": 3, "model.dropout": 0.0}
    assert key(current) not in {key(cell) for cell in cells_of(space, current, seed=0)}
    assert len(cells_of(space, current, seed=0)) == ALL - 1


def test_the_current_one_is_left_out_whatever_floats_do() -> None:
    space = Space({"model.dropout": {"low": 0.1, "high": 0.5, "step": 0.1}})
    current, _ = space.current(["data=digits", "model=mlp", "model.dropout=0.3"])
    cells = cells_of(space, current, 0)
    assert sorted(cell["model.dropout"] for cell in cells) == [0.1, 0.2, 0.4, 0.5]


def test_the_order_depends_on_the_seed_alone() -> None:
    space = Space(CONTENT)
    assert cells_of(space, {}, 1) == cells_of(space, {}, 1)
    assert cells_of(space, {}, 1) != cells_of(space, {}, 2)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"optimizer.lr": {"low": 1e-4, "high": 0.1}}, "finite number of values"),
        ({f"model.x{n}": list(range(9)) for n in range(9)}, "more than"),
    ],
)
def test_what_is_no_grid(content, says) -> None:
    with pytest.raises(ConfigError, match=says):
        cells_of(Space(content), {}, 0)


def asked(sampler: str, n: int = 12, **settings) -> list[dict]:
    """Run a study on a parabola, whose first trial is the current configuration."""
    content = {
        "model.depth": {"low": 1, "high": 4},
        "model.activation": ["relu", "gelu"],
        "optimizer.lr": {"low": 0.01, "high": 0.1, **({"step": 0.03} if sampler == "grid" else {})},
    }
    chosen = StudySettings(name="x", space=content, sampler=sampler, **settings)
    space = Space(content)
    current = {"model.depth": 2, "model.activation": "relu", "optimizer.lr": 0.04}
    study = optuna.create_study(sampler=make_sampler(chosen, space, current, 0))
    study.enqueue_trial(current)
    for _ in range(n):
        trial = study.ask()
        values = space.suggest(trial)
        study.tell(trial, (values["optimizer.lr"] - 0.05) ** 2 + values["model.depth"])
    found = [trial.params for trial in study.trials]
    assert found[0] == current
    return found


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "random", "grid", "qmc"])
def test_every_sampler(sampler: str) -> None:
    found = asked(sampler, seed=3)
    assert len({key(params) for params in found}) >= 10
    assert found == asked(sampler, seed=3)
    assert found != asked(sampler, seed=4)


def test_grid_trials_go_through_the_grid() -> None:
    found = asked("grid", n=32)
    assert len({key(params) for params in found}) == 32 == 4 * 2 * 4


def test_cmaes_knows_one_objective() -> None:
    with pytest.raises(ConfigError, match="a single objective"):
        asked("cmaes", objectives=["val/loss", "parameters"])


@pytest.mark.parametrize(
    ("name", "ends_at"), [("median", 3), ("patient", 4), ("hyperband", None), ("none", None)]
)
def test_every_pruner(name: str, ends_at: int | None) -> None:
    """Good trials, then some that are worse at every epoch and get worse."""
    study = optuna.create_study(pruner=make_pruner(name, max_epochs=30), study_name="x")
    for number in range(12):
        ended(study, [1.0 / (epoch + 1) + 0.01 * number for epoch in range(10)])
    bad = {ended(study, [9.0 + epoch for epoch in range(10)]) for _ in range(4)}
    if name == "hyperband":  # sorts trials into brackets of different patience
        assert bad - {None}
    else:
        assert bad == {ends_at}
    assert ended(study, [1.0 / (epoch + 2) for epoch in range(10)]) is None  # better than all


def ended(study: optuna.Study, values: list[float]) -> int | None:
    """Run a trial of these values; return the epoch it was pruned at."""
    trial = study.ask()
    for epoch, value in enumerate(values):
        trial.report(value, epoch)
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return epoch
    study.tell(trial, values[-1])
    return None
