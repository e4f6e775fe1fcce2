import csv
import os
import signal
from pathlib import Path

import pytest
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from torch import nn
from torchmetrics import Metric

from litlab.distributed.launch import is_first_process
from litlab.runs.checkpoint.metadata import load
from litlab.runs.folder import RunRecord
from litlab.training.trainer import seed_rank
from litlab.utils.errors import ConfigError, Interrupted, NonFiniteError
from run_helpers import THIRD_PARTY, mlflow_run, only_run, small, small_run, trainer_of

pytestmark = THIRD_PARTY


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("monitor", "best_of"),
    [("val/loss", min), ("val/accuracy", max), ("train/loss", min), ("train/f1", max)],
)
def test_best_is_the_best_epoch_and_last_is_the_last(project, monitor, best_of):
    result = small_run(
        project, f"monitor={monitor}", "trainer.max_epochs=6", "optimizer=sgd", "optimizer.lr=3"
    )
    values = [row[monitor] for row in rows(result.folder)]
    first_best = values.index(best_of(values))
    assert len(set(values)) > 1
    assert load(result.folder / "best.ckpt").epoch == first_best == result.record.best_epoch
    assert load(result.folder / "last.ckpt").epoch == 5
    assert result.record.metrics[monitor] == values[first_best]
    assert result.record.epochs == 6


def test_the_best_epoch_need_not_be_the_last(project):
    result = small_run(project, "trainer.max_epochs=6", "optimizer=sgd", "optimizer.lr=3")
    assert result.record.best_epoch != 5, "the test above would not tell best from last"
    best, last = (load(result.folder / name).weights for name in ("best.ckpt", "last.ckpt"))
    assert any(not torch.equal(best[key], last[key]) for key in best)


def test_early_stopping_stops_and_the_best_is_kept(project):
    result = small_run(
        project,
        "trainer.max_epochs=50",
        "trainer.early_stopping={patience: 2, min_delta: 10.0}",
    )
    assert result.record.epochs == 3  # one that sets the mark, two that miss it
    assert result.record.status == "FINISHED"


def test_accumulation_takes_one_step_for_two_batches(project):
    small_run(project, "trainer.limit_train_batches=4", "trainer.accumulate_grad_batches=2")
    content = torch.load(next(project.glob("runs/*/last.ckpt")), weights_only=True)
    assert content["global_step"] == 2 * 2  # epochs x steps


def test_bfloat16_on_the_cpu(project):
    result = small_run(project, "trainer.precision=bf16-mixed")
    assert result.record.status == "FINISHED"
    weights = load(result.checkpoint).weights
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}


def test_deterministic_refuses_what_differs_between_runs(project):
    small_run(project, "trainer.deterministic=true")
    assert torch.are_deterministic_algorithms_enabled()
    small_run(project, "trainer.deterministic=false")
    assert not torch.are_deterministic_algorithms_enabled()


class Explodes(nn.Module):
    """Gives NaN from its tenth training step on."""

    def __init__(self, spec):
        super().__init__()
        self.layer, self.steps = nn.Linear(144, 3), 0

    def forward(self, x):
        self.steps += self.training
        return self.layer(x.flatten(1)) * (float("nan") if self.steps > 9 else 1.0)


def test_nan_ends_the_run_as_failed_with_the_last_finite_checkpoint(project):
    with pytest.raises(NonFiniteError, match=r"loss is nan in epoch 4") as caught:
        small_run(
            project,
            "trainer.max_epochs=9",
            "optimizer.lr=0.001",
            model={"_target_": "test_trainer.Explodes"},
            trust=["test_trainer"],
        )
    assert caught.value.exit_code == 6
    assert "optimizer.lr" in caught.value.fix
    folder = only_run(project)
    record = RunRecord.load(folder)
    assert record.status == "FAILED"
    assert mlflow_status(project, record.run_id) == "FAILED"
    for name in ("best.ckpt", "last.ckpt"):
        kept = load(folder / name, ["test_trainer"])
        assert kept.epoch <= 2
        assert all(torch.isfinite(w).all() for w in kept.weights.values())


class NaNMetric(Metric):
    """A number in the trial, NaN once there are more than three samples."""

    def __init__(self):
        super().__init__()
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, outputs, targets):
        self.n += len(targets)

    def compute(self):
        return torch.tensor(float("nan") if self.n > 3 else 1.0)


def test_a_monitored_metric_that_is_nan_does_not_select(project):
    metrics = {"odd": {"_target_": "test_trainer.NaNMetric"}}
    with pytest.raises(NonFiniteError, match="val/odd is nan") as caught:
        small_run(project, metrics=metrics, monitor="val/odd", trust=["test_trainer"])
    assert "monitor" in caught.value.fix
    assert not list(project.glob("runs/*/best.ckpt"))


def mlflow_status(project: Path, run_id: str) -> str:
    return mlflow_run(project, run_id).info.status


def test_ctrl_c_in_training_is_130_and_killed(project, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(
        "litlab.tasks.task.Task.on_train_epoch_end",
        lambda self: os.kill(os.getpid(), signal.SIGINT),
    )
    with pytest.raises(Interrupted) as caught:
        small_run(project)
    assert caught.value.exit_code == 130
    record = RunRecord.load(only_run(project))
    assert record.status == mlflow_status(project, record.run_id) == "KILLED"
    assert signal.getsignal(signal.SIGINT) is before, "a second Ctrl-C must still work"


def test_sigterm_in_training_is_143_and_killed(project, monkeypatch):
    monkeypatch.setattr(
        "litlab.tasks.task.Task.on_train_epoch_end",
        lambda self: os.kill(os.getpid(), signal.SIGTERM),
    )
    with pytest.raises(Interrupted) as caught:
        small_run(project)
    assert caught.value.exit_code == 143
    record = RunRecord.load(only_run(project))
    assert record.status == mlflow_status(project, record.run_id) == "KILLED"


def test_what_lightning_refuses_is_a_configuration_error(project):
    with pytest.raises(ConfigError, match="Lightning rejects") as caught:
        small_run(project, "trainer.limit_val_batches=0.1")
    assert "limit_val_batches" in str(caught.value)
    record = RunRecord.load(only_run(project))
    assert record.status == mlflow_status(project, record.run_id) == "FAILED"


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_one_process_of_many_records(monkeypatch, name):
    assert is_first_process()
    monkeypatch.setenv(name, "0")
    assert is_first_process()
    monkeypatch.setenv(name, "1")
    assert not is_first_process()


def test_each_process_draws_noise_of_its_own(project, monkeypatch):
    # A Trainer of another rank silences this process's loggers: put back when the test ends.
    monkeypatch.setattr(rank_zero_only, "rank", getattr(rank_zero_only, "rank", 0), raising=False)

    def draw(*overrides):
        torch.manual_seed(7)
        config = small("seed=5", *overrides)
        seed_rank(config.seed, trainer_of(config, project)[0])
        return torch.rand(4).tolist()

    alone = draw()
    torch.manual_seed(7)
    assert alone == torch.rand(4).tolist()  # left as it was
    first = draw("trainer=ddp_cpu", "trainer.progress=none")
    monkeypatch.setenv("LOCAL_RANK", "1")
    second = draw("trainer=ddp_cpu", "trainer.progress=none")
    assert first != second
