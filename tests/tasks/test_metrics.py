import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error, r2_score
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score
from torchmetrics.regression import MeanSquaredError, R2Score

from litlab.tasks import metrics
from litlab.tasks.metrics import EpochMeter, build_metrics, direction
from litlab.utils.errors import ConfigError


def classification() -> dict[str, Metric]:
    return {
        "accuracy": MulticlassAccuracy(4, average="micro"),
        "f1": MulticlassF1Score(4, average="macro"),
        "auroc": MulticlassAUROC(4, thresholds=50),
    }


def batches(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for size in sizes:
        yield (
            torch.rand((), generator=generator),
            torch.randn(size, 4, generator=generator),
            torch.randint(4, (size,), generator=generator),
        )


@pytest.mark.parametrize("flush_bytes", [0, 100, 2**26])
def test_equals_torchmetrics_batch_by_batch(monkeypatch, flush_bytes):
    monkeypatch.setattr(metrics, "FLUSH_BYTES", flush_bytes)
    meter, expected = EpochMeter(classification()), classification()
    losses, counts = [], []
    for loss, outputs, targets in batches([8, 8, 8, 3]):
        meter.add(loss, outputs, targets)
        losses.append(float(loss))
        counts.append(len(targets))
        for metric in expected.values():
            metric.update(outputs, targets)
    values = meter.compute()
    assert values.pop("loss") == pytest.approx(np.average(losses, weights=counts), rel=1e-6)
    assert values == {name: float(m.compute()) for name, m in expected.items()}


def test_equals_scikit_learn():
    meter = EpochMeter(classification())
    collected = list(batches([16, 16, 5]))
    for batch in collected:
        meter.add(*batch)
    predicted = torch.cat([o.argmax(1) for _, o, _ in collected]).numpy()
    actual = torch.cat([t for _, _, t in collected]).numpy()
    values = meter.compute()
    assert values["accuracy"] == pytest.approx(accuracy_score(actual, predicted), abs=1e-6)
    assert values["f1"] == pytest.approx(f1_score(actual, predicted, average="macro"), abs=1e-6)


def test_regression_equals_scikit_learn():
    meter = EpochMeter({"rmse": MeanSquaredError(squared=False), "r2": R2Score()})
    rng = np.random.default_rng(0)
    actual = rng.normal(50, 9, 40).astype(np.float32)
    predicted = (actual + rng.normal(0, 3, 40)).astype(np.float32)
    for part in np.array_split(np.arange(40), 3):
        meter.add(torch.tensor(0.0), *(torch.from_numpy(a[part]) for a in (predicted, actual)))
    values = meter.compute()
    assert values["rmse"] == pytest.approx(mean_squared_error(actual, predicted) ** 0.5, rel=1e-5)
    assert values["r2"] == pytest.approx(r2_score(actual, predicted), abs=1e-5)


def test_an_epoch_forgets_the_one_before():
    meter = EpochMeter(classification())
    first = list(batches([8, 8], seed=1))
    for batch in list(batches([8, 8], seed=2)):
        meter.add(*batch)
    meter.compute()
    for batch in first:
        meter.add(*batch)
    fresh = EpochMeter(classification())
    for batch in first:
        fresh.add(*batch)
    assert meter.compute() == fresh.compute()


def test_outputs_are_not_kept_beyond_the_limit(monkeypatch):
    monkeypatch.setattr(metrics, "FLUSH_BYTES", 1000)
    meter, kept = EpochMeter(classification()), []
    for batch in batches([16] * 12):
        meter.add(*batch)
        kept.append(sum(o.nbytes for o, _ in meter._outputs))
    assert max(kept) <= 1000
    assert kept.count(0) == 3  # of 256 bytes, the fourth is over the limit


def test_without_metrics_nothing_is_kept():
    meter = EpochMeter({})
    meter.add(torch.tensor(2.0), torch.randn(8, 4), torch.zeros(8))
    assert not meter._outputs
    assert meter.compute() == {"loss": 2.0}


def test_keeps_no_graph():
    meter = EpochMeter(classification())
    outputs = torch.randn(4, 4, requires_grad=True)
    meter.add(outputs.sum(), outputs, torch.arange(4))
    assert not meter._losses[0].requires_grad
    assert not meter._outputs[0][0].requires_grad


def test_an_empty_share_of_a_batch_has_no_say():
    meter = EpochMeter({})
    meter.add(torch.tensor(3.0), torch.randn(2, 4), torch.zeros(2))
    meter.add(torch.tensor(float("nan")), torch.randn(0, 4), torch.zeros(0))
    assert meter.compute()["loss"] == 3.0


def test_the_mean_is_over_the_samples_of_all_processes():
    meter = EpochMeter({})
    meter.add(torch.tensor(1.0), torch.randn(3, 4), torch.zeros(3))
    other = torch.tensor([8.0, 1.0], dtype=torch.float64)  # sum of losses and samples elsewhere
    assert meter.compute(lambda mine: mine + other)["loss"] == (3 * 1.0 + 8.0) / 4


def test_weights_are_those_of_the_batches():
    meter = EpochMeter({})
    for loss, weight in ((1.0, 0.5), (4.0, 2.5)):
        meter.add(torch.tensor(loss), torch.randn(3, 4), torch.zeros(3), torch.tensor(weight))
    assert meter.compute()["loss"] == (1.0 * 0.5 + 4.0 * 2.5) / 3


class OnMPS(torch.Tensor):
    """A tensor on a device that has no float64."""

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_a_device_without_float64():
    meter = EpochMeter({})
    for loss, weight in ((1.0, 1.0), (3.0, 3.0)):
        numbers = (torch.tensor(n).as_subclass(OnMPS) for n in (loss, weight))
        meter.add(next(numbers), torch.randn(2, 4), torch.zeros(2), next(numbers))
    assert meter.compute()["loss"] == 2.5


@pytest.mark.parametrize("name", ["forward", "train", "metrics", "top.1", "a b", ""])
def test_any_name_will_do(name):
    meter = EpochMeter({name: MulticlassAccuracy(4)})
    meter.add(torch.tensor(1.0), torch.eye(4), torch.arange(4))
    assert meter.compute() == {"loss": 1.0, name: 1.0}


def test_direction():
    known = {**classification(), "rmse": MeanSquaredError()}
    assert direction("val/accuracy", known) == "max"
    assert direction("train/auroc", known) == "max"
    assert direction("val/rmse", known) == "min"
    assert direction("val/loss", known) == "min"


def test_the_number_of_classes_is_told_to_those_who_ask():
    nodes = {
        "accuracy": {"_target_": "torchmetrics.classification.MulticlassAccuracy"},
        "facade": {"_target_": "torchmetrics.classification.Accuracy", "task": "multiclass"},
        "mine": {"_target_": "torchmetrics.classification.MulticlassAccuracy", "num_classes": 9},
        "mae": {"_target_": "torchmetrics.regression.MeanAbsoluteError"},
    }
    built = build_metrics(nodes, 5, [])
    assert built["accuracy"].num_classes == built["facade"].num_classes == 5
    assert built["mine"].num_classes == 9


def test_a_metric_that_refuses_its_settings_is_named():
    node = {"_target_": "torchmetrics.classification.MulticlassAccuracy", "average": "wrong"}
    with pytest.raises(ConfigError, match=r"metrics\.odd"):
        build_metrics({"odd": node}, 3, [])
