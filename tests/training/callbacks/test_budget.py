"""A budget of time, on a clock that the test moves: each step and each validation has its price."""

from types import SimpleNamespace

import pytest

from litlab.config.compose import load
from litlab.runs.tracking.history import read_rows
from litlab.tasks.task import Task
from litlab.training.callbacks import budget
from litlab.training.callbacks.budget import Budget, seconds
from litlab.training.preflight import preflight
from litlab.utils.errors import ConfigError
from run_helpers import THIRD_PARTY, small, small_run

pytestmark = THIRD_PARTY
OURS = ("trainer.limit_train_batches=null", "trainer.limit_val_batches=null")


class Clock:
    """Seconds that pass only in training and validation steps."""

    def __init__(self, monkeypatch, step: float, validation: float) -> None:
        self.now, self.rates = 0.0, list[float]()
        train, validate = Task.training_step, Task.validation_step

        def training_step(task, batch, batch_idx):
            self.now += step
            self.rates.append(task.trainer.optimizers[0].param_groups[0]["lr"])
            return train(task, batch, batch_idx)

        def validation_step(task, batch, batch_idx):
            self.now += validation
            return validate(task, batch, batch_idx)

        monkeypatch.setattr(Task, "training_step", training_step)
        monkeypatch.setattr(Task, "validation_step", validation_step)
        monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.mark.parametrize(
    ("text", "number"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h1m1s", 3661)]
)
def test_reads_times(text: str, number: int) -> None:
    assert seconds(text) == number
    assert small(f"trainer.budget={text}").trainer.budget == text


@pytest.mark.parametrize("text", ["0s", "10", "m", "1m1h", "-5s", "ten"])
def test_refuses_what_is_no_time(text: str) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.budget"):
        small(f"trainer.budget={text}")


@pytest.mark.parametrize(
    ("step", "validation"),
    [(0.1, 0.3), (3.0, 4.0), (0.05, 9.0), (13.0, 5.0)],
    ids=["short epochs", "epochs of a third", "long validations", "not one epoch"],
)
def test_ends_on_time_with_its_validation(project, monkeypatch, step, validation) -> None:
    clock = Clock(monkeypatch, step, validation)
    result = small_run(project, *OURS, "trainer.budget=1m30s")
    assert clock.now == pytest.approx(90, rel=0.05) or abs(clock.now - 90) <= step
    last = read_rows(result.folder / "history.csv")[-1]
    assert last["val/loss"] is not None
    assert last["budget/seconds"] == pytest.approx(clock.now)
    assert last["budget/steps"] == len(clock.rates)


def test_the_schedule_goes_by_the_clock(project, monkeypatch) -> None:
    clock = Clock(monkeypatch, 0.5, 0.0)
    small_run(project, *OURS, "trainer.budget=50s", "scheduler=cosine", "scheduler.warmup=0.2")
    peak = clock.rates.index(max(clock.rates)) / len(clock.rates)
    assert peak == pytest.approx(0.2, abs=0.03)
    middle = clock.rates[int(len(clock.rates) * 0.6)]
    assert middle == pytest.approx(max(clock.rates) / 2, rel=0.1)
    assert clock.rates[-1] < 0.01 * max(clock.rates)


def test_one_cycle_ends_low(project, monkeypatch) -> None:
    clock = Clock(monkeypatch, 0.5, 0.1)
    small_run(project, *OURS, "trainer.budget=20s")
    assert clock.rates[-1] < 0.05 * max(clock.rates)


def test_time_spent_is_carried_over(monkeypatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: clock.now))
    first = Budget("60s")
    clock.now += 25
    second = Budget("60s")
    second.load_state_dict(first.state_dict())
    clock.now += 5
    assert second.elapsed == pytest.approx(30)


def test_does_not_go_with_averages_of_known_epochs() -> None:
    config = load(["trainer.swa={start: 0.5, lr: 0.01}"])
    trainer = config.trainer.model_copy(update={"budget": "1m"})
    with pytest.raises(ConfigError, match="trainer.budget, trainer.swa"):
        preflight(config.model_copy(update={"trainer": trainer}))
