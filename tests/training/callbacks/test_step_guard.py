"""A step that is not finite never reaches the weights, and can be taken again."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

import litlab
from litlab.runs.checkpoint.metadata import load
from litlab.runs.folder import RunRecord
from litlab.training.callbacks.nan_guard import NaNGuard, set_if_non_finite
from litlab.training.loop import Step
from litlab.training.replay import load_failed_step, replay
from litlab.utils.errors import CheckpointError, NonFiniteError
from run_helpers import SMALL, THIRD_PARTY, ready_store, small_run

pytestmark = THIRD_PARTY


class Spoils(nn.Module):
    """From its eighth training step on, spoils the loss, or a gradient, or overflows."""

    def __init__(self, spec: Any, how: str = "loss") -> None:
        super().__init__()
        self.body, self.dropout, self.head = nn.Linear(144, 8), nn.Dropout(0.5), nn.Linear(8, 3)
        self.how = how
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.dropout(self.body(x.flatten(1)).relu())
        self.steps += int(self.training)
        if self.steps > 7 and self.training:
            if self.how == "gradient":  # 0 in the sum, and a slope of infinity times zero
                h = h + (h - h).sqrt().sum() * 0.0
            elif self.how == "loss":
                h = h * float("nan")
            elif self.how == "overflow":
                h = h * 1e38 * 1e38
        return self.head(h)


def spoilt(project: Path, how: str, *overrides: str) -> NonFiniteError:
    model = {"_target_": "test_step_guard.Spoils", "how": how}
    settings = ["trainer.max_epochs=9", "optimizer.lr=0.001", *overrides]
    with pytest.raises(NonFiniteError) as caught:
        small_run(project, *settings, out=project / "run", model=model, trust=["test_step_guard"])
    assert caught.value.exit_code == 6
    return caught.value


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["trainer.gradient_clip_val=1.0"],
        ["trainer.accumulate_grad_batches=2"],
        ["trainer.precision=bf16-mixed"],
        ["trainer.profiler=simple"],  # Lightning's own step
    ],
    ids=["plain", "clipping", "accumulation", "bf16", "long"],
)
@pytest.mark.parametrize("how", ["loss", "gradient", "overflow"])
def test_it_is_refused_kept_and_taken_again(project, how, overrides) -> None:
    error = spoilt(project, how, *overrides)
    assert "the step was not taken" in error.what
    assert ("gradient" if how == "gradient" else "train/loss") in error.what
    assert "litlab replay run/failed-step.ckpt" in error.where
    for name in ("best.ckpt", "last.ckpt"):
        kept = load(project / "run" / name, ["test_step_guard"])
        assert all(w.isfinite().all() for w in kept.weights.values())
    assert RunRecord.load(project / "run").status == "FAILED"
    failed = load_failed_step(project / "run", ["test_step_guard"])
    assert all(w.isfinite().all() for w in failed.loaded.weights.values())
    assert len(failed.batches) == (2 if "accumulate" in str(overrides) else 1)
    result = replay(project / "run" / "failed-step.ckpt", ["test_step_guard"])
    assert result.reproduced
    assert "body.weight" in " ".join(result.gradients)
    assert "all finite" in result.inputs
    if how == "gradient":
        assert result.first == ""
        assert torch.isfinite(torch.tensor(result.loss))
    else:
        assert result.first.startswith("head (Linear)")


def test_the_verb(project, litlab) -> None:
    spoilt(project, "loss")
    code, out, err = litlab("replay", "run", "--trust", "test_step_guard", "--json")
    assert code == 0
    said = json.loads(out)
    assert said["reproduced"] is True
    assert said["loss"] == "nan"
    assert "head (Linear)" in err


def test_what_is_finite_this_time_is_not_reproduced(project, litlab, monkeypatch) -> None:
    spoilt(project, "loss")
    monkeypatch.setattr(Spoils, "forward", lambda self, x: self.head(self.body(x.flatten(1))))
    code, _, err = litlab("replay", "run", "--trust", "test_step_guard")
    assert code == 8
    assert "reproduced" in err


def test_the_same_dropout_is_drawn_again(project, monkeypatch) -> None:
    seen: list[torch.Tensor] = []
    forward = nn.Dropout.forward

    def watch(self: nn.Dropout, x: torch.Tensor) -> torch.Tensor:
        y = forward(self, x)
        if self.training:
            seen.append((y == 0).detach())
        return y

    monkeypatch.setattr(nn.Dropout, "forward", watch)
    spoilt(project, "gradient")
    step = load_failed_step(project / "run", ["test_step_guard"]).step
    drawn = seen[step - 9]  # the third epoch of three batches ran to its end
    replay(project / "run", ["test_step_guard"])
    assert torch.equal(seen[-1], drawn)


def test_a_run_without_a_failed_step(project) -> None:
    result = small_run(project)
    with pytest.raises(CheckpointError, match="this run has no failed step"):
        replay(result.folder)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        replay(Path("last"))
    with pytest.raises(CheckpointError, match="not a failed step"):
        replay(result.checkpoint)


def test_a_task_made_in_python_is_repeated_with_it(project) -> None:
    ready_store(project)
    config = litlab.compose(*SMALL, "trainer.max_epochs=9")
    data = litlab.DataModule(config)
    task, again = (litlab.ClassificationTask(Spoils(data.spec)) for _ in range(2))
    with pytest.raises(NonFiniteError) as caught:
        litlab.train(config, project / "run", task=task, data=data, preview=False)
    call = "litlab.training.replay.replay('run/failed-step.ckpt', task=...)"
    assert caught.value.where == f"saved for {call}"
    with pytest.raises(CheckpointError, match="was an object of Python") as refused:
        replay("run")
    assert refused.value.fix == "make it again, and call " + call.replace("/failed-step.ckpt", "")
    assert replay("run/failed-step.ckpt", task=again).reproduced


def test_a_full_disk_does_not_hide_the_error(project, monkeypatch) -> None:
    ready_store(project)
    from litlab.utils.errors import EnvironmentFault

    def full(*_: object) -> None:
        raise EnvironmentFault("disk full", "", "")

    monkeypatch.setattr("litlab.training.replay.write", full)
    with pytest.warns(UserWarning, match="the failed step was not saved: disk full"):
        assert spoilt(project, "loss").where == "training"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_all_gradients_are_looked_at(bad) -> None:
    gradients = [torch.randn(50, 30), torch.randn(7), torch.zeros(0, 3)]
    before = [g.clone() for g in gradients]
    flag = torch.zeros(())
    set_if_non_finite(flag, gradients)
    set_if_non_finite(flag, [])
    assert flag == 0
    assert all(torch.equal(a, b) for a, b in zip(gradients, before, strict=True))
    gradients[1][3] = bad
    set_if_non_finite(flag, gradients)
    assert flag == 1
    set_if_non_finite(flag, before)
    assert flag == 1, "the flag stays"


def test_gradients_that_are_not_dense_are_looked_at() -> None:
    class Other(torch.Tensor):
        """Such as a DTensor."""

    flag = torch.zeros(())
    set_if_non_finite(flag, [torch.ones(2), torch.ones(3).as_subclass(Other)])
    assert flag == 0
    set_if_non_finite(flag, [torch.tensor([float("nan")]).as_subclass(Other)])
    assert flag == 1


def test_a_loss_scaler_deals_with_gradients_that_overflow() -> None:
    """But not with a loss that is not finite before it is scaled."""

    class Scaler:
        def get_scale(self) -> float:
            return 2.0**16

    class Trainer:
        precision_plugin = MixedPrecision("16-mixed", "cpu", scaler=Scaler())  # type: ignore[arg-type]
        current_epoch = global_step = 0
        gradient_clip_val = None

    guard: Any = NaNGuard()
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([float("inf"), 0.0])
    optimizer = torch.optim.SGD([weight], lr=1.0)
    guard.on_train_batch_start(Trainer(), pl.LightningModule(), None, 0)
    guard.on_before_backward(Trainer(), None, torch.tensor(65536.0))
    guard.on_before_optimizer_step(Trainer(), None, optimizer)
    guard.on_train_batch_start(Trainer(), pl.LightningModule(), None, 0)
    guard.on_before_backward(Trainer(), None, torch.tensor(float("nan")))
    with pytest.raises(NonFiniteError):
        guard.on_before_optimizer_step(Trainer(), None, optimizer)


def test_manual_optimization_keeps_one_batch() -> None:
    """Where an optimizer is used raw, no hook tells that its step is taken."""
    guard: Any = NaNGuard()
    module = pl.LightningModule()
    module.automatic_optimization = False
    for number in range(3):
        guard.on_train_batch_start(None, module, torch.zeros(1), number)
    assert [batch.number for batch in guard._batches] == [2]


WAITS = ("item", "cpu", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__")


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["trainer.gradient_clip_val=1.0"],
        ["trainer.accumulate_grad_batches=2"],
        ["trainer.precision=bf16-mixed"],
        ["optimizer=sgd"],
    ],
    ids=["plain", "clipping", "accumulation", "bf16", "sgd"],
)
def test_a_step_does_not_wait_for_the_device(project, monkeypatch, overrides) -> None:
    waits: list[str] = []
    steps = 0
    running = False

    def counted(name: str) -> Any:
        whole = getattr(torch.Tensor, name)

        def call(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if running:
                waits.append(name)
            return whole(self, *args, **kwargs)

        return call

    whole_step = Step.run

    def run(self: Step, *args: Any) -> None:
        nonlocal running, steps
        running, steps = True, steps + 1
        try:
            whole_step(self, *args)
        finally:
            running = False

    for name in WAITS:
        monkeypatch.setattr(torch.Tensor, name, counted(name))
    monkeypatch.setattr(Step, "run", run)
    result = small_run(project, "trainer.limit_train_batches=1.0", *overrides)
    assert result.record.status == "FINISHED"
    assert steps == 12
    assert waits == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_step_does_not_wait_for_a_gpu(project, monkeypatch) -> None:
    whole_step = Step.run
    steps = 0

    def run(self: Step, *args: Any) -> None:
        nonlocal steps
        steps += 1
        torch.cuda.set_sync_debug_mode("error" if steps > 2 else "default")
        try:
            whole_step(self, *args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Step, "run", run)
    small_run(project, "trainer.accelerator=gpu", "trainer.limit_train_batches=1.0")
    assert steps == 12


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_the_weights_stay_what_they_were(project, monkeypatch, optimizer) -> None:
    """Steps that follow it change neither them nor the optimizer's state."""
    before: list[dict[str, torch.Tensor]] = []
    whole_step = Step.run

    def run(self: Step, *args: Any) -> None:
        before.append({n: p.detach().clone() for n, p in self.task.named_parameters()})
        whole_step(self, *args)

    monkeypatch.setattr(Step, "run", run)
    error = spoilt(project, "gradient", "trainer.limit_train_batches=1.0", f"optimizer={optimizer}")
    assert "epoch 2, step 7" in error.what
    assert len(before) == 12, "the epoch ran to its end"
    kept = load_failed_step(project / "run", ["test_step_guard"])
    assert kept.step == 7
    for name, weight in before[7].items():
        assert torch.equal(kept.loaded.weights[name], weight), name
        assert torch.equal(before[11][name], weight), name
    assert any(not torch.equal(before[6][n], w) for n, w in before[7].items())


def test_it_is_looked_at_before_the_epoch_ends(project, monkeypatch) -> None:
    monkeypatch.setattr("litlab.training.callbacks.nan_guard.LOOK_AFTER", 2)
    seen: list[int] = []
    whole_step = Step.run

    def run(self: Step, batch: Any, number: int, steps: bool) -> None:
        seen.append(number)
        whole_step(self, batch, number, steps)

    monkeypatch.setattr(Step, "run", run)
    assert "step 7" in spoilt(project, "loss", "trainer.limit_train_batches=1.0").what
    assert len(seen) == 8


def test_an_optimizer_that_reads_no_flag_is_stopped_before_its_step(project) -> None:
    spoilt(project, "gradient", "optimizer=muon")
    kept = load(project / "run" / "failed-step.ckpt", ["test_step_guard"])
    assert all(w.isfinite().all() for w in kept.weights.values())
