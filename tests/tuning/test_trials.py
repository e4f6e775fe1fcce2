"""The loop over trials and what follows it, with trainings that are pretended."""

import math
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from litlab.cli.summary import show_study
from litlab.config.compose import load
from litlab.runs.tracking.mlflow_logger import MLflowLogger
from litlab.tuning import tune
from litlab.tuning.results.conclude import write_experiment
from litlab.tuning.results.record import ParentRun
from litlab.tuning.study.settings import StudySettings
from litlab.tuning.tune import Tuner
from litlab.utils.errors import (
    ConfigError,
    DataError,
    EnvironmentFault,
    Interrupted,
    NonFiniteError,
)
from run_helpers import SMALL, THIRD_PARTY, ready_store

pytestmark = THIRD_PARTY
SPACE = {"optimizer.lr": {"low": 1e-3, "high": 1e-1}, "model.width": {"low": 4, "high": 12}}


def by_rate(config: Any) -> dict[str, Any]:
    """A loss that is least at a learning rate of 0.03, and a little chance by seed."""
    rate = config.optimizer["lr"]
    loss = (math.log10(rate) - math.log10(0.03)) ** 2 + 0.01 * (config.seed % 3)
    return {"metrics": {"val/loss": loss, "val/accuracy": 1.0 - loss / 10}}


class Pretended:
    """A pool whose trainings end when they are asked."""

    result: Callable[[Any], dict[str, Any]] = staticmethod(by_rate)
    before: Callable[["Pretended"], None] = staticmethod(lambda pool: None)
    epochs = 6

    def __init__(self, folder: Path, slots: list[Any], data: str, *, measure: bool = False) -> None:
        self.free, self.jobs, self.begun = list(slots), [], []
        self.stops: Callable[[], bool] = lambda: False

    def begin(self, name: str, config: Any, key: Any, *, fresh: bool) -> None:
        self.free.pop()
        self.begun.append((name, fresh, config))
        self.jobs.append(SimpleNamespace(name=name, config=config, key=key, given_up=False))

    def listen(self, on_epoch: Callable[[Any, int, float], bool]) -> list[tuple[Any, Any]]:
        if not self.jobs:
            return []
        type(self).before(self)
        if self.stops():
            return []
        job = self.jobs.pop(0)
        self.free.append(0)
        said = {"seconds": 0.1, "parameters": 10 * job.config.model["width"], "run_id": job.name}
        said |= {"pruned": False, "epochs": self.epochs, **type(self).result(job.config)}
        if "failed" not in said:
            loss = said["metrics"]["val/loss"]
            for epoch in range(self.epochs):
                if on_epoch(job, epoch, loss + 1.0 / (epoch + 1)):
                    said |= {"pruned": True, "epochs": epoch + 1}
                    break
        return [(job, said)]

    def stop(self) -> list[tuple[Any, Any]]:
        left, self.jobs = [(job, None) for job in self.jobs], []
        return left

    def give_up(self, job: Any) -> None:
        job.given_up = True


@pytest.fixture
def tuner(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tuner]:
    ready_store(project)

    def make(*words: str, pool: type = Pretended, **settings: Any) -> Tuner:
        monkeypatch.setattr(tune, "Pool", pool)
        content = {"name": "x", "space": SPACE, "n_trials": 6, "pruner": "none", **settings}
        return Tuner(StudySettings.model_validate(content), [*SMALL, *words], rename_existing=True)

    return make


def test_from_the_first_trial_to_the_recipe(tuner, project: Path, capsys) -> None:
    made = tuner(finalists=2, finalist_seeds=3, workers=2, n_trials=20, pruner="median")
    outcome = made.run()
    assert sum(outcome.trials.values()) == 20
    assert outcome.trials["pruned"] >= 1
    losses = [f.mean("val/loss") for f in outcome.finalists]
    assert losses == sorted(losses)
    assert [f.is_baseline for f in outcome.finalists].count(True) == 1
    assert outcome.best["params"] == outcome.finalists[0].params
    assert outcome.top["value"] <= outcome.first
    assert made.page.is_file()
    names = [name for name, *_ in made.pool.begun]
    assert len(names) == len(set(names)) == 20 + 3 * 3
    seeds = {c.seed for name, _, c in made.pool.begun if name.startswith("final")}
    assert seeds == {1, 2, 3}
    words = [*SMALL, "optimizer.weight_decay=1e-3", "+tracking.tags.team=a"]
    recipe = write_experiment(outcome, words, "val/loss").read_text()
    assert yaml.safe_load(recipe)["optimizer"]["weight_decay"] == 0.001  # no text
    how = "litlab params experiment=x-best +tracking.tags.team=a && dvc repro"
    assert f"#   {how}" in recipe
    load(shlex.split(how.partition(" && ")[0])[2:])
    # Nothing is left to do; then there is.
    again = tuner(finalists=2, finalist_seeds=3, workers=2, n_trials=20, pruner="median")
    assert again.run().finalists == outcome.finalists
    assert again.pool.begun == []
    more = tuner(finalists=2, finalist_seeds=3, n_trials=21, pruner="median")
    assert sum(more.run().trials.values()) == 21
    assert "all 20 trials have ended" in capsys.readouterr().err
    client = MlflowClient(ready_store(project))
    parents = client.search_runs([client.get_experiment_by_name("litlab").experiment_id])
    (parent,) = parents  # one run, whatever commands there were
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best/val/loss"] == pytest.approx(more.run().top["value"])
    kept = {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert {"study.html", "figures"} <= kept


def test_a_value_outside_of_the_space(tuner, capsys) -> None:
    made = tuner("optimizer.lr=1e-5", finalists=1, finalist_seeds=1, n_trials=1)
    outcome = made.run()
    assert (
        "the first trial has optimizer.lr=0.001: the configured 1e-05 is outside"
        in capsys.readouterr().err
    )
    assert outcome.first is None  # of the baseline nothing was tried
    assert [(f.number, bool(f.params)) for f in outcome.finalists] == [(0, True), (0, False)]
    assert outcome.best["params"]["optimizer.lr"] == 0.001
    rates = {name.partition("-seed")[0]: c.optimizer["lr"] for name, _, c in made.pool.begun}
    assert rates == {"trial-0000": 0.001, "final-0000": 0.001, "final-baseline": 1e-5}


def test_a_combination_that_is_refused_costs_one_trial(tuner) -> None:
    # Each is allowed beside the first of the other: only a trial has both.
    space = {"trainer.ema": [None, "{decay: 0.9}"], "trainer.swa": [None, "{lr: 0.1}"]}
    outcome = tuner(space=space, sampler="grid", n_trials=4, finalists=0).run()
    assert outcome.trials == {"complete": 3, "pruned": 0, "failed": 1}


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ({"failed": "a (b)", "code": 6}, NonFiniteError),
        ({"failed": "a (b)", "code": 3}, DataError),
        ({"failed": "a (b)", "code": 2}, ConfigError),
        ({"failed": "MemoryError: x", "code": 1}, EnvironmentFault),
    ],
)
def test_where_all_fail_the_first_reason_is_said(tuner, project: Path, result, kind) -> None:
    class Failing(Pretended):
        result = staticmethod(lambda config: result_of())

    def result_of() -> dict[str, Any]:
        return dict(result)

    with pytest.raises(kind, match="no trial was completed; the first reason") as caught:
        tuner(pool=Failing, n_trials=2).run()
    assert result["failed"] in caught.value.what
    client = MlflowClient(ready_store(project))
    (parent,) = client.search_runs([client.get_experiment_by_name("litlab").experiment_id])
    assert parent.info.status == "FAILED"


def fails_at_first(reason: dict[str, Any]) -> type[Pretended]:
    """A pool whose first training fails."""

    class Failing(Pretended):
        times = 1

        @staticmethod
        def result(config: Any) -> dict[str, Any]:
            Failing.times -= 1
            return by_rate(config) if Failing.times < 0 else reason

    return Failing


def test_failed_trials_are_named(tuner, capsys) -> None:
    outcome = tuner(pool=fails_at_first({"failed": "out of\nmemory", "code": 1}), finalists=0).run()
    assert outcome.trials == {"complete": 5, "pruned": 0, "failed": 1}
    assert outcome.failed == [{"trial": 0, "reason": "out of\nmemory"}]
    assert outcome.best["number"] != 0
    capsys.readouterr()
    show_study(outcome, "val/loss", "x.yaml", "study.html", "litlab params")
    assert "failed: trial 0" in (err := capsys.readouterr().err)
    assert "out of memory" in err
    tuner(finalists=0).run()
    assert "all 6 trials have ended, 1 of them failed" in capsys.readouterr().err


def test_a_failure_of_the_store_stops_the_study_and_counts_for_no_trial(tuner, monkeypatch) -> None:
    def gone(self: ParentRun) -> None:
        raise EnvironmentFault("the MLflow store cannot be used", "tracking.uri", "start it")

    pool = fails_at_first({"failed": "the store", "code": 5})
    made = tuner(pool=pool, finalists=0)
    with monkeypatch.context() as patched:
        patched.setattr(ParentRun, "check", gone)
        with pytest.raises(EnvironmentFault, match="store cannot be used"):
            made.run()
    assert [t.state.name for t in made.study.trials()] == ["RUNNING"]
    again = tuner(finalists=0)
    assert again.run().trials == {"complete": 6, "pruned": 0, "failed": 0}
    assert again.pool.begun[0][:2] == ("trial-0000", False)


def test_a_store_that_fails_at_the_start_is_one_line(tuner, monkeypatch) -> None:
    def full(*_: Any) -> None:
        raise MlflowException("(sqlite3.OperationalError) disk I/O error\n(more)")

    made = tuner(finalists=0)
    monkeypatch.setattr(MLflowLogger, "start", full)
    with pytest.raises(EnvironmentFault, match=r"used: .*disk I/O error \| tracking"):
        made.run()


def test_a_failure_of_the_machine_that_passes_costs_one_trial(tuner) -> None:
    pool = fails_at_first({"failed": "the disk was full", "code": 5})
    assert tuner(pool=pool, finalists=0).run().trials["failed"] == 1


def test_what_failed_on_all_new_seeds_is_not_recommended(tuner, project: Path) -> None:
    class Odd(Pretended):
        @staticmethod
        def result(config: Any) -> dict[str, Any]:
            return by_rate(config) if config.seed == 0 else {"failed": "NaN", "code": 6}

    with pytest.raises(NonFiniteError, match="no finalist was trained on all seeds; .* NaN"):
        tuner(pool=Odd, finalists=2, finalist_seeds=2).run()


def test_a_recipe_that_cannot_be_written(tuner, project: Path) -> None:
    outcome = tuner(finalists=0, n_trials=1).run()
    shutil.rmtree(project / "conf" / "experiment")
    (project / "conf" / "experiment").touch()
    with pytest.raises(EnvironmentFault, match="the best settings cannot be written"):
        write_experiment(outcome, [], "val/loss")
    (project / "conf" / "experiment").unlink()
    assert write_experiment(outcome, [], "val/loss").is_file()


def test_one_command_at_a_time_runs_a_study(tuner, project: Path) -> None:
    made = tuner(finalists=0)
    with made._alone():
        shutil.rmtree(project / "runs", ignore_errors=True)  # which held the lock once
        with pytest.raises(EnvironmentFault, match="the study is in progress"):
            tuner(finalists=0).run()


def test_a_signal_leaves_trials_to_go_on_with(tuner, project: Path) -> None:
    import os
    import signal

    class Stopped(Pretended):
        @staticmethod
        def before(pool: Pretended) -> None:
            if len(pool.begun) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        tuner(pool=Stopped, finalists=0).run()
    assert caught.value.exit_code == 143
    made = tuner(finalists=0)
    assert made.run().trials["complete"] == 6
    assert [(name, fresh) for name, fresh, _ in made.pool.begun][:2] == [
        ("trial-0002", False),
        ("trial-0003", True),
    ]


def test_a_trial_that_was_taken_over_is_given_up(tuner, capsys) -> None:
    class Taken(Pretended):
        given: list[str] = []

        @staticmethod
        def before(pool: Pretended) -> None:
            job = pool.jobs[0]
            if job.name == "trial-0001" and not Taken.given:
                job.key[0].set_user_attr("owner", "another")

        def give_up(self, job: Any) -> None:
            Taken.given.append(job.name)
            job.key[0].set_user_attr("owner", "")  # which ends it, as it does here

    outcome = tuner(pool=Taken, finalists=0).run()
    assert Taken.given
    assert set(Taken.given) == {"trial-0001"}
    err = capsys.readouterr().err
    assert "trial 1 was taken over by another machine" in err
    assert "trial 1 was finished elsewhere; its result counts once" in err
    assert outcome.trials["complete"] == 6


def test_finalists_that_are_not_finite_do_not_win(tuner) -> None:
    class Odd(Pretended):
        @staticmethod
        def result(config: Any) -> dict[str, Any]:
            good = by_rate(config)
            if config.seed == 2 and config.optimizer["lr"] != 0.01:  # not as it was
                good["metrics"]["val/loss"] = float("nan")
            return good

    outcome = tuner(pool=Odd, finalists=2, finalist_seeds=2).run()
    assert [f.is_baseline for f in outcome.finalists] == [True]
    assert {(f["seed"], f["reason"]) for f in outcome.failed} == {(2, "val/loss is nan")}
    assert all(f["trial"] is not None for f in outcome.failed)


def test_several_objectives(tuner, capsys) -> None:
    outcome = tuner(
        objectives=["val/accuracy", "parameters"], pruner="median", finalists=1, finalist_seeds=2
    ).run()
    assert "several objectives: no trial is pruned" in capsys.readouterr().err
    values = [tuple(point["values"].values()) for point in outcome.pareto]
    for accuracy, parameters in values:
        assert not any(a > accuracy and p < parameters for a, p in values)
    # With one finalist, the front's best in what comes first.
    tried = [f for f in outcome.finalists if not f.is_baseline]
    assert len(tried) == 1
    assert set(tried[0].values) == {"val/accuracy", "parameters"}


def test_a_study_of_other_settings_is_renamed(tuner, project: Path, capsys) -> None:
    tuner(finalists=0).run()
    tuner("model.width=9", finalists=0, n_trials=2).run()
    assert "the study with other settings was renamed to x-until-" in capsys.readouterr().err
    assert len(list((project / ".litlab" / "studies").glob("x-until-*.db"))) == 1
    assert len(list((project / "runs").glob("x-until-*"))) == 1


@pytest.mark.parametrize(
    ("settings", "words", "says"),
    [
        ({"stale_after": "2s"}, (), "must be at least 5 s"),
        ({}, ("monitor=train/loss",), "needs a validation metric"),
        ({"objectives": ["val/accuracy", "size"]}, (), "'size' is not a validation metric"),
        ({"space": {"model.widht": [4]}}, (), "model.widht"),
    ],
)
def test_what_is_refused(tuner, settings, words, says) -> None:
    with pytest.raises(ConfigError, match=says):
        tuner(*words, **settings)
