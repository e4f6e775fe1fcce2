"""Whose a trial is, and which commands of this machine have ended."""

import os
from pathlib import Path

import optuna
import pytest

from litlab.tuning.study.storage import OWNER, Owner


def trial(word: str | None) -> optuna.trial.FrozenTrial:
    attributes = {} if word is None else {OWNER: word}
    return optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs=attributes)


@pytest.fixture
def owners(project: Path):
    made = [Owner("x") for _ in range(3)]
    yield made
    for owner in made:
        owner.leave(keep=False)


def test_who_may_take_a_trial(owners) -> None:
    one, other, gone = owners
    gone.leave(keep=True)
    assert one.owns(trial(one.word))
    assert not one.may_take(trial(other.word), set())  # it lives
    assert one.may_take(trial(gone.word), set())
    assert one.may_take(trial(""), set())  # released
    assert one.may_take(trial(None), set())
    assert not one.may_take(trial("elsewhere-1-abcd"), set())  # of which nothing is known
    assert one.may_take(trial("elsewhere-1-abcd"), {trial(None)._trial_id})  # but its silence


def test_what_the_dead_leave_is_swept_in_time(owners, project: Path) -> None:
    one, other, gone = owners
    gone.leave(keep=True)
    place = project / ".litlab" / "studies" / "x.owners" / gone.word
    one.sweep(set())
    assert place.is_dir()  # it might have been made just now
    for owner in owners:
        path = place.with_name(owner.word)
        if path.is_dir():
            os.utime(path, (0, 0))
    one.sweep({gone.word})
    assert place.is_dir()  # a trial is still marked with it
    one.sweep(set())
    assert not place.exists()
    assert place.with_name(other.word).is_dir()
