import pytest
import torch
from torch import nn
from torch.nn import functional as F

from litlab.models.cnn import CNN, ConvStyle, ResidualBlock
from litlab.models.layers import GAINS
from litlab.models.simple import SimpleCNN
from model_specs import KINDS, PAD, count, make_batch, make_spec


def copy_in_order(source, target):
    ours = source.state_dict().values()
    target.load_state_dict(dict(zip(target.state_dict(), ours, strict=True)))


def test_simple_cnn_has_60362_parameters_on_cifar():
    assert count(SimpleCNN(make_spec("image", (3, 32, 32), outputs=10))) == 60_362


@pytest.mark.parametrize(
    ("kind", "shape", "conv", "pool", "flat"),
    [
        ("image", (3, 10, 13), nn.Conv2d, nn.MaxPool2d, 64 * 2 * 3),
        ("sequence", (2, 13), nn.Conv1d, nn.MaxPool1d, 64 * 3),
    ],
)
def test_simple_cnn_is_pytorchs_layers(kind, shape, conv, pool, flat):
    spec = make_spec(kind, shape)
    model = SimpleCNN(spec)
    plain = nn.Sequential(
        *(conv(shape[0], 32, 3, padding=1), nn.ReLU(), pool(2)),
        *(conv(32, 64, 3, padding=1), nn.ReLU(), pool(2)),
        *(nn.Flatten(), nn.Linear(flat, 5)),
    )
    copy_in_order(model, plain)
    x = make_batch(spec)
    torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0)


@pytest.mark.parametrize("pooling", ["max", "avg", "stride"])
@pytest.mark.parametrize("head", ["average", "max", "flatten"])
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_plain_cnn_is_pytorchs_layers(pooling, head, padding_mode):
    spec = make_spec("image", (3, 8, 12))
    model = CNN(spec, channels=(6, 7), pooling=pooling, head=head, padding_mode=padding_mode)
    conv = {"padding": 1, "bias": False, "padding_mode": padding_mode}
    pool = {"max": nn.MaxPool2d(2), "avg": nn.AvgPool2d(2), "stride": nn.Identity()}[pooling]
    second = nn.Conv2d(6, 7, 3, stride=2 if pooling == "stride" else 1, **conv)
    lasts = {"average": nn.AdaptiveAvgPool2d(1), "max": nn.AdaptiveMaxPool2d(1)}
    last = lasts.get(head, nn.Identity())
    plain = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, **conv), nn.BatchNorm2d(6), nn.ReLU(), pool),
        *(second, nn.BatchNorm2d(7), nn.ReLU(), last),
        *(nn.Flatten(), nn.Linear(7 * 4 * 6 if head == "flatten" else 7, 5)),
    )
    copy_in_order(model, plain)
    x = make_batch(spec)
    torch.testing.assert_close(model(x), plain(x))
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))


def affine(norm, x):
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)


@pytest.mark.parametrize(("inputs", "stride"), [(4, 1), (3, 1), (4, 2)])
def test_residual_block_is_the_one_of_he_et_al(inputs, stride):
    block = ResidualBlock(ConvStyle(2, 3, "zeros", "batch", "relu"), inputs, 4, stride)
    for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(2, inputs, 6, 6)
    inner = F.conv2d(x, block.first[0].weight, stride=stride, padding=1)
    inner = affine(block.first[1], inner).relu()
    inner = affine(block.second[1], F.conv2d(inner, block.second[0].weight, padding=1))
    shortcut = x
    if inputs != 4 or stride != 1:
        projected = F.conv2d(x, block.shortcut[0].weight, stride=stride)
        shortcut = affine(block.shortcut[1], projected)
    torch.testing.assert_close(block(x), (inner + shortcut).relu())


def test_resnet_20_with_projections_has_272474_parameters():
    spec = make_spec("image", (3, 32, 32), outputs=10)
    model = CNN(spec, channels=(16, 32, 64), blocks_per_stage=3, block="residual", pooling="stride")
    assert count(model) == 272_474
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in model.modules()) == 19


@pytest.mark.parametrize(("norm", "extra"), [("batch", 2), ("layer", 3), ("none", 1)])
def test_parameter_count(norm, extra):
    model = CNN(
        make_spec("sequence"), channels=(6, 10), blocks_per_stage=2, kernel_size=5, norm=norm
    )
    weights = 5 * (2 * 6 + 6 * 6 + 6 * 10 + 10 * 10)
    assert count(model) == weights + extra * (6 + 6 + 10 + 10) + 10 * 5 + 5


@pytest.mark.parametrize("block", ["plain", "residual"])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize(
    ("pooling", "sides"), [("max", 2), ("avg", 2), ("stride", 3), ("none", 11)]
)
def test_stages_leave_the_resolution_the_flat_head_expects(block, kernel_size, pooling, sides):
    spec = make_spec("sequence", (2, 11))
    settings = {"block": block, "kernel_size": kernel_size, "pooling": pooling}
    model = CNN(spec, channels=(4, 4, 6), head="flatten", blocks_per_stage=2, **settings)
    assert model.output.in_features == 6 * sides
    assert model(make_batch(spec)).shape == (4, 5)


def test_initialization_reaches_every_convolution():
    torch.manual_seed(0)
    spec = make_spec("image", (64, 8, 8), outputs=400)
    model = CNN(spec, channels=(64, 64), block="residual", activation="gelu")
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 5
    for conv in convs:
        assert conv.weight.std().item() == pytest.approx(GAINS["gelu"] / 24, rel=0.05)
    assert model.output.weight.std().item() == pytest.approx(1 / 8, rel=0.05)


def test_circular_padding_makes_the_average_blind_to_a_roll():
    spec = make_spec("sequence")
    x = make_batch(spec)
    for mode, blind in [("circular", True), ("zeros", False)]:
        model = CNN(spec, padding_mode=mode, pooling="none").eval()
        same = torch.allclose(model(x), model(x.roll(5, -1)), atol=1e-5)
        assert same == blind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", ["plain", "residual", "simple"])
@pytest.mark.parametrize("regression", [False, True])
def test_every_kind_builds_and_trains(kind, build, regression):
    spec = make_spec(kind, outputs=2, regression=regression)
    model = SimpleCNN(spec) if build == "simple" else CNN(spec, block=build)
    logits = model(make_batch(spec))
    assert logits.shape == (4, 2)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (1, 4, 4)])
def test_defaults_fit_small_images(shape):
    spec = make_spec("image", shape)
    assert CNN(spec)(make_batch(spec)).shape == (4, 5)


def test_dropout_is_off_in_evaluation():
    spec = make_spec("image")
    model = CNN(spec, dropout=0.5, norm="none")
    x = make_batch(spec)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("block", ["plain", "residual"])
@pytest.mark.parametrize("pooling", ["max", "avg", "stride", "none"])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_padding_influences_nothing(block, pooling, norm):
    torch.manual_seed(0)
    # The bias of a normalization is what would turn padding into something.
    model = CNN(make_spec("text"), block=block, pooling=pooling, norm=norm).eval()
    for name, parameter in model.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    # A pool drops an odd last position, which padding would then have completed.
    x = torch.randint(1, 11, (3, 5 if pooling == "stride" else 8))
    logits = model(x)
    longer = F.pad(x, (0, 16 - x.size(1)), value=PAD)
    torch.testing.assert_close(model(longer), logits)
    nn.init.normal_(model.input.embed.table.weight[PAD].detach())
    torch.testing.assert_close(model(longer), logits)
    assert model(torch.full((1, 16), PAD)).isfinite().all()


def test_simple_cnn_does_not_read_the_padding_row():
    model = SimpleCNN(make_spec("text"))
    x = make_batch(make_spec("text"))
    logits = model(x)
    nn.init.normal_(model.input.embed.table.weight[PAD].detach())
    assert torch.equal(model(x), logits)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((1, 8, 8), {"kernel_size": 4}, r"model\.kernel_size=4 is even .* use 3 or 5"),
        ((1, 8, 8), {"channels": ()}, r"model\.channels is empty"),
        ((1, 8, 3), {"channels": (4, 4, 4)}, r"model\.channels has 3 .*model\.pooling=none"),
        (
            (1, 8, 8),
            {"padding_mode": "circular", "kernel_size": 7},
            r"model\.padding_mode=circular .* around the 2 .*model\.padding_mode=zeros",
        ),
    ],
)
def test_what_cannot_work_is_refused(shape, settings, message):
    with pytest.raises(ValueError, match=message):
        CNN(make_spec("image", shape), **settings)


def test_a_stride_survives_where_a_pool_would_leave_nothing():
    spec = make_spec("image", (1, 8, 3))
    assert CNN(spec, channels=(4, 4, 4, 4), pooling="stride")(make_batch(spec)).shape == (4, 5)


def test_simple_cnn_refuses_what_two_pools_would_empty():
    with pytest.raises(ValueError, match=r"3 x 9 is too small .*model\.pooling=none"):
        SimpleCNN(make_spec("image", (1, 3, 9)))
