import csv

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import nn

from litlab.data.datamodule import ArrayDataModule
from litlab.data.prepare.open import open_or_prepare
from litlab.runs.checkpoint.metadata import load
from litlab.tasks.build import build_task
from litlab.training.finders import FEWEST, HIGHEST, LOWEST, curve, find_lr, smooth
from litlab.training.finders import LR_STEPS as STEPS
from litlab.utils import seeding
from litlab.utils.errors import ConfigError
from run_helpers import THIRD_PARTY, mlflow_run, small, small_run

pytestmark = THIRD_PARTY
WHOLE = ("trainer.limit_train_batches=null", "optimizer=sgd", "optimizer.lr=0.001")


def parts(*overrides):
    config = small(*WHOLE, *overrides)
    prepared, spec = open_or_prepare(config.data, config.trust)
    torch.manual_seed(3)
    task = build_task(config, spec)
    data = ArrayDataModule(prepared, spec, config.loader, {}, seed=0)
    data.open()
    return config, task, data


def by_hand(task, data, steps, clip=None):
    """Losses of the hand-written loop, at the same rates."""
    optimizer = task.parts.optimizer(task.model)
    losses, epoch = [], 0
    while len(losses) < steps:
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        epoch += 1
        for batch in loader:
            x, y = data.on_after_batch_transfer(batch, 0)[:2]
            loss = nn.functional.cross_entropy(task.model(x), y)
            optimizer.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(task.model.parameters(), clip)
            for group in optimizer.param_groups:
                group["lr"] = LOWEST * (HIGHEST / LOWEST) ** (len(losses) / (STEPS - 1))
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break
    return losses


@pytest.mark.parametrize("clip", [None, 0.1])
def test_the_losses_are_those_of_the_hand_written_loop(project, clip):
    config, task, data = parts(f"trainer.gradient_clip_val={clip or 'null'}")
    found = find_lr(task, data, config.trainer)
    assert len(found.losses) > 50
    expected = by_hand(task, data, len(found.losses), clip)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-4)
    np.testing.assert_allclose(found.lrs[[0, 1]], [1e-7, 1e-7 * 10 ** (8 / 99)])


def test_everything_is_as_before(project):
    config, task, data = parts()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    random, loader = seeding.state(), data.loader
    find_lr(task, data, config.trainer)
    after = seeding.state()
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert torch.equal(random["torch"], after["torch"])
    assert torch.equal(random["python"][1], after["python"][1])
    assert torch.equal(random["numpy"][1], after["numpy"][1])
    assert data.trainer is None
    assert data.loader == loader
    assert all(parameter.grad is None for parameter in task.parameters())


def test_the_steepest_point_of_a_known_curve_is_found():
    lrs = np.geomspace(LOWEST, HIGHEST, STEPS)
    for middle in (1e-4, 1e-2):  # a logistic fall is steepest in its middle
        losses = 2.3 / (1 + (lrs / middle) ** 1.5)
        noisy = losses + np.random.default_rng(0).normal(0, 0.02, STEPS)
        for values in (losses, noisy):
            found = curve(lrs, values).suggestion
            assert found is not None
            assert abs(np.log10(found / middle)) < 0.2
    diverging = np.where(lrs > 1, 1e5, 2.3 / (1 + (lrs / 0.01) ** 1.5))
    found = curve(lrs, diverging).suggestion
    assert found is not None
    assert abs(np.log10(found / 0.01)) < 0.2


def test_a_curve_that_only_trembles_or_is_too_short_suggests_nothing():
    lrs = np.geomspace(LOWEST, HIGHEST, STEPS)
    assert curve(lrs, 1 + np.random.default_rng(0).normal(0, 0.1, STEPS)).suggestion is None
    assert curve(lrs, np.linspace(1, 2, STEPS)).suggestion is None
    assert curve(lrs[:5], np.linspace(2, 1, 5)).suggestion is None


def test_smoothing_is_scipys():
    values = np.random.default_rng(0).normal(size=60)
    np.testing.assert_allclose(smooth(values, 3.0), gaussian_filter1d(values, 3.0, mode="nearest"))


def test_it_ends_where_the_loss_diverges(project):
    config, task, data = parts(
        "data.source.num_classes=0", "task=regression", "data.stratify=false"
    )
    found = find_lr(task, data, config.trainer)
    assert FEWEST < len(found.losses) < STEPS
    assert np.isfinite(found.losses).all()
    assert np.mean(found.losses[-5:]) > 4 * found.losses.min()


def test_a_found_rate_is_used_recorded_and_said(project, capsys):
    result = small_run(project, *WHOLE, "trainer.lr_find=use", "scheduler=one_cycle")
    rate = load(result.checkpoint).metadata.config.optimizer["lr"]
    assert rate != 0.001
    said = capsys.readouterr().err
    assert f"learning rate {rate:g} in place of 0.001" in said
    assert "one_cycle" in said
    run = mlflow_run(project, result.record.run_id)
    assert run.data.params["optimizer.lr"] == str(rate)
    with (result.folder / "lr_find.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"lr", "loss", "smoothed"}
    assert (result.folder / "lr_find.png").read_bytes().startswith(b"\x89PNG")
    from mlflow.tracking import MlflowClient

    kept = MlflowClient(f"sqlite:///{project}/mlflow.db").list_artifacts(run.info.run_id)
    assert {"lr_find.csv", "lr_find.png"} <= {item.path for item in kept}


def test_a_suggestion_changes_nothing(project, capsys):
    plain = small_run(project, *WHOLE)
    asked = small_run(project, *WHOLE, "trainer.lr_find=suggest")
    assert "suggested" in capsys.readouterr().err
    one, two = load(plain.checkpoint).weights, load(asked.checkpoint).weights
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert load(asked.checkpoint).metadata.config.optimizer["lr"] == 0.001


class Flat(nn.Module):
    """Learns nothing at any rate."""

    def __init__(self, spec):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(spec.num_outputs))

    def forward(self, x):
        return torch.zeros(len(x), len(self.weight)) + 0 * self.weight


def test_where_the_loss_never_falls_it_is_refused_or_said(project, capsys):
    flat = {"_target_": "test_lr_finder.Flat"}
    with pytest.raises(ConfigError, match="falls at no learning rate"):
        small_run(project, *WHOLE, "trainer.lr_find=use", model=flat, trust=["test_lr_finder"])
    small_run(project, *WHOLE, "trainer.lr_find=suggest", model=flat, trust=["test_lr_finder"])
    assert "is kept" in capsys.readouterr().err


def test_several_processes_are_refused(project):
    with pytest.raises(ConfigError, match="single process"):
        small_run(project, "trainer=ddp_cpu", "trainer.progress=none", "trainer.lr_find=use")


def test_off_may_be_bare(project):
    assert small("trainer.lr_find=off").trainer.lr_find == "off"
    assert small("trainer.lr_find=false").trainer.lr_find == "off"
