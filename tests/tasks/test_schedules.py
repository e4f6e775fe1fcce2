import inspect
import math

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from litlab.tasks.optim import optimizers, schedules
from litlab.tasks.optim.schedules import Horizon

BUILDERS = [
    schedules.constant,
    schedules.cosine,
    schedules.step,
    schedules.one_cycle,
    schedules.plateau,
]
BY_STEP = BUILDERS[:4]


def make_horizon(total, mode="min"):
    return Horizon(total_steps=total, monitor="val/loss", mode=mode)


def make_optimizer(lr=0.5):
    return torch.optim.SGD([nn.Parameter(torch.zeros(2, 2))], lr=lr, momentum=0.9)


def rates(build, total, **settings_):
    """The learning rate of each step, as the optimizer has it when it steps."""
    optimizer = make_optimizer()
    return walk(optimizer, build(optimizer, make_horizon(total), **settings_)["scheduler"], total)


def walk(optimizer, scheduler, total):
    seen = []
    for _ in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


# Against torch and the closed forms


def test_constant_warms_up_to_the_rate():
    assert rates(schedules.constant, 5) == [0.5] * 5
    expected = [0.5 * (t + 1) / 5 for t in range(4)] + [0.5] * 6
    assert rates(schedules.constant, 10, warmup=0.4) == pytest.approx(expected)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_without_warmup_is_torchs(final):
    optimizer = make_optimizer()
    reference = lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.5 * final)
    expected = walk(optimizer, reference, 20)
    ours = rates(schedules.cosine, 20, warmup=0.0, final_fraction=final)
    assert ours == pytest.approx(expected)


def test_cosine_with_warmup_is_its_formula():
    seen = rates(schedules.cosine, 20, warmup=0.2, final_fraction=0.1)
    rise = [0.5 * (t + 1) / 5 for t in range(4)]
    fall = [0.5 * (0.1 + 0.9 * (1 + math.cos(math.pi * (t - 4) / 16)) / 2) for t in range(4, 20)]
    assert seen == pytest.approx(rise + fall)
    assert seen.index(max(seen)) == 4


def test_step_is_torchs():
    optimizer = make_optimizer()
    expected = walk(optimizer, lr_scheduler.MultiStepLR(optimizer, [10, 15], gamma=0.2), 20)
    assert rates(schedules.step, 20, milestones=[0.5, 0.75], gamma=0.2) == pytest.approx(expected)
    assert rates(schedules.step, 4, milestones=[], warmup=0.5) == pytest.approx(
        [0.5 / 3, 1 / 3, 0.5, 0.5]
    )


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle_is_torchs_with_the_optimizers_rate_as_its_peak(strategy):
    optimizer = make_optimizer()
    reference = lr_scheduler.OneCycleLR(
        optimizer, 0.5, total_steps=20, anneal_strategy=strategy, cycle_momentum=False
    )
    seen = rates(schedules.one_cycle, 20, anneal_strategy=strategy)
    assert seen == pytest.approx(walk(optimizer, reference, 20))
    assert seen[0] == pytest.approx(0.5 / 25)
    assert max(seen) == pytest.approx(0.5)
    assert seen[-1] == pytest.approx(0.5 / 25 / 1e4)


def test_plateau_is_torchs():
    values = [1.0, 0.9, 0.9, 0.9, 0.95, 0.2, 0.3, 0.3, 0.3]
    ours, theirs = make_optimizer(), make_optimizer()
    made = schedules.plateau(ours, make_horizon(9), patience=1, factor=0.5)
    reference = lr_scheduler.ReduceLROnPlateau(theirs, mode="min", patience=1, factor=0.5)
    for value in values:
        made["scheduler"].step(value)
        reference.step(value)
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    assert ours.param_groups[0]["lr"] == 0.125
    assert (made["interval"], made["monitor"]) == ("epoch", "val/loss")
    made = schedules.plateau(ours, make_horizon(9, mode="max"))
    assert made["scheduler"].mode == "max"


# Properties


@pytest.mark.parametrize("build", BY_STEP)
@given(total=st.integers(1, 40), share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_every_step_learns_and_none_exceeds_the_rate(build, total, share):
    name = "pct_start" if build is schedules.one_cycle else "warmup"
    share = min(share, 0.999) if build is schedules.one_cycle else share
    seen = rates(build, total, **{name: share})
    assert all(0 < rate <= 0.5 + 1e-12 for rate in seen)


@pytest.mark.parametrize("build", BY_STEP)
def test_a_training_of_one_step_uses_a_rate_of_the_right_size(build):
    (rate,) = rates(build, 1)
    assert 0.1 < rate <= 0.5


def test_one_cycle_whose_rise_has_no_length():
    # pct_start * total_steps == 1: torch itself divides by zero here.
    seen = rates(schedules.one_cycle, 10, pct_start=0.1)
    assert seen[0] == pytest.approx(0.5)
    assert sorted(seen, reverse=True) == seen


@pytest.mark.parametrize("build", BUILDERS)
def test_hyperparameters_are_keywords_with_defaults(build):
    given_ = list(inspect.signature(build).parameters.values())
    assert [p.name for p in given_[:2]] == ["optimizer", "horizon"]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in given_[2:])


# Momentum


def test_one_cycle_leaves_momentum_alone_unless_asked():
    optimizer = make_optimizer()
    schedules.one_cycle(optimizer, make_horizon(10))
    assert optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("build", [optimizers.sgd, optimizers.adamw])
def test_one_cycle_moves_momentum_or_the_first_beta(build):
    optimizer = build(nn.Linear(2, 2))

    def momentum():
        group = optimizer.param_groups[0]
        return group["momentum"] if build is optimizers.sgd else group["betas"][0]

    made = schedules.one_cycle(optimizer, make_horizon(11), pct_start=0.5, cycle_momentum=True)
    seen = []
    for _ in range(11):
        seen.append(momentum())
        optimizer.step()
        made["scheduler"].step()
    assert seen[0] == pytest.approx(0.95)
    assert min(seen) == pytest.approx(0.85, abs=5e-3)
    assert seen[-1] == pytest.approx(0.95)


def test_one_cycle_refuses_to_move_two_kinds_of_momentum():
    optimizer = optimizers.muon(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"set scheduler\.cycle_momentum=false"):
        schedules.one_cycle(optimizer, make_horizon(5), cycle_momentum=True)


# Resuming


@pytest.mark.parametrize("build", BY_STEP)
@pytest.mark.parametrize("longer", [20, 30])
def test_a_resumed_schedule_continues_and_may_be_longer(build, longer):
    optimizer = make_optimizer()
    scheduler = build(optimizer, make_horizon(20))["scheduler"]
    walk(optimizer, scheduler, 10)
    resumed = make_optimizer()
    other = build(resumed, make_horizon(longer))["scheduler"]
    resumed.load_state_dict(optimizer.state_dict())
    other.load_state_dict(scheduler.state_dict())
    # The first step after a resumption has the saved rate; the next ones the new curve's.
    seen = walk(resumed, other, longer - 10)[1:]
    assert seen == pytest.approx(rates(build, longer)[11:])


# Refusals


@pytest.mark.parametrize("total", [0, -1, math.inf])
def test_an_endless_training_is_refused(total):
    with pytest.raises(ValueError, match=r"set trainer\.max_epochs"):
        make_horizon(total)


# Under Lightning


class Module(pl.LightningModule):
    def __init__(self, build_optimizer, build_schedule):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
        self.builders, self.seen = (build_optimizer, build_schedule), []

    def training_step(self, batch):
        self.seen.append(self.optimizers().param_groups[0]["lr"])
        loss = self.model(batch[0]).square().mean()
        self.log("val/loss", torch.ones(()), on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        build_optimizer, build_schedule = self.builders
        optimizer = build_optimizer(self.model, lr=0.5)
        horizon = Horizon(int(self.trainer.estimated_stepping_batches), "val/loss", "min")
        return {"optimizer": optimizer, "lr_scheduler": build_schedule(optimizer, horizon)}


# The loader is tiny on purpose; Lightning 2.6 asks torch's pytrees in a way that 2.13 deprecates.
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.parametrize("build_optimizer", [optimizers.adamw, optimizers.muon])
@pytest.mark.parametrize("build_schedule", BUILDERS)
def test_a_fit_follows_the_schedule(build_optimizer, build_schedule, tmp_path):
    module = Module(build_optimizer, build_schedule)
    loader = DataLoader(TensorDataset(torch.randn(8, 2)), batch_size=2)
    pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=1,
        max_epochs=3,
        log_every_n_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, loader)
    expected = [0.5] * 12 if build_schedule is schedules.plateau else rates(build_schedule, 12)
    assert module.seen == pytest.approx(expected)
