"""The task follows a table's target, unless the user has chosen one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from litlab.config.compose import load
from litlab.training.parts import follow_target


@pytest.fixture
def table(project: Path) -> list[str]:
    x = np.random.default_rng(0).normal(size=(60, 2)).round(3)
    frame = pd.DataFrame({"x": x[:, 0], "amount": x[:, 1], "kind": ["a", "b"] * 30})
    frame.to_csv(project / "x.csv", index=False)
    return ["data=table", "data.path=x.csv"]


def test_the_task_follows_the_target(table: list[str]) -> None:
    config = load([*table, "data.source.target=amount", "seed=3"])
    found = follow_target(config)
    assert found.task["_target_"].endswith(".RegressionTask")
    assert found.loss == load([*table, "data.source.target=x", "task=regression"]).loss
    assert set(found.metrics) == {"mae", "rmse", "r2"}
    assert (found.plot, found.seed) == ("scatter", 3)
    assert found.data == config.data


def test_a_task_that_fits_or_was_chosen_stays(table: list[str]) -> None:
    config = load([*table, "data.source.target=kind", "data.name=other"])
    assert follow_target(config) is config
    chosen = load([*table, "data.source.target=amount", "task=classification"])
    assert follow_target(chosen) is chosen
