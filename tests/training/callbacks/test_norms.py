import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from litlab.runs.tracking.history import read_rows
from litlab.training.callbacks import norms
from litlab.training.callbacks.norms import Norms
from run_helpers import THIRD_PARTY, mlflow_run, small_run

pytestmark = THIRD_PARTY


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(3))
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.two(torch.relu(self.one(x * self.token)))


class Logged(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model, self.logged = Net(), {}

    def log_dict(self, values, **_):
        self.logged = values


def by_hand(gradients: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    def total(step, prefix=""):
        return (
            sum(g.double().square().sum() for n, g in step.items() if n.startswith(prefix)) ** 0.5
        )

    whole = torch.stack([total(step) for step in gradients])
    layers = {k: torch.stack([total(s, k) for s in gradients]) for k in ("token", "one", "two")}
    means = {f"grad_norm/{k}": v.mean().item() for k, v in layers.items()}
    return means | {"grad_norm/mean": whole.mean().item(), "grad_norm/max": whole.max().item()}


def steps(callback, trainer, task, number):
    seen = []
    for _ in range(number):
        task.model.zero_grad()
        task.model(torch.randn(5, 3)).square().sum().backward()
        seen.append({n: p.grad.clone() for n, p in task.model.named_parameters()})
        callback.on_before_optimizer_step(trainer, task, None)
    return seen


@pytest.fixture
def trainer(monkeypatch):
    monkeypatch.setattr(norms, "network", lambda task: task.model)  # as of a litlab task
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )


@pytest.mark.parametrize("rows", [100, 2])  # summed up at the end, and on the way
def test_norms_are_those_computed_by_hand(trainer, monkeypatch, rows):
    monkeypatch.setattr(norms, "ROWS", rows)
    task, callback = Logged(), Norms()
    callback.on_fit_start(trainer, task)
    for _ in range(2):  # the second epoch begins anew
        seen = steps(callback, trainer, task, 7)
        callback.on_train_epoch_end(trainer, task)
        expected = by_hand(seen)
        weights = by_hand([dict(task.model.named_parameters())])
        expected |= {k.replace("grad", "weight"): v for k, v in weights.items()}
        expected["weight_norm/total"] = expected.pop("weight_norm/mean")
        del expected["weight_norm/max"]
        assert task.logged == pytest.approx(expected, rel=1e-5)


def test_it_is_the_norm_that_clipping_measures(trainer):
    task, callback = Logged(), Norms()
    callback.on_fit_start(trainer, task)
    steps(callback, trainer, task, 1)
    theirs = nn.utils.get_total_norm([p.grad for p in task.model.parameters()]).item()
    callback.on_train_epoch_end(trainer, task)
    assert task.logged["grad_norm/max"] == pytest.approx(theirs, rel=1e-6)


def test_what_has_no_gradient_counts_as_zero(trainer):
    task, callback = Logged(), Norms()
    task.model.one.requires_grad_(False)
    callback.on_fit_start(trainer, task)
    task.model(torch.randn(5, 3)).sum().backward()
    callback.on_before_optimizer_step(trainer, task, None)
    callback.on_train_epoch_end(trainer, task)
    assert task.logged["grad_norm/one"] == 0.0
    assert task.logged["grad_norm/two"] > 0


@pytest.mark.parametrize("rows", [100, 2])
def test_an_epoch_resumed_in_the_middle_has_all_its_steps(trainer, monkeypatch, rows):
    """To the last bit: saving must not change the order of additions."""
    monkeypatch.setattr(norms, "ROWS", rows)
    task, first, whole = Logged(), Norms(), Norms()
    for callback in (first, whole):
        callback.on_fit_start(trainer, task)
    torch.manual_seed(0)
    steps(first, trainer, task, 13)
    second = Norms()
    second.load_state_dict(torch.load(_saved(first.state_dict()), weights_only=True))
    second.on_fit_start(trainer, task)
    steps(second, trainer, task, 16)
    second.on_train_epoch_end(trainer, task)
    resumed = task.logged
    torch.manual_seed(0)
    steps(whole, trainer, task, 29)
    whole.on_train_epoch_end(trainer, task)
    assert resumed == task.logged


def _saved(content):
    from io import BytesIO

    file = BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


def test_a_run_logs_them_each_epoch(project):
    result = small_run(project, "trainer.log_norms=true")
    rows = read_rows(result.folder / "history.csv")
    names = {"grad_norm/mean", "grad_norm/max", "grad_norm/layers.0", "weight_norm/layers.2"}
    assert all(names <= set(row) and row["grad_norm/max"] >= row["grad_norm/mean"] for row in rows)
    assert names <= set(mlflow_run(project, result.record.run_id).data.metrics)
    assert not any(
        "norm/" in name
        for row in read_rows(small_run(project).folder / "history.csv")
        for name in row
    )
