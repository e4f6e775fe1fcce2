from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError

from litlab.data.spec import DataSpec
from litlab.losses.cross_entropy import CrossEntropy
from litlab.losses.regression import MSE
from litlab.task import ClassificationTask, Parts, RegressionTask


def make_spec(**more) -> DataSpec:
    basis = {"name": "made", "source": "made", "kind": "tabular", "shape": (2,), "dtype": "float32"}
    rest = {"sizes": {}, "licence": "CC0-1.0", "origin": "made"}
    return DataSpec(**basis, **rest, **more)


FLOWERS = make_spec(task="classification", classes=("a", "b", "c"))
HOUSES = make_spec(task="regression", targets=("price",), target_mean=(200.0,), target_std=(50.0,))
PAIRS = make_spec(
    task="regression", targets=("u", "v"), target_mean=(1.0, -3.0), target_std=(2.0, 4.0)
)


def make_task(spec, outputs, metrics=None, l1=0.0):
    """A task around a linear model."""
    kind, loss = ClassificationTask, CrossEntropy
    if spec.task == "regression":
        kind, loss = RegressionTask, MSE
    torch.manual_seed(0)
    sgd = lambda model: torch.optim.SGD(model.parameters(), lr=0.1)  # noqa: E731
    parts = Parts(loss(spec), metrics or {}, sgd, lambda o, h: h, "val/loss", "min")
    return kind(nn.Linear(2, outputs), spec, parts, l1=l1)


def test_classification_loss_and_metrics():
    task = make_task(FLOWERS, 3, {"accuracy": MulticlassAccuracy(3, average="micro")})
    x, y = torch.randn(30, 2), torch.arange(30) % 3
    loss = task.training_step((x, y), 0)
    logits = task.model(x)
    assert torch.equal(loss, F.cross_entropy(logits, y, reduction="sum") / 30)
    values = task._meter("train").compute()
    assert values["loss"] == loss.item()
    assert values["accuracy"] == pytest.approx(float((logits.argmax(1) == y).float().mean()))


def test_soft_labels_count_as_their_largest_class():
    task = make_task(FLOWERS, 3, {"accuracy": MulticlassAccuracy(3, average="micro")})
    x = torch.randn(20, 2)
    soft = torch.rand(20, 3).softmax(1)
    loss = task.training_step((x, soft), 0)
    logits = task.model(x)
    assert loss.item() == pytest.approx(F.cross_entropy(logits, soft).item(), rel=1e-6)
    expected = (logits.argmax(1) == soft.argmax(1)).float().mean()
    assert task._meter("train").compute()["accuracy"] == pytest.approx(float(expected))


def test_class_probabilities():
    task = make_task(FLOWERS, 3)
    logits = torch.randn(5, 3, dtype=torch.bfloat16)
    probabilities = task.predict(logits)
    assert probabilities.dtype == torch.float32
    assert torch.allclose(probabilities.sum(1), torch.ones(5))
    assert torch.equal(probabilities.argmax(1), logits.argmax(1))


def test_regression_loss_is_standardized_and_metrics_are_in_own_units():
    metrics = {"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False)}
    task = make_task(HOUSES, 1, metrics)
    x, prices = torch.randn(40, 2), 200 + 50 * torch.randn(40, 1)
    loss = task.training_step((x, prices), 0)
    raw = task.model(x)
    assert torch.allclose(loss, ((raw - (prices - 200) / 50) ** 2).mean())
    errors = (raw * 50 + 200 - prices).detach()
    values = task._meter("train").compute()
    assert values["mae"] == pytest.approx(float(errors.abs().mean()), rel=1e-5)
    assert values["rmse"] == pytest.approx(float((errors**2).mean().sqrt()), rel=1e-5)
    assert values["loss"] == pytest.approx((values["rmse"] / 50) ** 2, rel=1e-4)


def test_several_targets_are_standardized_each_by_its_own():
    task = make_task(PAIRS, 2)
    targets = torch.tensor([[1.0, -3.0], [3.0, 1.0]])
    assert torch.equal(task.targets_for_loss(targets), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert torch.equal(task.predict(task.targets_for_loss(targets)), targets)
    outputs, measured = task.measured(torch.zeros(2, 2), targets)
    assert outputs.shape == measured.shape == (2, 2)


def test_a_single_target_is_measured_without_its_dimension():
    outputs, targets = make_task(HOUSES, 1).measured(torch.zeros(4, 1), torch.full((4, 1), 7.0))
    assert outputs.shape == targets.shape == (4,)
    assert (outputs == 200).all()
    assert (targets == 7).all()


def test_l1_is_in_the_training_loss_alone():
    task, plain = make_task(FLOWERS, 3, l1=0.5), make_task(FLOWERS, 3)
    batch = torch.randn(6, 2), torch.arange(6) % 3
    weights = task.model.weight.abs().sum()
    assert torch.allclose(task.training_step(batch, 0), plain.training_step(batch, 0) + weights / 2)
    task.validation_step(batch, 0)
    plain.validation_step(batch, 0)
    assert task._meter("val").compute() == plain._meter("val").compute()


def test_splits_are_measured_apart():
    task = make_task(FLOWERS, 3)
    batch = torch.randn(6, 2), torch.arange(6) % 3
    task.training_step(batch, 0)
    task.validation_step((batch[0] * 9, batch[1]), 0)
    task.test_step((batch[0] * -9, batch[1]), 0)
    losses = {task._meter(split).compute()["loss"] for split in ("train", "val", "test")}
    assert len(losses) == 3


def test_prediction_step_returns_predictions_and_truth():
    task = make_task(HOUSES, 1)
    x, y = torch.randn(3, 2), torch.randn(3, 1)
    predictions, truth = task.predict_step((x, y), 0)
    assert torch.equal(predictions, task.model(x) * 50 + 200)
    assert truth is y


def test_only_weights_are_saved():
    task = make_task(HOUSES, 1, {"mae": MeanAbsoluteError()})
    assert sorted(task.state_dict()) == ["model.bias", "model.weight"]
    assert isinstance(task, LightningModule)
    assert not task.hparams


def test_the_schedule_is_as_long_as_the_training():
    task = make_task(FLOWERS, 3)
    task._trainer = SimpleNamespace(estimated_stepping_batches=35.0, max_epochs=5)
    horizon = task.configure_optimizers()["lr_scheduler"]  # this scheduler is its horizon
    assert (horizon.total_steps, horizon.steps_per_epoch) == (35, 7)
    assert (horizon.monitor, horizon.mode) == ("val/loss", "min")
