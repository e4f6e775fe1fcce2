import pytest
import torch
from torch import nn

from litlab.config.schema import Config
from litlab.training.freeze import freeze, frozen_names, frozen_norms
from litlab.training.preflight import preflight
from litlab.utils.errors import ConfigError
from run_helpers import THIRD_PARTY, small

pytestmark = THIRD_PARTY


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.low = nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False)
        )
        self.high = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.output = nn.Linear(4, 2)


LOW = {"low.0.weight", "low.0.bias", "low.1.weight", "low.1.bias"}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["low"], LOW),
        (["low.*"], LOW),
        (["low.0", "low.1"], LOW),
        (["*.0.bias"], {"low.0.bias", "high.0.bias"}),
        (["output.b*"], {"output.bias"}),
        ([], set()),
    ],
)
def test_patterns_are_of_parameters_or_their_modules(patterns, expected):
    assert frozen_names(Net(), patterns) == expected


@pytest.mark.parametrize(
    ("pattern", "hint"), [("lwo", "did you mean 'low'?"), ("output.wieght", "'output.weight'")]
)
def test_a_pattern_that_matches_nothing_is_refused(pattern, hint):
    with pytest.raises(ConfigError) as caught:
        frozen_names(Net(), ["high", pattern])
    assert (caught.value.exit_code, caught.value.where) == (2, "trainer.freeze")
    assert hint in caught.value.fix
    with pytest.raises(ConfigError, match="every parameter would be frozen"):
        frozen_names(Net(), ["*"])


def test_batch_norms_of_frozen_parts():
    model = Net()
    assert frozen_norms(model, frozen_names(model, ["low"])) == [model.low[1], model.low[2]]
    assert frozen_norms(model, frozen_names(model, ["low.0"])) == []
    assert frozen_norms(model, set()) == []


def trainer_with(**settings):
    config: Config = small()
    return config.trainer.model_copy(update=settings)


def test_frozen_for_good_or_later_by_the_callback(project):
    model = Net()
    freeze(model, trainer_with(freeze=["low"]))
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == LOW
    model = Net()
    freeze(model, trainer_with(freeze=["low"], unfreeze_epoch=2))
    assert all(p.requires_grad for p in model.parameters())  # the optimizer must know them
    together = trainer_with(freeze=["low"], unfreeze_epoch=1, devices=2)
    with pytest.raises(ConfigError, match="several processes"):
        preflight(small().model_copy(update={"trainer": together}))
    with pytest.raises(ConfigError, match="no parameter is frozen"):
        small("trainer.unfreeze_epoch=2")


MLP = {"_target_": "litlab.models.mlp.MLP", "hidden": (8, 6)}


def weights_by_epoch(project, monkeypatch, *overrides):
    from run_helpers import small_run

    seen = []

    def note(self):
        kept = {name: value.clone() for name, value in self.model.state_dict().items()}
        seen.append(kept)

    monkeypatch.setattr("litlab.tasks.task.Task.on_train_epoch_start", note, raising=False)
    result = small_run(project, *overrides, "trainer.max_epochs=4", model=MLP)
    return result, seen


def test_what_is_frozen_stays_as_it_was(project, monkeypatch):
    result, seen = weights_by_epoch(project, monkeypatch, "trainer.freeze=[hidden.0,hidden.1]")
    for name in seen[0]:
        frozen = name.startswith(("hidden.0.", "hidden.1."))
        assert torch.equal(seen[0][name], seen[3][name]) == frozen, name
    assert result.record.num_parameters == sum(
        v.numel()
        for n, v in seen[0].items()
        if n.startswith(("hidden.4", "hidden.5", "output"))
        and v.is_floating_point()
        and "running" not in n
    )


def test_what_thaws_is_trained_from_its_epoch_on(project, monkeypatch):
    _, seen = weights_by_epoch(
        project, monkeypatch, "trainer.freeze=[hidden.0,hidden.1]", "trainer.unfreeze_epoch=2"
    )
    for name in ("hidden.0.weight", "hidden.1.weight", "hidden.1.running_mean"):
        assert torch.equal(seen[0][name], seen[2][name])
        assert not torch.equal(seen[2][name], seen[3][name])
