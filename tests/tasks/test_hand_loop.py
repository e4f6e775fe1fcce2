"""The proof: the Trainer's fit is the hand-written loop, weight for weight, bit for bit."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from litlab.config.compose import load
from litlab.data.datamodule import ArrayDataModule
from litlab.data.prepare.open import open_or_prepare
from litlab.tasks.build import build_task
from litlab.training.trainer import fit
from litlab.utils import seeding
from run_helpers import THIRD_PARTY, trainer_of

pytestmark = THIRD_PARTY

STEPS, EPOCHS, BATCH = 50, 5, 32
LR, DECAY = 0.01, 0.05
MODELS = {
    "mlp": ["model=mlp", "model.hidden=[32,16]", "model.dropout=0.1"],
    "cnn": ["model=cnn", "model.channels=[8,16]"],
    "transformer": ["model=transformer", "model.depth=2", "model.embed_dim=16", "model.ffn_dim=32"],
}


def configure(model, optimizer, *overrides):
    base = ["data=synthetic", "data.source.num_samples=600", f"loader.batch_size={BATCH}"]
    trainer = ["trainer=cpu", f"trainer.max_epochs={EPOCHS}", "trainer.limit_train_batches=10"]
    rates = [f"optimizer={optimizer}", f"optimizer.lr={LR}", f"optimizer.weight_decay={DECAY}"]
    quiet = ["trainer.progress=none"]
    return load([*base, *trainer, *rates, *quiet, *MODELS[model], *overrides])


def by_trainer(config, folder: Path) -> dict[str, torch.Tensor]:
    prepared, spec = open_or_prepare(config.data, [])
    seeding.seed_everything(config.seed)
    task = build_task(config, spec)
    data = ArrayDataModule(prepared, spec, config.loader, seed=config.seed)
    trainer, signals = trainer_of(config, folder / "by_trainer")
    fit(trainer, task, data, signals)
    assert trainer.fit_loop.total_batch_idx + 1 == STEPS
    return task.model.state_dict()


def hand_batches(config):
    """The same batches, made without the loader, the datamodule or its normalization."""
    from safetensors.torch import load_file

    folder, spec = open_or_prepare(config.data, [])
    arrays = load_file(folder / "train.safetensors")
    mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    for epoch in range(EPOCHS):
        generator = torch.Generator().manual_seed((config.seed * 0x9E3779B1 + epoch) % 2**63)
        order = torch.randperm(len(arrays["x"]), generator=generator)
        for start in range(0, 10 * BATCH, BATCH):
            chosen = order[start : start + BATCH]
            x = arrays["x"][chosen].float() / 255
            x = (x - mean.view(-1, 1, 1)) * (1 / std).view(-1, 1, 1)
            yield x.contiguous(memory_format=torch.channels_last), arrays["y"][chosen]


def hand_model(config) -> nn.Module:
    _, spec = open_or_prepare(config.data, [])
    seeding.seed_everything(config.seed)
    net = build_task(config, spec, trial=False).model
    # As the default has it for images on the CPU; convolutions then add in another order.
    convolves = any(isinstance(module, nn.Conv2d) for module in net.modules())
    return net.to(memory_format=torch.channels_last) if convolves else net


def two_groups(model):
    """Weights, which decay; biases, norms and positions, which do not."""
    weights, others = [], []
    for name, p in model.named_parameters():
        plain = p.ndim < 2 or "position" in name or "norm" in name
        (others if plain else weights).append(p)
    return [
        {"params": weights, "weight_decay": DECAY},
        {"params": others, "weight_decay": 0.0},
    ]


def adamw_one_cycle(model, steps=STEPS):
    optimizer = torch.optim.AdamW(
        two_groups(model), lr=LR, betas=(0.9, 0.999), eps=1e-8, fused=True
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LR, total_steps=steps, pct_start=0.3, cycle_momentum=False
    )
    return optimizer, scheduler


def sgd_constant(model):
    """Plain SGD; decay scales the weights before each step and stays out of the momentum."""
    groups = [{**group, "weight_decay": 0.0} for group in two_groups(model)]
    optimizer = torch.optim.SGD(groups, lr=LR, momentum=0.9, nesterov=True, fused=True)

    def decay(*_):
        with torch.no_grad():
            for weight in optimizer.param_groups[0]["params"]:
                weight.mul_(1 - LR * DECAY)

    optimizer.register_step_pre_hook(decay)
    return optimizer, None


def assert_same(model, weights):
    ours = model.state_dict()
    assert list(ours) == list(weights)
    differing = [name for name in ours if not torch.equal(ours[name], weights[name])]
    assert not differing


def assert_trained(config, weights):
    untrained = hand_model(config).state_dict()
    assert any(not torch.equal(untrained[name], weights[name]) for name in weights)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_trainer_is_the_hand_loop(project, model, optimizer):
    schedule = {"adamw": "one_cycle", "sgd": "constant"}[optimizer]
    config = configure(model, optimizer, f"scheduler={schedule}")
    weights = by_trainer(config, project)
    assert_trained(config, weights)

    net = hand_model(config).train()
    optim, scheduler = adamw_one_cycle(net) if optimizer == "adamw" else sgd_constant(net)
    for x, y in hand_batches(config):
        loss = F.cross_entropy(net(x), y)
        optim.zero_grad()
        loss.backward()
        optim.step()
        if scheduler is not None:
            scheduler.step()
    assert_same(net, weights)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping(project, algorithm):
    limit = 0.02
    config = configure(
        "mlp",
        "sgd",
        "scheduler=constant",
        f"trainer.gradient_clip_val={limit}",
        f"trainer.gradient_clip_algorithm={algorithm}",
    )
    weights = by_trainer(config, project)
    net = hand_model(config).train()
    optim, _ = sgd_constant(net)
    clipped = 0
    for x, y in hand_batches(config):
        optim.zero_grad()
        F.cross_entropy(net(x), y).backward()
        largest = max(float(p.grad.abs().max()) for p in net.parameters())
        if algorithm == "norm":
            # In the optimizer's order, as Lightning does: a sum's last bit depends on the order.
            ordered = [p for group in optim.param_groups for p in group["params"]]
            clipped += float(nn.utils.clip_grad_norm_(ordered, limit)) > limit
        else:
            clipped += largest > limit
            nn.utils.clip_grad_value_(net.parameters(), limit)
        optim.step()
    assert clipped > 10
    assert_same(net, weights)


def test_l1_penalty(project):
    config = configure("mlp", "sgd", "scheduler=constant", "task.l1=0.001")
    weights = by_trainer(config, project)
    net = hand_model(config).train()
    optim, _ = sgd_constant(net)
    for x, y in hand_batches(config):
        penalty = torch.stack([p.abs().sum() for p in net.parameters() if p.ndim > 1]).sum()
        optim.zero_grad()
        (F.cross_entropy(net(x), y) + 0.001 * penalty).backward()
        optim.step()
    assert_same(net, weights)


def test_accumulation_of_two(project):
    config = configure("mlp", "adamw", "scheduler=one_cycle", "trainer.accumulate_grad_batches=2")
    weights = by_trainer(config, project)
    net = hand_model(config).train()
    optim, scheduler = adamw_one_cycle(net, STEPS // 2)
    for number, (x, y) in enumerate(hand_batches(config), start=1):
        (F.cross_entropy(net(x), y) / 2).backward()
        if number % 2 == 0:
            optim.step()
            scheduler.step()
            optim.zero_grad()
    assert_same(net, weights)
