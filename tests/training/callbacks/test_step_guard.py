"""A step that is not finite never reaches the weights, and can be taken again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from litlab.runs.checkpoint.metadata import load
from litlab.runs.folder import RunRecord
from litlab.training.callbacks.nan_guard import NaNGuard, _all_finite
from litlab.training.failed_step import open_capsule
from litlab.training.replay import replay
from litlab.utils.errors import CheckpointError, NonFiniteError
from run_helpers import THIRD_PARTY, ready_store, small_run

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
    assert "litlab replay run/capsule.ckpt" in error.where
    for name in ("best.ckpt", "last.ckpt"):
        kept = load(project / "run" / name, ["test_step_guard"])
        assert all(w.isfinite().all() for w in kept.weights.values())
    assert RunRecord.load(project / "run").status == "FAILED"
    capsule = open_capsule(project / "run", ["test_step_guard"])
    assert all(w.isfinite().all() for w in capsule.loaded.weights.values())
    assert len(capsule.batches) == (2 if "accumulate" in str(overrides) else 1)
    result = replay(project / "run" / "capsule.ckpt", ["test_step_guard"])
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
    drawn = seen[-1]
    replay(project / "run", ["test_step_guard"])
    assert torch.equal(seen[-1], drawn)


def test_a_run_without_a_capsule(project) -> None:
    result = small_run(project)
    with pytest.raises(CheckpointError, match="this run has no capsule"):
        replay(result.folder)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        replay(Path("last"))
    with pytest.raises(CheckpointError, match="not a capsule"):
        replay(result.checkpoint)


def test_a_full_disk_does_not_hide_the_error(project, monkeypatch) -> None:
    ready_store(project)
    from litlab.utils.errors import EnvironmentFault

    def full(*_: object) -> None:
        raise EnvironmentFault("disk full", "", "")

    monkeypatch.setattr("litlab.training.failed_step.write", full)
    with pytest.warns(UserWarning, match="no capsule was kept: disk full"):
        assert spoilt(project, "loss").where == "training"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_all_gradients_are_looked_at(bad) -> None:
    gradients = [torch.randn(50, 30), torch.randn(7), torch.zeros(0, 3)]
    before = [g.clone() for g in gradients]
    assert _all_finite(gradients)
    assert _all_finite([])
    assert all(torch.equal(a, b) for a, b in zip(gradients, before, strict=True))
    gradients[1][3] = bad
    assert not _all_finite(gradients)


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
    guard.on_before_backward(Trainer(), None, torch.tensor(65536.0))
    guard.on_before_optimizer_step(Trainer(), None, optimizer)
    guard.on_before_backward(Trainer(), None, torch.tensor(float("nan")))
    with pytest.raises(NonFiniteError):
        guard.on_before_optimizer_step(Trainer(), None, optimizer)
