"""The collector rests while the command line starts up, and is itself again for the training."""

import gc
import os
from collections.abc import Iterator

import pytest
from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY

from litlab.utils import startup


@pytest.fixture(autouse=True)
def _usual_collector() -> Iterator[None]:
    startup.done()  # a test of the command line may have begun
    gc.unfreeze()
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_rests_and_comes_back() -> None:
    usual = gc.get_threshold()
    startup.begin()
    assert gc.get_threshold()[0] == startup.OBJECTS
    startup.done()
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() > 0


def test_mlflow_reports_nothing_unless_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    startup.begin()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"  # the user's own word
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    startup.begin()
    assert MLFLOW_DISABLE_TELEMETRY.get()


def test_a_caller_of_the_library_keeps_his_collector() -> None:
    gc.unfreeze()
    usual = gc.get_threshold()
    startup.done()
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() == 0


def test_a_second_run_in_the_process_freezes_nothing() -> None:
    startup.begin()
    startup.done()
    gc.unfreeze()
    startup.done()
    assert gc.get_freeze_count() == 0
