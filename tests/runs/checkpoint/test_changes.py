"""One rule for what may change when a run is resumed, and every change that is allowed holds."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping
from pydantic import BaseModel
from torch import nn

from litlab.config.compose import load
from litlab.config.schema import Config
from litlab.runs.checkpoint.changes import Change, Effect, changes, effect_of, require_allowed
from litlab.runs.checkpoint.metadata import config_hash
from litlab.tasks.optim import optimizers, schedules
from litlab.tasks.optim.schedules import Horizon
from litlab.training.callbacks.optimizer_changes import OptimizerChanges
from litlab.training.trainer import _EarlyStopping
from litlab.utils.errors import ConfigError

OPTIMIZERS = ("adam", "adamw", "sgd", "muon")


def settings(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every setting of the schema, those of its parts by their own names."""
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += settings(inner, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def test_every_setting_has_an_effect() -> None:
    """A new one is in the table, or this test names it."""
    assert len(settings(Config)) > 60
    for setting in settings(Config):
        assert isinstance(effect_of(setting), Effect)
    for unknown in ("trainer.invented", "invented", "invented.lr"):
        with pytest.raises(KeyError):
            effect_of(unknown)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_may_change_of_an_optimizer_is_in_its_groups(name: str) -> None:
    build = getattr(optimizers, name)
    groups = build(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2))).param_groups
    for parameter in list(inspect.signature(build).parameters)[1:]:
        held = any(parameter in group for group in groups)
        allowed = effect_of(f"optimizer.{parameter}") is Effect.CHANGEABLE
        assert allowed == held, parameter
        assert allowed or parameter == "layer_decay"


SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"warmup": 0.2},
    "cosine": {"final_fraction": 0.1},
    "step": {"milestones": (0.3, 0.8)},
    "one_cycle": {},
    "plateau": {"patience": 0},
}
STEPS = 20


def steps(optimizer: Any, scheduler: Any, number: int) -> list[list[float]]:
    rates = []
    for _ in range(number):
        optimizer.step()
        monitored = (1.0,) if type(scheduler).__name__ == "ReduceLROnPlateau" else ()
        scheduler.step(*monitored)
        rates.append([group["lr"] for group in optimizer.param_groups])
    return rates


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_changed_rate_is_that_of_the_whole_schedule(
    name: str, schedule: str, layer_decay: float
) -> None:
    """From the next step on, a resumed run has the rates of one that began with the new value."""

    def made(lr: float) -> tuple[Any, Any]:
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2))
        optimizer = getattr(optimizers, name)(model, lr=lr, layer_decay=layer_decay)
        horizon = Horizon(STEPS, "val/loss", "min")
        node = getattr(schedules, schedule)(optimizer, horizon, **SCHEDULES[schedule])
        return optimizer, node["scheduler"]

    expected = steps(*made(0.03), STEPS - 2)
    optimizer, scheduler = made(0.01)
    steps(optimizer, scheduler, 7)
    states = optimizer.state_dict(), scheduler.state_dict()
    optimizer, scheduler = made(0.03)  # as a resumed run builds them, before they are restored
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    trainer: Any = SimpleNamespace(
        optimizers=[optimizer], lr_scheduler_configs=[SimpleNamespace(scheduler=scheduler)]
    )
    OptimizerChanges([("optimizer.lr", 0.01, 0.03)]).on_train_start(trainer, Any)
    for got, want in zip(steps(optimizer, scheduler, STEPS - 9), expected[7:], strict=True):
        assert got == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("adamw", "weight_decay", 0.3),
        ("adamw", "betas", (0.5, 0.7)),
        ("adam", "eps", 1e-3),
        ("sgd", "momentum", 0.3),
        ("sgd", "nesterov", False),
        ("muon", "ns_steps", 3),
        ("muon", "weight_decay", 0.3),
    ],
)
def test_other_settings_reach_the_groups(name: str, setting: str, value: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2))
    old, new = (
        getattr(optimizers, name)(model),
        getattr(optimizers, name)(model, **{setting: value}),
    )
    trainer: Any = SimpleNamespace(optimizers=[old], lr_scheduler_configs=[])
    parts = SimpleNamespace(optimizer=lambda _: new)
    task: Any = SimpleNamespace(parts=parts, model=model)
    OptimizerChanges([(f"optimizer.{setting}", None, value)]).on_train_start(trainer, task)
    for group, fresh in zip(old.param_groups, new.param_groups, strict=True):
        assert group.get(setting) == fresh.get(setting)
    assert any(group.get(setting) in (value, list(value) if setting == "betas" else value)
               for group in old.param_groups)  # fmt: skip


def test_a_changed_patience_holds() -> None:
    began, now = EarlyStopping("val/loss", patience=2), _EarlyStopping("val/loss", patience=7)
    began.wait_count = 1
    assert now.state_key == began.state_key
    now.load_state_dict(began.state_dict())
    assert (now.patience, now.wait_count) == (7, 1)


COMMAND = ["litlab", "train", "model=mlp", "name='a b'", "--resume"]


def refusal(
    *overrides: str, command: list[str] = COMMAND, allow_changes: bool = False
) -> ConfigError:
    changed = changes(load(["model=mlp"]), load(["model=mlp", *overrides]))
    with pytest.raises(ConfigError) as caught:
        require_allowed(changed, Path("runs/x").resolve(), command, allow_changes=allow_changes)
    assert str(caught.value).isprintable()
    return caught.value


def test_one_message_with_what_to_type(project: Path) -> None:
    (project / "runs" / "x").mkdir(parents=True)
    error = refusal("model.dropout=0.3", "optimizer.lr=0.5")
    assert error.what == (
        "the unfinished run has other settings; changeable with --allow-changes: "
        "model.dropout: 0.0 -> 0.3, optimizer.lr: 0.003 -> 0.5"
    )
    assert error.fix == (
        "to resume with the new settings: litlab train model=mlp 'name='\"'\"'a b'\"'\"'' --resume "
        "--allow-changes; to keep its settings: litlab train --params runs/x/config.yaml --resume"
    )
    for allow in (False, True):
        error = refusal("model.dropout=0.3", "seed=4", "optimizer=sgd", allow_changes=allow)
        assert "fixed by the checkpoint: seed: 0 -> 4, optimizer._target_: " in error.what
        assert "changeable with --allow-changes: model.dropout: 0.0 -> 0.3" in error.what
        assert "for a new run with its weights: litlab train model=mlp" in error.fix
        assert "init_from=runs/x;" in error.fix
        assert "--resume" not in error.fix.partition(";")[0]
    command = ["litlab", "train", "--params", "p.yaml", "--out", "runs/x", "--resume"]
    error = refusal("seed=4", command=command)
    assert "put `init_from: runs/x` into the file: litlab train --params p.yaml;" in error.fix


def test_what_is_allowed_or_free_is_not_refused(project: Path) -> None:
    began = load(["model=mlp"])
    for override in ("name=b", "tracking.experiment=b", "trainer.log_norms=true", "plot=scatter"):
        now = load(["model=mlp", override])
        assert changes(began, now) == []
        assert config_hash(began) == config_hash(now)
    changed = changes(began, load(["model=mlp", "model.dropout=0.3", "optimizer.weight_decay=1"]))
    assert len(changed) == 2
    require_allowed(changed, Path("runs/x"), [], allow_changes=True)


def test_a_rate_that_was_not_given_is_fixed() -> None:
    assert Change("optimizer.lr", None, 0.1).effect is Effect.FIXED
    assert Change("optimizer.eps", None, 0.1, own_optimizer=False).effect is Effect.FIXED
    assert Change("optimizer.lr", 0.2, 0.1, own_optimizer=False).effect is Effect.CHANGEABLE
