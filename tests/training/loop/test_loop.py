"""The short step is Lightning's own: the same calls in the same order, the same weights."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback
from lightning.pytorch.loops.fit_loop import _FitLoop

from litlab.data.datamodule import ArrayDataModule
from litlab.data.prepare.open import open_or_prepare
from litlab.tasks.build import build_task
from litlab.tasks.task import ClassificationTask
from litlab.training.loop import EpochLoop, step_of
from litlab.training.trainer import fit
from litlab.utils import seeding
from run_helpers import THIRD_PARTY, small, trainer_of

pytestmark = THIRD_PARTY
HOOKS = [name for name in dir(Callback) if name.startswith("on_")]
# Saving is the checkpoint callback's, and not Lightning's at these places.
HOOKS = [name for name in HOOKS if "checkpoint" not in name and "exception" not in name]


class Recorder(Callback):
    """Notes every hook, and where the Trainer says it is."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []


def _hook(name: str) -> Any:
    def hook(self: Recorder, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        last = args[-1] if args and isinstance(args[-1], int) else None
        loop = trainer.fit_loop.epoch_loop
        where = (trainer.current_epoch, trainer.global_step, loop._batches_that_stepped)
        self.calls.append((name, *where, last, trainer.is_last_batch))

    return hook


for _name in HOOKS:
    setattr(Recorder, _name, _hook(_name))


def run(project: Path, *overrides: str, stock: bool = False, callback: Any = None) -> Any:
    """Train by our loop or by Lightning's; return the task and the Trainer."""
    config = small("trainer.max_epochs=3", "trainer.limit_train_batches=1.0", *overrides)
    folder, spec = open_or_prepare(config.data, [])
    seeding.seed_everything(0)
    task = build_task(config, spec)
    data = ArrayDataModule(folder, spec, config.loader, seed=0)
    trainer, signals = trainer_of(config, project / ("stock" if stock else "ours"))
    if stock:
        trainer.fit_loop = _FitLoop(trainer, None, config.trainer.max_epochs)
    if callback is not None:
        trainer.callbacks.insert(0, callback)
    fit(trainer, task, data, signals)
    return task, trainer


OVERRIDES = {
    "plain": [],
    "accumulation": ["trainer.accumulate_grad_batches=4"],
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "optimizer=sgd"],
    "step": ["scheduler=step", "scheduler.milestones=[0.4]"],
    "bf16": ["trainer.precision=bf16-mixed", "trainer.gradient_clip_val=0.1"],
    "double": ["trainer.precision=64-true"],
    "early": ["trainer.early_stopping={patience: 1, min_delta: 9.0}"],
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_it_is_lightnings_loop(project: Path, case: str) -> None:
    ours, stock = Recorder(), Recorder()
    task, trainer = run(project, *OVERRIDES[case], callback=ours)
    other, reference = run(project, *OVERRIDES[case], stock=True, callback=stock)
    assert isinstance(trainer.fit_loop.epoch_loop, EpochLoop)
    assert not isinstance(reference.fit_loop.epoch_loop, EpochLoop)
    assert len(ours.calls) > 90
    assert ours.calls == stock.calls
    assert trainer.global_step == reference.global_step
    assert trainer.callback_metrics == reference.callback_metrics
    for name, weight in other.state_dict().items():
        assert torch.equal(weight, task.state_dict()[name]), name
    # And without anybody listening.
    silent, _ = run(project, *OVERRIDES[case])
    for name, weight in other.state_dict().items():
        assert torch.equal(weight, silent.state_dict()[name]), name


class LogsInHooks(Callback):
    """Logs values in a step, as a user's callback may."""

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        module.log("before", float(trainer.global_step), on_step=False, on_epoch=True)

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        module.log("steps", float(trainer.global_step), on_step=False, on_epoch=True)


def test_a_callback_may_log_in_a_step(project: Path) -> None:
    _, trainer = run(project, callback=LogsInHooks())
    _, reference = run(project, stock=True, callback=LogsInHooks())
    for name in ("steps", "before"):
        assert trainer.callback_metrics[name] == reference.callback_metrics[name] > 1


def test_hooks_of_an_instance_are_called(project: Path) -> None:
    seen: list[int] = []
    callback = LambdaCallback(on_train_batch_end=lambda *args: seen.append(args[-1]))
    run(project, callback=callback)
    assert len(seen) == 18


class Skips(Callback):
    """Ends each epoch after its second batch."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> Any:
        return -1 if batch_idx == 2 else None


def test_a_callback_may_end_an_epoch(project: Path) -> None:
    assert run(project, "monitor=train/loss", callback=Skips())[1].global_step == 6


class OwnBackward(ClassificationTask):
    def backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        loss.backward()


class OwnStep(ClassificationTask):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("mine", loss.detach())
        return loss


@pytest.mark.parametrize("own", [OwnBackward, OwnStep])
def test_a_task_that_takes_over_gets_lightnings_step(project: Path, own: type) -> None:
    chosen = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            chosen.append(step_of(trainer))

    config = small("trainer.max_epochs=2")
    folder, spec = open_or_prepare(config.data, [])
    seeding.seed_everything(0)
    plain = build_task(config, spec)
    task = own(plain.model, spec, plain.parts)
    data = ArrayDataModule(folder, spec, config.loader, seed=0)
    trainer, signals = trainer_of(config, project / "own")
    trainer.callbacks.append(Look())
    fit(trainer, task, data, signals)
    assert chosen == [None, None]
    seeding.seed_everything(0)
    other, _ = run(project, "trainer.max_epochs=2", "trainer.limit_train_batches=3")
    for name, weight in other.state_dict().items():
        assert torch.equal(weight, task.state_dict()[name]), name
    if own is OwnStep:
        assert "mine" in trainer.callback_metrics


def test_the_usual_run_takes_the_short_way(project: Path) -> None:
    chosen = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            chosen.append(step_of(trainer))

    run(project, callback=Look())
    assert None not in chosen
