import pytest
import torch
from torch import nn

from litlab.models.layers import ACTIVATIONS, GAINS
from litlab.models.mlp import MLP
from litlab.models.simple import SimpleNN
from model_specs import KINDS, PAD, count, make_batch, make_spec


def test_simple_nn_is_linear_relu_linear():
    spec = make_spec("image", (1, 8, 8), outputs=10)
    model = SimpleNN(spec, width=32)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    plain.load_state_dict(
        dict(zip(plain.state_dict(), model.state_dict().values(), strict=True)), strict=True
    )
    x = make_batch(spec)
    torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0)


def test_simple_nn_starts_from_pytorchs_initialization():
    spec = make_spec("tabular")
    torch.manual_seed(3)
    model = SimpleNN(spec, width=7)
    torch.manual_seed(3)
    plain = [nn.Linear(9, 7), nn.Linear(7, 5)]
    for ours, theirs in zip([model.layers[0], model.layers[2]], plain, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_mlp_is_a_sequence_of_pytorchs_layers(activation, norm):
    spec = make_spec("tabular")
    model = MLP(spec, hidden=(7, 6), activation=activation, norm=norm, dropout=0.3)
    layers, width = [], 9
    for after in (7, 6):
        between = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": nn.Identity}[norm]
        linear = nn.Linear(width, after, bias=norm != "batch")
        layers += [linear, between(after), ACTIVATIONS[activation](), nn.Dropout(0.3)]
        width = after
    plain = nn.Sequential(*layers, nn.Linear(width, 5))
    ours = model.state_dict()
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.values(), strict=True)))
    x = make_batch(spec, 6)
    torch.manual_seed(0)
    logits = model(x)
    torch.manual_seed(0)
    torch.testing.assert_close(logits, plain(x))
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))


def test_no_hidden_layer_is_a_linear_model():
    model = MLP(make_spec("image"), hidden=())
    assert count(model) == 3 * 8 * 12 * 5 + 5
    x, y = make_batch(make_spec("image"), 2)
    torch.testing.assert_close(
        model((x + y)[None]) + model(0 * x[None]), model(x[None]) + model(y[None])
    )


@pytest.mark.parametrize(("norm", "extra"), [("batch", 2), ("layer", 3), ("none", 1)])
def test_parameter_count(norm, extra):
    model = MLP(make_spec("sequence"), hidden=(20, 30, 10), norm=norm)
    assert count(model) == 32 * 20 + 20 * 30 + 30 * 10 + extra * 60 + 10 * 5 + 5


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_initialization_uses_the_gain_for_hidden_layers_and_one_for_the_last(activation):
    torch.manual_seed(0)
    spec = make_spec("tabular", (400,), outputs=300)
    model = MLP(spec, hidden=(400, 400), activation=activation, norm="none")
    for layer in (model.hidden[0], model.hidden[4]):
        assert layer.weight.std().item() == pytest.approx(GAINS[activation] / 20, rel=0.02)
        assert not layer.bias.any()
    assert model.output.weight.std().item() == pytest.approx(1 / 20, rel=0.02)


def test_he_keeps_the_signal_through_thirty_relu_layers_and_default_does_not():
    torch.manual_seed(0)
    spec = make_spec("tabular", (256,), outputs=256)
    x = torch.randn(64, 256)
    he, default = (
        MLP(spec, hidden=(256,) * 30, norm="none", dropout=0.0, initialization=scheme)(x).std()
        for scheme in ("he_normal", "default")
    )
    assert 0.3 < he < 3
    assert default < 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [MLP, SimpleNN])
@pytest.mark.parametrize("regression", [False, True])
def test_every_kind_builds_and_trains(kind, build, regression):
    spec = make_spec(kind, outputs=2, regression=regression)
    model = build(spec)
    logits = model(make_batch(spec))
    assert logits.shape == (4, 2)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_dropout_is_off_in_evaluation():
    spec = make_spec("tabular")
    model = MLP(spec, dropout=0.5, norm="none")
    x = make_batch(spec)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("build", [MLP, SimpleNN])
def test_padding_influences_nothing(build):
    model = build(make_spec("text")).eval()
    x = torch.randint(1, 11, (3, 6))
    logits = model(x)
    longer = nn.functional.pad(x, (0, 10), value=PAD)
    torch.testing.assert_close(model(longer), logits)
    nn.init.normal_(model.input.embed.table.weight[PAD].detach())
    torch.testing.assert_close(model(longer), logits)
    assert model(torch.full((1, 16), PAD)).isfinite().all()
