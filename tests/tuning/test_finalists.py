"""The best are trained again; several objectives; a limit of time."""

import json
import math
import sqlite3
import statistics
import time
from pathlib import Path

import pytest
import yaml
from scipy.stats import ttest_1samp

from litlab.runs.folder import RunRecord
from litlab.tuning.results.outcome import Finalist, interval
from run_helpers import SMALL, THIRD_PARTY, mlflow_run
from study_helpers import run, states, study, trials_of

pytestmark = THIRD_PARTY


def test_intervals_are_students() -> None:
    values = (0.91, 0.94, 0.9, 0.97)
    found = interval(values)
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found == pytest.approx((expected.low, expected.high))
    assert interval((0.5,)) is None
    finalist = Finalist(3, {}, (1, 2, 3, 4), {"val/accuracy": values})
    assert finalist.mean("val/accuracy") == pytest.approx(0.93)


def test_the_best_on_new_seeds(project: Path) -> None:
    """Also: the test split is not even there."""
    from litlab.config.compose import load
    from litlab.data.prepare.open import open_or_prepare

    folder, _ = open_or_prepare(load([*SMALL]).data, [])
    (folder / "test.safetensors").unlink()
    command = study(project, finalists=2, finalist_seeds=2, workers=2)
    said, err = run(command, project)
    assert "on 2 new seeds" in err
    trials = trials_of(project)
    ranked = said["finalists"]
    best_two = sorted(trials[1:], key=lambda t: t.value)[:2]  # the first is there in any case
    assert {f["number"] for f in ranked} == {0, *(t.number for t in best_two)}
    assert said["top"]["value"] == min(t.value for t in trials)
    means = [statistics.fmean(f["values"]["val/loss"]) for f in ranked]
    assert means == sorted(means)
    seed = load([*SMALL]).seed
    for finalist in ranked:
        assert finalist["seeds"] == [seed + 1, seed + 2]
        for number, value in zip(finalist["seeds"], finalist["values"]["val/loss"], strict=True):
            which = f"{finalist['number']:04d}" if finalist["params"] else "baseline"
            name = f"final-{which}-seed-{number}"
            record = RunRecord.load(project / "runs" / "tiny" / name)
            assert record.metrics["val/loss"] == value
            tags = mlflow_run(project, record.run_id).data.tags
            assert (tags["study"], tags["finalist_seed"]) == ("tiny", str(number))
    assert said["best"]["number"] == ranked[0]["number"]
    assert said["best"]["mean"]["val/loss"] == pytest.approx(means[0])
    # What remains says what to expect, and is one configuration like any other.
    recipe = (project / said["experiment"]).read_text()
    assert "Student's t" in recipe
    for finalist in ranked:
        label = f"trial {finalist['number']}" if finalist["params"] else "baseline"
        assert f"# {label}: val/loss" in recipe
    yaml.safe_load(recipe)
    load(["experiment=tiny-best"])
    assert "<html" in (project / said["report"]).read_text()[:200]
    assert list((project / "runs" / "tiny" / "figures").glob("*.png"))
    # Run again, nothing is trained; three trials more, and only new finalists are.
    _as_named_before(project, seed + 1)
    before = {p: p.stat().st_mtime_ns for p in project.glob("runs/tiny/*/run.json")}
    again, err = run(command, project)
    assert again["finalists"] == ranked
    assert "study.n_trials=8 would add as many" in err
    assert before == {p: p.stat().st_mtime_ns for p in project.glob("runs/tiny/*/run.json")}


def _as_named_before(project: Path, seed: int) -> None:
    """Give the baseline's result on a seed the name that it had in earlier versions."""
    file = sqlite3.connect(project / ".litlab/studies/tiny.db")
    names = f"final-as-it-was-seed-{seed}", f"final-baseline-seed-{seed}"
    with file:
        changed = file.execute("UPDATE study_user_attributes SET key=? WHERE key=?", names)
    file.close()
    assert changed.rowcount == 1
    (project / "runs/tiny" / names[1]).rename(project / "runs/tiny" / names[0])


@pytest.mark.slow
def test_several_objectives_on_a_grid(project: Path) -> None:
    command = study(
        project,
        space={"model.width": [4, 8, 16], "loader.batch_size": [16, 32]},
        sampler="grid",
        objectives=["val/accuracy", "parameters", "latency"],
        n_trials=50,
        pruner="median",
        finalists=2,
        finalist_seeds=1,
    )
    said, err = run(command, project)
    assert "the grid has 6 combinations" in err
    assert "several objectives: no trial is pruned" in err
    trials = trials_of(project)
    assert len({json.dumps(t.params, sort_keys=True) for t in trials}) == len(trials) == 6
    for trial in trials:
        record = RunRecord.load(project / "runs" / "tiny" / f"trial-{trial.number:04d}")
        assert trial.values[:2] == [record.metrics["val/accuracy"], record.num_parameters]
        assert 0 < trial.values[2] < 1000

    def beats(one: list[float], other: list[float]) -> bool:
        signed = [[-v[0], *v[1:]] for v in (one, other)]
        pairs = list(zip(*signed, strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    front = {t.number for t in trials if not any(beats(o.values, t.values) for o in trials)}
    assert {point["number"] for point in said["pareto"]} == front
    assert said["best"]["number"] in {0, *front}
    assert list((project / "runs" / "tiny" / "figures").glob("*pareto*.png"))
    assert yaml.safe_load((project / said["experiment"]).read_text())["monitor"] == "val/accuracy"


@pytest.mark.slow
def test_a_limit_of_time(project: Path) -> None:
    words = ("trainer.max_epochs=12", "trainer.limit_train_batches=1.0")
    command = study(project, *words, n_trials=500, time_limit="3s")
    began = time.monotonic()
    said, _ = run(command, project)
    assert time.monotonic() - began < 60
    first = said["trials"]["complete"]
    assert 1 <= first < 500
    assert set(states(project)) == {"COMPLETE"}
    # Its time was over; the same command has as much again.
    again, _ = run(command, project)
    assert again["trials"]["complete"] > first


def test_a_trial_without_a_finite_value_fails(project: Path) -> None:
    patch = (
        "import litlab.tuning.workers.worker as w\n"
        "said = w._said\n"
        "def nan(record, *, pruned):\n"
        "    found = said(record, pruned=pruned)\n"
        "    number = record.run_name[-1]\n"
        "    bad = {'1': float('nan'), '2': float('inf')}.get(number, 0.5)\n"
        "    found['metrics'] = {**found['metrics'], 'val/loss': bad}\n"
        "    return found\n"
        "w._said = nan"
    )
    said, _ = run(study(project, patch=patch), project)
    assert said["trials"] == {"complete": 2, "pruned": 0, "failed": 2}
    reasons = [t.user_attrs.get("failed") for t in trials_of(project)]
    assert reasons == [None, "val/loss is nan", "val/loss is inf", None]
    assert math.isfinite(said["best"]["value"])
