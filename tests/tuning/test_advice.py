"""What a study is said to show, and what it is not."""

import math

import numpy as np
import pytest
from optuna.trial import TrialState

from litlab.tuning.report.advice import advise, beyond, typed
from litlab.tuning.report.importances import difference, importances
from litlab.tuning.study.settings import Objective
from litlab.tuning.study.space import Space
from made_studies import (
    LOSS,
    SIZE,
    SPACE,
    by_rate,
    draw,
    finalist,
    mixed,
    random_study,
    study,
    trial,
)


def said(made, *words: str, finalists=(), space=SPACE, objectives=(LOSS,)) -> list[str]:
    """Return the lines of advice that have all of these words."""
    return [
        line
        for line in advise(made, space, objectives, list(finalists))
        if all(word in line for word in words)
    ]


@pytest.fixture
def no_importances(monkeypatch):
    """Leave out what takes long where a test is of something else."""
    monkeypatch.setattr("litlab.tuning.report.advice.importances", lambda *_: [])


# Borders


@pytest.mark.usefixtures("no_importances")
def test_an_optimum_at_an_end_is_told() -> None:
    for seed in range(5):
        (line,) = said(random_study(100, by_rate(1.0), seed), "optimizer.lr", "high end")
        assert "(0.0001 to 0.1)" in line
        assert "study.name=made-2 study.space.optimizer.lr.high=0.3" in line
        (line,) = said(random_study(100, by_rate(1e-6), seed), "optimizer.lr", "low end")
        assert "study.space.optimizer.lr.low=3e-05" in line


@pytest.mark.usefixtures("no_importances")
def test_an_optimum_inside_is_not() -> None:
    for seed in range(10):
        assert not said(random_study(40, by_rate(3e-3), seed), "optimizer.lr", " end of its range")


@pytest.mark.usefixtures("no_importances")
def test_a_setting_without_effect_is_seldom_at_an_end() -> None:
    rng = np.random.default_rng(0)
    studies = [random_study(20, lambda p: float(rng.normal()), seed) for seed in range(40)]
    assert sum(bool(said(made, "optimizer.lr", " end of its range")) for made in studies) <= 3


def test_a_greater_metric_may_be_the_better() -> None:
    accuracy = Objective("val/accuracy", "maximize")
    rng = np.random.default_rng(0)
    drawn = [draw(SPACE, rng) for _ in range(40)]
    made = study([trial(SPACE, p, 1 - by_rate(1.0)(p)) for p in drawn], "maximize")
    assert said(made, "optimizer.lr", "high end", objectives=[accuracy])


def test_zero_is_a_natural_end() -> None:
    made = random_study(40, lambda p: p["model.dropout"])
    assert not said(made, "model.dropout", " end of its range")
    assert said(random_study(40, lambda p: -p["model.dropout"]), "model.dropout.high=0.75")


@pytest.mark.parametrize(
    ("path", "content", "end", "new"),
    [
        ("optimizer.lr", {"low": 1e-4, "high": 3e-2}, "high", 0.1),
        ("optimizer.lr", {"low": 1e-4, "high": 3e-2}, "low", 3e-5),
        ("model.dropout", {"low": 0.1, "high": 0.5}, "low", 0.0),
        ("model.dropout", {"low": 0.1, "high": 0.9}, "high", 0.95),
        ("model.dropout", {"low": 0.1, "high": 0.95}, "high", None),
        ("model.drop_path", {"low": 0.0, "high": 0.5}, "low", None),
        ("optimizer.weight_decay", {"low": 0.1, "high": 0.5}, "low", 0.0),
        ("optimizer.weight_decay", {"low": 0.0, "high": 0.5}, "low", None),
        ("loss.temperature", {"low": 0.5, "high": 2.0}, "low", 0.25),
        ("loss.temperature", {"low": 0.5, "high": 2.0}, "high", 2.8),
        ("model.offset", {"low": -1.0, "high": 1.0}, "low", -2.0),
        ("model.depth", {"low": 1, "high": 3}, "low", None),
        ("model.depth", {"low": 1, "high": 3}, "high", 4),
        ("model.depth", {"low": 2, "high": 6}, "low", 1),
        ("model.skip", {"low": 0, "high": 6}, "low", None),
        ("loader.batch_size", {"low": 32, "high": 128, "step": 32}, "high", 160),
        ("loader.batch_size", {"low": 64, "high": 256, "step": 32}, "low", 32),
        ("model.width", {"low": 16, "high": 256, "log": True}, "high", 512),
        ("model.width", {"low": 16, "high": 256, "log": True}, "low", 8),
        ("model.width", {"low": 1, "high": 256, "log": True}, "low", None),
    ],
)
def test_what_lies_beyond_is_possible(path, content, end, new) -> None:
    (parameter,) = Space({path: content}).parameters
    found = beyond(path, parameter.distribution, end)
    assert found == new
    if new is not None:  # and makes a range
        Space({path: {**content, end: found}})
        assert typed("made", path, **{end: found}).startswith("study.name=made-2 study.space.")


# How sure it is


def test_a_setting_that_clearly_matters() -> None:
    made = random_study(60, by_rate(3e-3))
    found = importances(made)
    assert found[0].path == "optimizer.lr"
    assert found[0].low > max(other.high for other in found[1:])
    assert sum(one.value for one in found) == pytest.approx(1)
    assert all(one.low <= one.value <= one.high for one in found)
    assert found == importances(made)
    assert not said(made, "cannot show which")
    assert said(made, "hardly mattered", "~study.space.model.")
    (line,) = said(made, "for a closer look")
    low, high = (float(part.split()[0]) for part in line.split("=")[-2:])
    assert 1e-4 < low < 3e-3 < high < 1e-1


def test_too_few_trials_to_tell() -> None:
    rng = np.random.default_rng(0)
    for seed in range(10):
        made = random_study(20, lambda p: float(rng.normal()), seed)
        (line,) = said(made, "20 completed trials cannot show")
        assert "study.n_trials=40" in line
        assert not said(made, "for a closer look")
        assert not said(made, "hardly mattered")


def test_nothing_is_said_of_what_is_not_there() -> None:
    assert importances(random_study(3, by_rate(3e-3))) == []
    assert importances(random_study(9, lambda _: 1.0)) == []
    assert importances(study([])) == []
    (line,) = said(random_study(3, by_rate(3e-3)))
    assert line.startswith("3 of 3 trials were completed: too few")
    assert advise(study([]), SPACE, [LOSS], []) == [
        "0 of 0 trials were completed: too few to compare the settings; "
        "study.n_trials=20 would show more"
    ]


def test_importances_go_by_their_objective() -> None:
    made = mixed(several=True)
    assert importances(made, 1)[0].path == "model.width"
    accuracy = study(
        [trial(SPACE, t.params, [-t.values[0], 1.0]) for t in made.best_trials + made.trials
         if t.values],
        "maximize",
        "minimize",
    )  # fmt: skip
    assert importances(accuracy, 0)[0].path == "optimizer.lr"


def test_a_constant_has_no_importance() -> None:
    space = Space({"optimizer.lr": {"low": 1e-4, "high": 0.1}, "model": ["mlp"]})
    assert [one.path for one in importances(random_study(9, by_rate(3e-3), space=space))] == [
        "optimizer.lr"
    ]


# Failures


def with_failures(fails, seed: int, n: int = 24, reason: str = "OutOfMemory: #"):
    rng = np.random.default_rng(seed)
    trials = []
    for i in range(n):
        params = draw(SPACE, rng)
        if fails(params, rng):
            trials.append(trial(SPACE, params, None, TrialState.FAIL, reason.replace("#", str(i))))
        else:
            trials.append(trial(SPACE, params, by_rate(3e-3)(params)))
    return study(trials)


@pytest.mark.usefixtures("no_importances")
def test_failures_that_cluster() -> None:
    for seed in range(5):
        made = with_failures(lambda p, _: p["model.width"] > 192, seed, n=40)
        lines = said(made, "failures have model.width above", "study.space.model.width.high=")
        assert len(lines) == 1
        lines = said(with_failures(lambda p, _: p["model"] == "cnn", seed), "model=cnn")
        n = sum(t.state == TrialState.FAIL for t in with_failures(
            lambda p, _: p["model"] == "cnn", seed).trials)  # fmt: skip
        assert lines[0].startswith(f"{n} of {n} failures have model=cnn, as have 0 of the")


def test_the_numbers_of_a_cluster() -> None:
    made = with_failures(lambda p, _: p["model.width"] > 192, 0, n=40)
    (line,) = said(made, "failures have model.width above")
    limit = float(line.split("above ")[1].split(",")[0])
    failed = [t for t in made.trials if t.state == TrialState.FAIL]
    above = sum(t.params["model.width"] > limit for t in failed)
    assert line.startswith(f"{above} of {len(failed)} failures")
    rest = [t for t in made.trials if t.state != TrialState.FAIL]
    beyond_it = sum(t.params["model.width"] > limit for t in rest)
    assert f"as have {beyond_it} of the {len(rest)} other trials" in line


@pytest.mark.usefixtures("no_importances")
def test_failures_by_chance_do_not_cluster() -> None:
    studies = [with_failures(lambda _, rng: rng.random() < 0.3, seed) for seed in range(40)]
    wrong = sum(bool(said(made, "failures have")) for made in studies)
    assert wrong <= 5  # of 40, at 5 %


def test_failures_alike() -> None:
    made = with_failures(lambda p, _: p["model.width"] > 192, 0)
    n = sum(t.state == TrialState.FAIL for t in made.trials)
    (line,) = said(made, "failed for the same reason")
    assert line.startswith(f"{n} trials failed for the same reason: OutOfMemory: ")
    made = study([trial(SPACE, {}, None, TrialState.FAIL, text) for text in ("ab", "cd")])
    assert not said(made, "failed for the same reason")
    made = study([trial(SPACE, {}, None, TrialState.FAIL, "x" * 400) for _ in range(3)])
    (line,) = said(made, "all trials failed for the same reason: xxx")
    assert len(line) < 200


# Finalists


def test_no_gain_that_was_not_shown() -> None:
    made = random_study(30, by_rate(3e-3))
    best = made.best_trial.number or 1
    same = [finalist(best, 0.10, 0.13, 0.09), finalist(0, 0.11, 0.11, 0.12)]
    (line,) = said(made, "no gain: on new seeds", finalists=same)
    assert f"trial {best}" in line
    assert "95 % interval" in line
    assert "study.finalist_seeds=6" in line
    gain = [finalist(best, 0.10, 0.13, 0.09), finalist(0, 0.20, 0.231, 0.19)]
    assert not said(made, "no gain", finalists=gain)
    # Paired: seeds that scatter far more than the two differ.
    assert difference(*gain, "val/loss").mean == pytest.approx(-0.1003, abs=1e-4)
    one = [finalist(best, 0.1), finalist(0, 0.2)]
    assert said(made, "no gain", "one seed", finalists=one)
    kept = [finalist(0, 0.1, 0.1, 0.2), finalist(best, 0.2, 0.2, 0.3)]
    assert said(made, "baseline did best", finalists=kept)
    assert not said(made, "no gain", finalists=[finalist(best, 0.1, 0.2)])
    assert difference(finalist(1, 0.1), finalist(0), "val/loss") is None


def test_a_chosen_score_is_too_good() -> None:
    made = random_study(30, by_rate(3e-3))
    best = made.best_trial
    value = best.values[0]
    luck = [finalist(best.number, value + 0.19, value + 0.21), finalist(0, 9.0, 9.2)]
    (line,) = said(made, "too good by 0.2", finalists=luck)
    assert line.startswith(f"trial {best.number} had val/loss")
    none = [finalist(best.number, value - 0.1, value), finalist(0, 9.0, 9.2)]
    assert not said(made, "too good by", finalists=none)
    noise = [finalist(best.number, value + 0.1, value + 0.3), finalist(0, 9.0, 9.2)]
    assert not said(made, "too good by", finalists=noise)  # seeds differ by as much


def test_several_objectives() -> None:
    made = mixed(several=True)
    two = [LOSS, SIZE]
    assert not said(made, " end of its range", objectives=two)
    assert not said(made, "no gain", objectives=two)
    first, other = finalist(0, 0.2, 0.2, 0.3), finalist(4, 0.3, 0.1, 0.3)
    for one, size in ((first, 10.0), (other, 10.0)):
        one.values["parameters"] = (size,) * 3
    assert said(made, "no finalist is shown to be better", finalists=[other, first], objectives=two)
    other.values["parameters"] = (5.0,) * 3
    assert not said(made, "no gain", finalists=[other, first], objectives=two)
    assert not said(made, "no gain", finalists=[other], objectives=two)


# The run of the study


def test_almost_all_pruned() -> None:
    def made(pruned: int):
        rng = np.random.default_rng(0)
        trials = [trial(SPACE, draw(SPACE, rng), 0.1 * i) for i in range(20 - pruned)]
        params = [draw(SPACE, rng) for _ in range(pruned)]
        gone = [trial(SPACE, p, None, TrialState.PRUNED, reported={0: math.inf}) for p in params]
        return study(trials + gone)

    assert said(made(18), "18 of 20 trials were pruned", "study.pruner=patient")
    assert said(made(18), "none of the last 18 trials was completed")
    assert not said(made(8), "were pruned")
    assert not said(made(8), "none of the last")


def test_a_gain_is_said_too() -> None:
    made = random_study(30, by_rate(3e-3))
    best = finalist(made.best_trial.number, 0.1, 0.12, 0.11)
    (line,) = said(made, "improved: on new seeds", finalists=[best, finalist(0, 0.5, 0.53, 0.5)])
    assert "95 % interval" in line
    assert not said(made, "improved: on new seeds", finalists=[best, finalist(0, 0.1, 0.2, 0.1)])


def test_more_trials_where_there_can_be_any() -> None:
    made = random_study(9, lambda p: p["model.dropout"])
    made.set_user_attr("n_trials", 50)
    assert said(made, "41 of 50 are left: run the same command to resume")
    made.set_user_attr("n_trials", 9)
    made.set_user_attr("order", "grid, seed 0")
    assert said(made, "a finer grid")
