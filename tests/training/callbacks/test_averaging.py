"""EMA and SWA: the formula by hand, and what validation, checkpoints and resuming make of it."""

from copy import deepcopy

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from litlab.data.datamodule import ArrayDataModule
from litlab.data.loading import open_split
from litlab.data.prepare.open import open_or_prepare
from litlab.evaluation.inference import load_task, run
from litlab.runs.checkpoint.io import RAW
from litlab.tasks.build import build_task
from litlab.training.callbacks.averaging import EMA, SWA, floating
from litlab.utils.errors import ConfigError
from run_helpers import THIRD_PARTY, small, small_run

pytestmark = THIRD_PARTY

MLP = {"_target_": "litlab.models.mlp.MLP", "hidden": (8,)}  # has batch norm
SIMPLE = {"_target_": "litlab.models.simple.SimpleNN", "width": 8}  # has none
WHOLE = ("trainer.limit_train_batches=null", "trainer.limit_val_batches=null")


class Watch(Callback):
    """Keeps the weights after each batch, and those that are validated."""

    def __init__(self):
        self.batches, self.validated, self.lrs = [], [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.batches.append(copy(pl_module.model))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.lrs.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_batch_start(self, trainer, pl_module, *args):
        self.validated.append(copy(pl_module.model))


def copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


class Stop(Callback):
    """Ends a fit early that was planned to be longer, with a checkpoint of the last epoch."""

    def __init__(self, epochs, path):
        self.epochs, self.path = epochs, path

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs

    def on_train_end(self, trainer, pl_module):
        if self.path:
            trainer.save_checkpoint(self.path)


def fit(
    *overrides,
    model=MLP,
    callbacks=(),
    epochs=2,
    length=None,
    max_batches=None,
    ckpt=None,
    save=None,
    start=None,
    **settings,
):
    """Train by Lightning's Trainer alone; return the task and what Watch saw."""
    config = small(*overrides, model=model)
    prepared, spec = open_or_prepare(config.data, config.trust)
    torch.manual_seed(0)
    task = build_task(config, spec)
    if start is not None:
        start.update(copy(task.model))
    watch = Watch()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[*callbacks, watch, Stop(length or epochs, save)],
        **{"limit_train_batches": max_batches, **settings},
    )
    data = ArrayDataModule(prepared, spec, config.loader, {}, seed=0)
    trainer.fit(task, datamodule=data, ckpt_path=ckpt)
    return task, watch


@pytest.mark.parametrize("warmup", [True, False])
def test_ema_is_the_formula(project, warmup):
    first: dict[str, torch.Tensor] = {}
    _, watch = fit(callbacks=[EMA(0.9, warmup=warmup)], start=first)
    expected = {k: v.double() for k, v in first.items()}
    per_epoch = len(watch.batches) // 2
    assert per_epoch > 1
    for t, weights in enumerate(watch.batches):
        decay = min(0.9, (1 + t) / (10 + t)) if warmup else 0.9
        for name, value in weights.items():
            moved = decay * expected[name] + (1 - decay) * value.double()
            expected[name] = moved if value.is_floating_point() else value
        if (t + 1) % per_epoch == 0:
            seen = watch.validated[t // per_epoch]
            assert seen.keys() == expected.keys()
            for name, value in seen.items():
                torch.testing.assert_close(value.double(), expected[name].double())
    assert any(not torch.equal(watch.validated[-1][k], watch.batches[-1][k]) for k in first)


def test_ema_is_that_of_torch(project):
    first: dict[str, torch.Tensor] = {}
    task, watch = fit(model=SIMPLE, callbacks=[EMA(0.9, warmup=False)], start=first)
    model = deepcopy(task.model)
    model.load_state_dict(first)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(model)  # the first is taken as it is
    for weights in watch.batches:
        model.load_state_dict(weights)
        theirs.update_parameters(model)
    for name, value in theirs.module.state_dict().items():  # what a fit leaves in the model
        torch.testing.assert_close(task.model.state_dict()[name], value)


def test_ema_takes_in_optimizer_steps_not_batches(project):
    callback = EMA(0.5)
    fit(callbacks=[callback], accumulate_grad_batches=3, limit_train_batches=6)
    assert callback.count == 2 * 2  # epochs x steps


def test_training_goes_on_from_the_weights_themselves(project):
    plain = fit()[1].batches
    averaged = fit(callbacks=[EMA(0.9)])[1].batches
    for a, b in zip(plain, averaged, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def swa_run(*overrides, swa=None, epochs=4, model=MLP):
    swa = swa or SWA(0.5, 0.02)
    return swa, *fit(*overrides, callbacks=[swa], epochs=epochs, max_batches=3, model=model)


def test_swa_is_the_mean_of_the_last_epochs_at_a_constant_rate(project):
    swa, task, watch = swa_run(model=SIMPLE)
    assert (swa.count, swa.latest) == (2, 3)
    ends = [watch.batches[i] for i in (8, 11)]  # of epochs 2 and 3, three batches each
    for name, value in task.model.state_dict().items():
        torch.testing.assert_close(value, sum(end[name] for end in ends) / 2)
        assert torch.equal(watch.validated[1][name], watch.batches[5][name])  # no average yet
        torch.testing.assert_close(watch.validated[2][name], ends[0][name])
    assert watch.lrs[6:] == [0.02] * 6
    assert 0.02 not in watch.lrs[:6]


def test_swa_recomputes_batch_norm_as_torch_does(project):
    """Over the last epoch's batches, in any order: the mean over batches has none."""
    _, task, watch = swa_run(epochs=2)
    expected = deepcopy(task.model)
    config = small()
    prepared, spec = open_or_prepare(config.data, config.trust)
    data = ArrayDataModule(prepared, spec, config.loader, {}, seed=0)
    data.open()
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    update_bn((data.on_after_batch_transfer(batch, 0) for batch in loader), expected)
    for name, value in expected.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(task.model.state_dict()[name], value)
            assert not torch.allclose(value, watch.batches[-1][name])


def test_swa_leaves_what_is_trained_alone(project):
    """Two fits to the same epoch: one averages (and recomputes batch norm), one does not."""
    _, _, averaged = swa_run("scheduler=constant", swa=SWA(0.25, 0.01))
    _, plain = fit("scheduler=constant", epochs=4, max_batches=3)  # optimizer.lr=0.01
    for a, b in zip(averaged.batches, plain.batches, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("make", [lambda: EMA(0.9), lambda: SWA(0.25, 0.02)])
def test_resuming_restores_both_sets(project, tmp_path, make):
    whole_task, whole = fit(callbacks=[make()], epochs=4, length=4)
    middle = tmp_path / "middle.ckpt"
    fit(callbacks=[make()], epochs=4, length=2, save=middle)
    callback = make()
    task, rest = fit(callbacks=[callback], epochs=4, length=4, ckpt=middle)
    assert len(rest.batches) == len(whole.batches) / 2
    for a, b in zip(whole.batches[len(rest.batches) :], rest.batches, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    for name, value in whole_task.model.state_dict().items():
        assert torch.equal(value, task.model.state_dict()[name]), name


@pytest.mark.parametrize(
    "averaging", ["trainer.ema={decay: 0.9}", "trainer.swa={start: 0.5, lr: 0.02}"]
)
def test_what_is_validated_is_what_is_kept_and_used(project, averaging):
    result = small_run(project, averaging, "trainer.max_epochs=4", *WHOLE, model=MLP)
    content = torch.load(result.folder / "last.ckpt", weights_only=True)
    weights = content["state_dict"]
    assert any(not torch.equal(weights[k], content[RAW][k]) for k in weights)
    loaded, task = load_task(result.checkpoint)
    assert all(torch.equal(task.state_dict()[k].cpu(), v) for k, v in loaded.weights.items())
    config = small()
    prepared, spec = open_or_prepare(config.data, config.trust)
    outputs = run(task, spec, open_split(prepared, spec, "val"), 64)
    targets = open_split(prepared, spec, "val").y
    loss = nn.functional.cross_entropy(outputs.raw, targets.long()).item()
    assert loss == pytest.approx(result.record.metrics["val/loss"], rel=1e-4)


def test_tied_weights_are_averaged_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.register_buffer("aside", torch.ones(1), persistent=False)
            self.register_buffer("counter", torch.tensor(1))

    assert list(floating(Tied())) == ["a.weight", "a.bias", "b.bias"]


def test_half_precision_is_averaged_in_float32():
    task = pl.LightningModule()
    task.model = nn.Linear(2, 2).bfloat16()
    ema = EMA(0.999, warmup=False)
    ema.on_fit_start(pl.Trainer.__new__(pl.Trainer), task)
    with torch.no_grad():
        task.model.weight.zero_()
        ema._average[0].fill_(1.0)
    for _ in range(10):
        ema.include(0.001)
    torch.testing.assert_close(ema._average[0], torch.full((2, 2), 0.999**10))


def test_both_together_and_sharded_weights_are_refused(project):
    both = ("trainer.ema={}", "trainer.swa={lr: 0.1}")
    with pytest.raises(ConfigError, match="both average"):
        small(*both)
    for one in both:
        with pytest.raises(ConfigError, match="splits the weights"):
            small(one, "trainer.strategy=fsdp2")
    with pytest.raises(ConfigError, match="lr"):
        small("trainer.swa={}")
    with pytest.raises(ConfigError, match="decay"):
        small("trainer.ema={decay: 1.0}")
