import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError

from litlab.data.spec import DataSpec
from litlab.evaluation.evaluate import evaluate
from litlab.tasks.losses.classification import BinaryCrossEntropy, CrossEntropy, Focal
from litlab.tasks.losses.regression import MAE, MSE, Huber
from litlab.tasks.task import ClassificationTask, Parts, RegressionTask, Task
from litlab.utils.errors import ConfigError
from run_helpers import THIRD_PARTY, small_run


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
    losses = {task._meter(split).compute()["loss"] for split in ("train", "val")}
    assert len(losses) == 2


def test_no_second_door_to_the_test_split():
    assert Task.on_test_epoch_end is LightningModule.on_test_epoch_end
    task = ClassificationTask(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="not measured by Trainer.test"):
        task.test_step(None, 0)


LOSSES = [
    (FLOWERS, CrossEntropy, {"class_weights": [0.1, 1.0, 8.0], "label_smoothing": 0.1}),
    (FLOWERS, CrossEntropy, {}),
    (FLOWERS, Focal, {"alpha": [0.1, 1.0, 8.0]}),
    (FLOWERS, Focal, {}),
    (FLOWERS, BinaryCrossEntropy, {"pos_weight": 3.0}),
    (PAIRS, MSE, {}),
    (PAIRS, MAE, {}),
    (PAIRS, Huber, {"delta": 0.5}),
]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("spec", "loss", "settings_"), LOSSES)
@given(size=st.integers(1, 41), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_the_epochs_loss_is_that_of_all_samples_at_once(spec, loss, settings_, soft, size, seed):
    task = make_task(spec, spec.num_outputs)
    task.loss = loss(spec, **settings_)
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 2, generator=rng)
    y = 9 * torch.randn(40, 2, generator=rng)
    if spec is FLOWERS:
        y = torch.randint(3, (40,), generator=rng)
        y = torch.rand(40, 3, generator=rng).softmax(1) if soft else y
    for batch in zip(x.split(size), y.split(size), strict=True):
        task.validation_step(batch, 0)
    whole = task.loss(task.model(x), task.targets_for_loss(y)).item()
    assert task._meter("val").compute()["loss"] == pytest.approx(whole, rel=1e-5)


def test_a_one_versus_rest_loss_is_predicted_with_its_sigmoids():
    task = make_task(FLOWERS, 3)
    task.loss = BinaryCrossEntropy(FLOWERS)
    logits = torch.randn(20, 3) * 3
    sigmoids = logits.sigmoid()
    torch.testing.assert_close(task.predict(logits), sigmoids / sigmoids.sum(1, keepdim=True))
    sure = task.predict(torch.full((1, 3), -500.0))  # each sigmoid is 0 in float32
    torch.testing.assert_close(sure, torch.full((1, 3), 1 / 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_any_precision_of_the_model(dtype):
    for spec, loss in ((HOUSES, nn.MSELoss()), (FLOWERS, nn.CrossEntropyLoss())):
        task = make_task(spec, spec.num_outputs, {}).to(dtype)
        task.loss = loss  # torch's own want outputs and targets of one type
        x = torch.randn(6, 2, dtype=dtype)
        y = torch.rand(6, 1) if spec is HOUSES else torch.rand(6, 3).softmax(1)
        task.training_step((x, y), 0).backward()
        assert task.model.weight.grad.dtype == dtype
        assert task._meter("train").compute()["loss"] > 0


def test_standardization_is_not_rounded_with_the_model():
    spec = make_spec(task="regression", targets=("year",), target_mean=(2003.7,), target_std=(1.3,))
    task = make_task(spec, 1).to(torch.bfloat16)
    assert task.predict(torch.zeros(1, 1, dtype=torch.bfloat16)).item() == pytest.approx(2003.7)
    assert task.targets_for_loss(torch.tensor([[2005.0]])).item() == pytest.approx(1, rel=1e-3)


@THIRD_PARTY[1]
@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_a_run_in_true_precision_trains_and_is_evaluated(project, precision, kind):
    numbers = ("data.source.num_classes=0", "data.stratify=false", "task=regression")
    more = numbers if kind == "regression" else ("loss.class_weights=balanced",)
    result = small_run(project, f"trainer.precision={precision}", *more)
    values = evaluate(result.folder.name).metrics
    assert all(math.isfinite(value) for value in values.values())


def test_only_weights_are_saved():
    task = make_task(HOUSES, 1, {"mae": MeanAbsoluteError()})
    assert sorted(task.state_dict()) == ["model.bias", "model.weight"]
    assert isinstance(task, LightningModule)
    assert not task.hparams


def test_the_schedule_is_as_long_as_the_training():
    task = make_task(FLOWERS, 3)
    task._trainer = SimpleNamespace(estimated_stepping_batches=35.0, max_epochs=5)
    horizon = task.configure_optimizers()["lr_scheduler"]  # this scheduler is its horizon
    assert horizon.total_steps == 35
    assert (horizon.monitor, horizon.mode) == ("val/loss", "min")
