"""A study ends with as many finished trials as were asked for, whatever happens to it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import optuna
import pytest
from mlflow.tracking import MlflowClient

import forked
from litlab.runs.folder import RunRecord
from litlab.tuning.study.samplers import KeyedRandom
from litlab.tuning.study.settings import Objective, StudySettings
from litlab.tuning.study.space import Space
from litlab.tuning.study.storage import Storage
from litlab.tuning.study.study import Start, TrialStudy
from litlab.utils.errors import ConfigError
from run_helpers import THIRD_PARTY, ready_store
from study_helpers import run, states, study, trials_of

pytestmark = THIRD_PARTY


def test_a_study_and_what_it_leaves(project: Path) -> None:
    command = study(project)
    said, err = run(command, project)
    assert said["trials"] == {"complete": 4, "pruned": 0, "failed": 0}
    found = trials_of(project)
    # The first trial is the configuration as it is.
    assert found[0].params == {"optimizer.lr": 0.01, "model.width": 8}
    values = [trial.value for trial in found]
    assert said["best"]["value"] == min(values)
    assert said["first"] == values[0]
    for trial in found:
        record = RunRecord.load(project / "runs" / "tiny" / f"trial-{trial.number:04d}")
        assert record.status == "FINISHED"
        assert record.metrics["val/loss"] == trial.value
        assert not any(name.startswith("test") for name in record.metrics)
    client = MlflowClient(ready_store(project))
    runs = client.search_runs([client.get_experiment_by_name("litlab").experiment_id])
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if r is not parent]
    assert len(children) == 4
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {parent.info.run_id}
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best/val/loss"] == said["best"]["value"]
    # Run again, nothing is missing.
    again, _ = run(command, project)
    assert again["trials"] == said["trials"]
    assert len(trials_of(project)) == 4
    # The best is an experiment like any other.
    recipe = (project / said["experiment"]).read_text()
    assert "litlab params experiment=tiny-best" in recipe
    from litlab.config.compose import load

    best = load(["experiment=tiny-best"])
    assert best.optimizer["lr"] == said["best"]["params"]["optimizer.lr"]
    assert best.data.name == "synthetic"
    assert best.model["width"] == said["best"]["params"]["model.width"]
    assert "(4 of 4)" in err


KILLS = """
import os, signal
from litlab.training.callbacks.checkpoint import CheckpointCallback
from pathlib import Path
done = CheckpointCallback.batch_done
def batch_done(self, trainer):
    mark = Path("killed-" + self.metadata.config.name)
    if trainer.global_step == 4 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    done(self, trainer)
CheckpointCallback.batch_done = batch_done
"""


@pytest.mark.slow
def test_every_process_killed_once(project: Path) -> None:
    said, err = run(study(project, patch=KILLS, workers=2, n_trials=20), project)
    assert said["trials"] == {"complete": 20, "pruned": 0, "failed": 0}
    assert len(list(project.glob("killed-*"))) == 20
    assert err.count("SIGKILL; it is resumed") == 20
    assert states(project) == ["COMPLETE"] * 20
    numbers = [trial.number for trial in trials_of(project)]
    assert numbers == list(range(20))
    assert len({trial.user_attrs["run_id"] for trial in trials_of(project)}) == 20


FAILS = """
from litlab.training.callbacks.checkpoint import CheckpointCallback
done = CheckpointCallback.batch_done
def batch_done(self, trainer):
    if self.metadata.config.name.endswith("1"):
        raise RuntimeError("bad sample")
    if self.metadata.config.name.endswith("2"):
        import os; os._exit(9)
    done(self, trainer)
CheckpointCallback.batch_done = batch_done
"""


@pytest.mark.slow
def test_trials_that_fail_cost_themselves(project: Path) -> None:
    said, err = run(study(project, patch=FAILS), project)
    assert said["trials"] == {"complete": 2, "pruned": 0, "failed": 2}
    assert states(project) == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    reasons = [trial.user_attrs.get("failed") for trial in trials_of(project)]
    assert reasons[1] == "RuntimeError: bad sample"
    assert reasons[2] == "its process ended with exit code 9, 3 times"
    assert "bad sample" in err
    assert [failed["trial"] for failed in said["failed"]] == [1, 2]
    # Killed before it had saved anything, it leaves a run each time.
    client = MlflowClient(ready_store(project))
    runs = client.search_runs([client.get_experiment_by_name("litlab").experiment_id])
    ended = sorted(run.info.status for run in runs)
    assert ended == ["FAILED"] + ["FINISHED"] * 3 + ["KILLED"] * 3
    assert RunRecord.load(project / "runs/tiny/trial-0002").status == "KILLED"


REMOVES = """
import shutil
from litlab.training.callbacks.checkpoint import CheckpointCallback
from pathlib import Path
done = CheckpointCallback.batch_done
def batch_done(self, trainer):
    if self.metadata.config.name.endswith("1") and not Path("removed").exists():
        Path("removed").touch()
        shutil.rmtree("runs")
    done(self, trainer)
CheckpointCallback.batch_done = batch_done
"""


@pytest.mark.slow
def test_a_folder_of_runs_that_is_removed_costs_no_trial(project: Path) -> None:
    said, err = run(study(project, patch=REMOVES), project)
    assert said["trials"] == {"complete": 4, "pruned": 0, "failed": 0}
    assert said["failed"] == []
    assert "trial-0001: " in err
    assert len(list((project / "runs" / "tiny").glob("trial-*/best.ckpt"))) == 3


@pytest.mark.slow
def test_pruning_is_no_failure(project: Path) -> None:
    patch = "import litlab.tuning.study.samplers as s; s.WARMUP_TRIALS = s.WARMUP_EPOCHS = 1"
    space = {"optimizer.lr": [0.05, 1e-7]}
    command = study(
        project,
        "trainer.max_epochs=6",
        "optimizer.lr=0.05",
        patch=patch,
        pruner="median",
        space=space,
        n_trials=6,
        sampler="random",
    )
    said, err = run(command, project)
    assert said["trials"]["pruned"] >= 1
    assert sum(said["trials"].values()) == 6
    assert "(pruned)" in err
    for trial in trials_of(project):
        record = RunRecord.load(project / "runs" / "tiny" / f"trial-{trial.number:04d}")
        assert record.status == "FINISHED"
        assert (record.epochs < 6) == (trial.state.name == "PRUNED")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_study_that_was_stopped_goes_on(project: Path, number: int) -> None:
    long = ["trainer.max_epochs=60", "trainer.limit_train_batches=1.0"]
    command = study(project, *long, "trainer.save_every_seconds=0.1", workers=2)
    process = forked.Popen(
        command, cwd=project, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while len(list(project.glob("runs/tiny/*/previous.ckpt"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    # A terminal sends SIGINT and SIGHUP to all of a command's processes.
    (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
    err = process.communicate()[1]
    codes = {signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGKILL: -number}
    assert process.returncode == codes[number], err
    if number != signal.SIGKILL:
        assert "it is resumed" not in err  # no trial was killed and begun again
        records = map(RunRecord.load, (project / "runs/tiny").glob("trial-*/"))
        assert {record.status for record in records} <= {"KILLED", "FINISHED"}
    assert "RUNNING" in states(project)
    time.sleep(3)  # the trials of a study that was killed notice it
    said, err = run(command, project)
    assert said["trials"]["complete"] == 4
    assert states(project) == ["COMPLETE"] * 4
    assert "was interrupted; it is resumed" in err
    resumed = [RunRecord.load(f).resumed for f in sorted((project / "runs/tiny").glob("trial-*/"))]
    assert sum(resumed) >= 1


def test_random_trials_depend_on_seed_and_number_alone() -> None:
    def draw(order: list[int]) -> dict[int, float]:
        chosen = optuna.create_study(sampler=KeyedRandom(3))
        trials = [chosen.ask() for _ in order]
        return {n: trials[n].suggest_float("x", 0.0, 1.0) for n in order}

    assert draw([0, 1, 2, 3]) == draw([3, 1, 0, 2])
    assert len(set(draw([0, 1, 2, 3]).values())) == 4


def opened(**settings: object) -> TrialStudy:
    """Open the study as a command does."""
    content = {"optimizer.lr": [0.1, 0.2]}
    chosen = StudySettings.model_validate({"name": "x", "space": content, **settings})
    goal = Objective("val/loss", "minimize")
    start = Start({"optimizer.lr": 0.1}, {}, "hash", "data", 10)
    study = TrialStudy(chosen, Space(chosen.space), [goal], Storage("x", None, 60), start)
    study.leave()
    return study


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"space": {"optimizer.lr": [0.1, 0.3]}}, "another space"),
        ({"n_trials": 3, "sampler": "gp", "workers": 4}, ""),
        ({"sampler": "random"}, "another sampler or seed"),
    ],
)
def test_a_study_of_another_space_is_refused(project: Path, changes: dict, says: str) -> None:
    opened().begin()
    if not says:
        assert opened(**changes).count() == 1
        return
    with pytest.raises(ConfigError, match=says) as caught:
        opened(**changes)
    assert "study.name" in caught.value.where


def test_a_study_that_has_run_nothing_may_change(project: Path) -> None:
    opened()
    changed = opened(space={"optimizer.lr": [0.1, 0.3]}, sampler="random")
    assert changed.study.user_attrs["space"] == {"optimizer.lr": [0.1, 0.3]}
    assert [t.state.name for t in changed.trials()] == ["WAITING"]


def test_trials_of_an_earlier_study_are_not_taken_for_its_own(project: Path) -> None:
    (project / "runs" / "x" / "trial-0000").mkdir(parents=True)
    with pytest.raises(ConfigError, match="an earlier study"):
        opened()


def test_a_study_goes_by_validation(project: Path) -> None:
    _, err = run(study(project, "monitor=train/loss"), project, code=2)
    assert "needs a validation metric" in err
