import copy
import inspect
import io

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from litlab.tasks.optim import optimizers as optim

BUILDERS = [optim.adam, optim.adamw, optim.sgd, optim.muon]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.position_embedding = nn.Parameter(torch.randn(1, 4, 6))
        self.class_token = nn.Parameter(torch.randn(1, 1, 6))
        self.conv = nn.Conv1d(6, 6, 3, padding=1)
        self.batch_norm = nn.BatchNorm1d(6)
        self.wide_norm = nn.LayerNorm((4, 6))
        self.position_wise = nn.Linear(6, 6)
        self.output = nn.Linear(6, 3)

    def forward(self, ids):
        x = self.embed(ids) + self.position_embedding + self.class_token
        x = self.batch_norm(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return self.output(self.position_wise(self.wide_norm(x)).tanh().mean(1))


def names_of(model, group):
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for p in group["params"]}


WEIGHTS = {"embed.weight", "conv.weight", "position_wise.weight", "output.weight"}


def backward(model, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, (8, 4), generator=generator)
    model.zero_grad()
    nn.functional.cross_entropy(model(ids), ids[:, 0] % 3).backward()


# Groups


def test_groups_decay_weights_only():
    model = Net()
    decay, no_decay = optim.parameter_groups(model, 0.1)
    assert names_of(model, decay) == WEIGHTS
    assert names_of(model, no_decay) == {n for n, _ in model.named_parameters()} - WEIGHTS
    assert (decay["weight_decay"], no_decay["weight_decay"]) == (0.1, 0.0)


def test_positions_and_biases_in_modules_of_their_own_do_not_decay():
    model = nn.Module()
    model.positions = nn.Embedding(4, 2)
    model.table = nn.Module()
    model.table.bias = nn.Parameter(torch.ones(3, 2))
    (only,) = optim.parameter_groups(model, 0.1)
    assert only["name"] == "no_decay"


def test_frozen_and_tied_parameters():
    model = Net()
    model.conv.requires_grad_(False)
    model.embed.weight = nn.Parameter(torch.randn(3, 6))
    model.output.weight = model.embed.weight
    decay, no_decay = optim.parameter_groups(model, 0.1)
    assert names_of(model, decay) == {"embed.weight", "position_wise.weight"}
    assert len(decay["params"]) == 2
    assert "conv.bias" not in names_of(model, no_decay)


def test_a_frozen_model_is_refused():
    with pytest.raises(ValueError, match="no parameter is trainable"):
        optim.parameter_groups(Net().requires_grad_(False), 0.1)


# Builders


@pytest.mark.parametrize("build", BUILDERS)
def test_without_gradient_weights_shrink_by_lr_times_decay_and_the_rest_stays(build):
    model = Net()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build(model, lr=0.1, weight_decay=0.5).step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if name in WEIGHTS else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, msg=name)
        if name not in WEIGHTS:
            assert torch.equal(parameter, before[name])


@pytest.mark.parametrize(
    ("build", "reference", "settings"),
    [
        (optim.adam, torch.optim.Adam, {"betas": [0.8, 0.9], "eps": 1e-6}),
        (optim.adamw, torch.optim.AdamW, {"betas": [0.8, 0.9], "eps": 1e-6}),
        (optim.sgd, torch.optim.SGD, {"momentum": 0.7, "nesterov": True}),
    ],
)
def test_steps_are_torchs_unfused_ones(build, reference, settings):
    # Double: the bias before the batch norm has no gradient but rounding, and Adam divides by it.
    ours, theirs = Net().double(), Net().double()
    theirs.load_state_dict(ours.state_dict())
    optimizers = (
        build(ours, lr=0.01, weight_decay=0.0, **settings),
        reference(theirs.parameters(), lr=0.01, weight_decay=0.0, foreach=False, **settings),
    )
    for seed in range(5):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            backward(model, seed)
            optimizer.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_adam_with_decay_is_adamw():
    models = Net(), Net()
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [
        build(model, lr=0.01, weight_decay=0.3)
        for build, model in zip((optim.adam, optim.adamw), models, strict=True)
    ]
    for model, optimizer in zip(models, optimizers, strict=True):
        backward(model, 0)
        optimizer.step()
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict())


@pytest.mark.parametrize("build", BUILDERS[:3])
def test_fused_where_every_parameter_allows_it(build):
    assert all(group["fused"] for group in build(Net()).param_groups)
    elsewhere = build(Net().to("meta"))
    assert not any(group["fused"] for group in elsewhere.param_groups)


def test_sgd_with_decay_is_plain_sgd_on_weights_scaled_before_each_step():
    ours, theirs = Net().double(), Net().double()
    theirs.load_state_dict(ours.state_dict())
    optimizer = optim.sgd(ours, lr=0.05, weight_decay=0.3)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for seed in range(5):
        backward(ours, seed)
        optimizer.step()
        backward(theirs, seed)
        with torch.no_grad():
            for name, parameter in theirs.named_parameters():
                if name in WEIGHTS:
                    parameter.mul_(1 - 0.05 * 0.3)
        reference.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.3, 0.0]


def test_sgd_takes_the_gradient_before_it_decays():
    weight = torch.nn.Linear(1, 1, bias=False)
    optimizer = optim.sgd(weight, lr=0.1, weight_decay=0.5)
    seen = []

    def closure():
        seen.append(weight.weight.item())
        optimizer.zero_grad()
        loss = weight.weight.square().sum()
        loss.backward()
        return loss

    before = weight.weight.item()
    optimizer.step(closure)
    assert seen == [before]


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ValueError, match=r"optimizer\.nesterov"):
        optim.sgd(Net(), momentum=0.0, nesterov=True)
    optim.sgd(Net(), momentum=0.0, nesterov=False)


@pytest.mark.parametrize("build", BUILDERS)
def test_hyperparameters_are_keywords_with_defaults(build):
    first, *rest = inspect.signature(build).parameters.values()
    assert first.default is inspect.Parameter.empty
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in rest)


# Muon


def test_muon_takes_the_hidden_matrices_only():
    model = Net()
    optimizer = optim.muon(model, weight_decay=0.1)
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert names_of(model, groups["muon"]) == {"position_wise.weight"}
    assert names_of(model, groups["decay"]) == WEIGHTS - {"position_wise.weight"}
    assert sum(len(g["params"]) for g in groups.values()) == len(list(model.parameters()))


def test_muon_steps_are_those_of_the_two_optimizers():
    ours, theirs = Net(), Net()
    theirs.load_state_dict(ours.state_dict())
    hidden = [theirs.position_wise.weight]
    others = [p for p in theirs.parameters() if p is not hidden[0]]
    pair = [
        torch.optim.Muon(hidden, lr=0.02, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.02, weight_decay=0.0, fused=True),
    ]
    combined = optim.muon(ours, lr=0.02, weight_decay=0.0)
    for seed in range(4):
        backward(ours, seed)
        combined.step()
        backward(theirs, seed)
        for optimizer in pair:
            optimizer.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_muon_without_hidden_matrices_is_refused():
    with pytest.raises(ValueError, match="no hidden matrix .* set optimizer=adamw"):
        optim.muon(nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(4, 2)))


def test_muon_obeys_a_scheduler_and_a_closure():
    model = Net()
    optimizer = optim.muon(model, lr=1.0, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: float(t == 0))

    def closure():
        backward(model, 0)
        return torch.tensor(7.0)

    assert optimizer.step(closure) == 7.0
    scheduler.step()
    before = copy.deepcopy(list(model.parameters()))
    optimizer.step(closure)
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_muon_trains_a_group_added_later():
    model = Net()
    optimizer = optim.muon(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2)))
    optimizer.add_param_group({"params": [model.conv.weight], "lr": 0.5})
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    before = model.conv.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model.conv.weight.detach(), before * (1 - 0.5 * 0.01) - 0.5)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("how", ["state_dict", "deepcopy"])
def test_a_saved_optimizer_continues_as_if_never_stopped(build, how):
    model = Net()
    optimizer = build(model, lr=0.01)
    for seed in range(3):
        backward(model, seed)
        optimizer.step()
    if how == "deepcopy":
        other, resumed = copy.deepcopy((model, optimizer))
    else:
        saved = io.BytesIO()
        torch.save((model.state_dict(), optimizer.state_dict()), saved)
        saved.seek(0)
        weights, state = torch.load(saved, weights_only=True)
        other = Net()
        other.load_state_dict(weights)
        resumed = build(other, lr=0.5)
        resumed.load_state_dict(state)
    for seed in range(3, 6):
        backward(model, seed)
        optimizer.step()
        backward(other, seed)
        resumed.step()
    for old, new in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(old, new)


# Under Lightning


class Module(pl.LightningModule):
    def __init__(self, build):
        super().__init__()
        self.model, self.build = Net(), build

    def training_step(self, batch):
        (ids,) = batch
        return nn.functional.cross_entropy(self.model(ids), ids[:, 0] % 3)

    def configure_optimizers(self):
        optimizer = self.build(self.model, lr=0.01)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.9**t)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def trainer(folder, epochs, precision="32-true"):
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        precision=precision,
        max_epochs=epochs,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


# The loader is tiny on purpose; Lightning 2.6 asks torch's pytrees in a way that 2.13 deprecates.
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.parametrize("build", BUILDERS)
def test_a_fit_resumed_from_its_checkpoint_ends_where_the_whole_fit_does(build, tmp_path):
    pl.seed_everything(0, verbose=False)
    ids = torch.randint(10, (16, 4))
    loader = DataLoader(TensorDataset(ids), batch_size=4)
    start = Net().state_dict()

    def module():
        made = Module(build)
        made.model.load_state_dict(start)
        return made

    whole, half, resumed = module(), module(), module()
    trainer(tmp_path, 4).fit(whole, loader)
    first = trainer(tmp_path, 2)
    first.fit(half, loader)
    first.save_checkpoint(tmp_path / "half.ckpt")
    trainer(tmp_path, 4).fit(resumed, loader, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        assert name == "model.batch_norm.num_batches_tracked" or value.dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.parametrize("build", BUILDERS)
def test_gradients_can_be_clipped_in_mixed_precision(build, tmp_path):
    # Lightning refuses to clip for an optimizer that says it unscales gradients by itself.
    loader = DataLoader(TensorDataset(torch.randint(10, (8, 4))), batch_size=4)
    module = Module(build)
    trainer(tmp_path, 1, precision="bf16-mixed").fit(module, loader)
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize("build", BUILDERS)
def test_a_loss_scaler_gives_the_step_without_one(build):
    plain, scaled = Net(), Net()
    scaled.load_state_dict(plain.state_dict())
    optimizers = build(plain, lr=0.01), build(scaled, lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    backward(plain, 0)
    optimizers[0].step()
    backward(scaled, 0)
    for parameter in scaled.parameters():
        parameter.grad = scaler.scale(parameter.grad)
    scaler.unscale_(optimizers[1])
    scaler.step(optimizers[1])
    scaler.update()
    torch.testing.assert_close(plain.state_dict(), scaled.state_dict())


# Learning rates by layer


def rates(model, **settings):
    """Each parameter's learning rate, by its name."""
    optimizer = optim.adamw(model, lr=1.0, layer_decay=0.5, **settings)
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}


class MadeNet(nn.Module):
    """As a Vision Transformer is built: BEiT's own levels can be written down by hand."""

    def __init__(self):
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.patches = nn.Conv2d(3, 4, 2, 2)
        self.positions = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(4, 2, 8) for _ in range(3))
        self.norm = nn.LayerNorm(4)
        self.output = nn.Linear(4, 2)


def test_layer_decay_is_that_of_beit():
    model, top = MadeNet(), 4
    for name, rate in rates(model).items():
        if name.startswith("blocks."):
            level = int(name.split(".")[1]) + 1
        elif name.startswith("output"):
            level = top
        elif name.startswith("norm"):
            level = 3  # BEiT: with the head. Here a norm belongs to the layer before it.
        else:
            level = 0
        assert rate == 0.5 ** (top - level), name


@pytest.mark.parametrize(
    ("model", "levels"),
    [
        ("mlp", {"hidden.0": 0, "hidden.1": 0, "hidden.4": 1, "hidden.5": 1, "output": 2}),
        ("simple_nn", {"layers.0": 0, "layers.2": 1}),
        ("simple_cnn", {"layers.0": 0, "layers.3": 1, "layers.7": 2}),
        (
            "cnn",
            {"stages.0.blocks.0": 0, "stages.1.blocks.0": 1, "stages.2.blocks.0": 2, "output": 3},
        ),
        (
            "transformer",
            {"embed": 0, "layers.0": 1, "layers.1": 2, "layers.3": 4, "norm": 4, "output": 5},
        ),
    ],
)
def test_layers_of_the_shipped_models(project, model, levels):
    from litlab.config.compose import load
    from litlab.tasks.build import build_model
    from test_conf import make_spec

    built = build_model(load([f"model={model}"]), make_spec("image"))
    found, top = rates(built), max(levels.values())
    for layer, level in levels.items():
        own = {rate for name, rate in found.items() if name.startswith(f"{layer}.")}
        assert own == {0.5 ** (top - level)}, layer
    assert set(found) == {name for name, _ in built.named_parameters()}


class Rows(nn.Module):
    """Categories side by side, then two layers, of which the last shares its weight."""

    def __init__(self):
        super().__init__()
        self.input = nn.Module()
        self.input.embeddings = nn.ModuleList(nn.Embedding(n, 4) for n in (5, 6, 7))
        self.hidden = nn.Linear(12, 4)
        self.output = nn.Linear(4, 5, bias=False)
        self.output.weight = self.input.embeddings[0].weight


def test_categories_side_by_side_are_one_level_and_tied_weights_where_they_came_first():
    assert set(rates(Rows()).values()) == {0.5, 1.0}
    assert {n for n, rate in rates(Rows()).items() if rate == 1.0} == {
        "hidden.weight",
        "hidden.bias",
    }


def test_layer_decay_keeps_what_decays_and_the_heads_rate_first():
    model = Net()
    optimizer = optim.adamw(model, lr=0.1, weight_decay=0.3, layer_decay=0.9)
    decayed = set().union(
        *(names_of(model, g) for g in optimizer.param_groups if g["weight_decay"])
    )
    assert decayed == WEIGHTS
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert names_of(model, optimizer.param_groups[0]) == {"output.weight"}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize("build", BUILDERS)
def test_layer_decay_equals_groups_made_by_hand(build):
    """Two layers: the lower one's rate is the decayed one, and nothing else differs."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    theirs = copy.deepcopy(ours)
    one = build(ours, lr=0.01, layer_decay=0.5)
    parts = (
        [build(theirs[i], lr=0.01 * 0.5**d) for d, i in ((2, 0), (1, 2), (0, 4))]
        if (build is not optim.muon)
        else None
    )
    x, y = torch.randn(8, 4), torch.arange(8) % 3
    for _ in range(5):
        for model, optimizers in ((ours, [one]), (theirs, parts or [])):
            model.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            for optimizer in optimizers:
                optimizer.step()
    if parts is None:  # the matrix in the middle is Muon's
        assert {g["lr"] for g in one.param_groups if g["name"].startswith("muon")} == {
            0.005,
            0.0025,
        }
        return
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["one_cycle", "cosine"])
def test_schedules_keep_the_ratio_of_the_rates(name):
    from litlab.tasks.optim import schedules

    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    optimizer = optim.adamw(model, lr=0.1, layer_decay=0.5)
    horizon = schedules.Horizon(total_steps=10, monitor="val/loss", mode="min")
    scheduler = getattr(schedules, name)(optimizer, horizon)["scheduler"]
    for _ in range(9):
        optimizer.step()
        scheduler.step()
        head, *_, first = [group["lr"] for group in optimizer.param_groups]
        assert first == pytest.approx(head * 0.5)
