import pytest
import torch
from torch import nn

from litlab.config.compose import load
from litlab.data.augmentations import build_augmentations
from litlab.data.prepare.open import open_or_prepare
from litlab.data.spec import DataSpec
from litlab.tasks.build import build_model, build_task
from litlab.training.run import train
from litlab.utils.errors import ConfigError
from run_helpers import THIRD_PARTY, small

pytestmark = THIRD_PARTY
TRUST = {"trust": ["test_assemble"]}


class Wide(nn.Module):
    """Gives one output too many."""

    def __init__(self, spec):
        super().__init__()
        self.layer = nn.Linear(144, spec.num_outputs + 1)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Halting(nn.Module):
    """Raises what only a user's own code would."""

    def __init__(self, spec):
        super().__init__()

    def forward(self, x):
        raise KeyError("no such layer")


class Frozen(nn.Module):
    """Holds a part that is in eval mode for good."""

    def __init__(self, spec):
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(144)).eval()
        self.head = nn.Linear(144, spec.num_outputs)

    def forward(self, x):
        return self.head(self.backbone(x))


class Vector(nn.Module):
    """A loss that forgot to take the mean."""

    def __init__(self, spec):
        super().__init__()

    def forward(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets, reduction="none")


class Number:
    def __init__(self, spec):
        pass


def own(name: str) -> dict[str, str]:
    return {"_target_": f"test_assemble.{name}"}


def spec_of(config) -> DataSpec:
    return open_or_prepare(config.data, [])[1]


def refusal(**parts) -> ConfigError:
    config = small(**parts)
    with pytest.raises(ConfigError) as caught:
        build_task(config, spec_of(config))
    assert caught.value.exit_code == 2
    return caught.value


def test_a_users_model_of_the_wrong_shape(project):
    error = refusal(model=own("Wide"), **TRUST)
    assert error.where == "model"
    assert "(3, 4) for 3 samples, not (3, 3)" in str(error)


def test_a_users_model_that_raises(project):
    error = refusal(model=own("Halting"), **TRUST)
    assert error.where == "model"
    assert "no such layer" in str(error)


def test_a_users_class_that_is_no_model(project):
    assert "Number is not an nn.Module" in str(refusal(model=own("Number"), **TRUST))


def test_an_untrusted_model_is_not_built(project):
    assert "trust" in refusal(model=own("Wide")).fix


def test_a_loss_that_gives_no_single_number(project):
    error = refusal(loss=own("Vector"), **TRUST)
    assert error.where == "loss"
    assert "not one number" in str(error)


@pytest.mark.parametrize("loss", ["MSE", "MAE", "Huber"])
def test_a_regression_loss_on_classes(project, loss):
    config = small(loss={"_target_": f"litlab.tasks.losses.regression.{loss}"})
    with pytest.raises(ConfigError, match="cross_entropy"):
        build_task(config, spec_of(config))


def test_a_classification_task_on_numbers(project):
    config = small("data.source.num_classes=0", "data.name=numbers", "data.stratify=false")
    with pytest.raises(ConfigError, match="set task=regression"):
        build_task(config, spec_of(config))


def test_a_regression_metric_on_classes(project):
    error = refusal(metrics={"mine": {"_target_": "torchmetrics.regression.MeanAbsoluteError"}})
    assert error.where == "metrics.mine"


def test_a_metric_that_gives_a_number_a_class(project):
    node = {"_target_": "torchmetrics.classification.MulticlassAccuracy", "average": "none"}
    error = refusal(metrics={"each": node})
    assert error.where == "metrics.each"
    assert "average" in str(error)


def test_refused_before_anything_is_recorded(project):
    with pytest.raises(ConfigError):
        train(small(model=own("Wide"), **TRUST))
    assert not (project / "runs").exists()
    assert not (project / "mlflow.db").exists()


def test_an_optimizer_that_refuses_the_model(project):
    cnn = {"_target_": "litlab.models.cnn.CNN", "channels": [4]}
    with pytest.raises(ConfigError, match="no hidden matrix") as caught:
        train(small("optimizer=muon", model=cnn))
    assert caught.value.where.startswith("optimizer")
    assert not (project / "runs").exists()
    assert not (project / "mlflow.db").exists()


class Drawing(Frozen):
    """Draws numbers in eval mode too."""

    def forward(self, x):
        return super().forward(x + torch.randn_like(x))


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize(
    "model",
    [{"_target_": "litlab.models.cnn.CNN", "channels": [4], "dropout": 0.5}, own("Drawing")],
)
def test_the_trial_leaves_no_trace(project, model, optimizer):
    config = small(f"optimizer={optimizer}", model=model, **TRUST)
    spec = spec_of(config)
    torch.manual_seed(1)
    tried = build_task(config, spec)
    after = torch.rand(1)
    torch.manual_seed(1)
    untried = build_task(config, spec, trial=False)
    assert torch.equal(torch.rand(1), after)
    mine, other = tried.state_dict(), untried.state_dict()
    assert all(torch.equal(mine[name], other[name]) for name in other)
    other_modes = [m.training for m in untried.model.modules()]
    assert [m.training for m in tried.model.modules()] == other_modes
    assert all(p.grad is None for p in tried.parameters())


def test_the_trial_leaves_a_frozen_part_in_eval_mode(project):
    config = small(model=own("Frozen"), **TRUST)
    model = build_task(config, spec_of(config)).model
    assert not any(m.training for m in model.backbone.modules())
    assert model.head.training


def test_augmentations_in_their_order(project):
    config = small("augment=standard")
    spec = spec_of(config)
    built = build_augmentations(config.augment, spec, [])
    names = [type(a).__name__ for a in built.values()]
    assert names == [n["_target_"].rpartition(".")[2] for n in config.augment.values()]
    assert names


@pytest.mark.parametrize("name", ["mlp", "cnn", "transformer", "simple_nn", "simple_cnn"])
def test_every_model_of_the_menu(project, name):
    config = load(["data=synthetic", "data.source.num_samples=150", f"model={name}"])
    spec = spec_of(small())
    assert build_model(config, spec).eval()(torch.zeros(3, *spec.shape)).shape == (3, 3)
