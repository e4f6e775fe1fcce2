import numpy as np
import pytest
import torch
from torch import nn

from litlab.models.attention import (
    EncoderLayer,
    MultiHeadSelfAttention,
    Positions,
    sinusoidal_table,
)
from litlab.models.transformer import Transformer
from model_specs import KINDS, PAD, count, make_batch, make_spec

KEEP = torch.tensor([[True] * 7, [True] * 4 + [False] * 3, [False] * 2 + [True] * 5])


def copy_attention(ours, theirs):
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.3)
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.project.state_dict())


@pytest.mark.parametrize("keep", [None, KEEP])
@pytest.mark.parametrize("num_heads", [1, 4])
def test_attention_is_pytorchs(keep, num_heads):
    ours = MultiHeadSelfAttention(16, num_heads)
    theirs = nn.MultiheadAttention(16, num_heads, batch_first=True)
    copy_attention(ours, theirs)
    x = torch.randn(3, 7, 16)
    expected, _ = theirs(x, x, x, key_padding_mask=None if keep is None else ~keep)
    torch.testing.assert_close(ours(x, keep), expected)


@pytest.mark.parametrize("keep", [None, KEEP])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer_is_pytorchs_forward_and_backward(keep, norm_first, activation):
    ours = EncoderLayer(16, 4, 24, activation=activation, norm_first=norm_first).eval()
    theirs = nn.TransformerEncoderLayer(
        16, 4, 24, 0.0, activation, batch_first=True, norm_first=norm_first
    ).eval()
    copy_attention(ours.attention, theirs.self_attn)
    pairs = [
        (ours.ffn[0], theirs.linear1),
        (ours.ffn[3], theirs.linear2),
        (ours.attention_norm, theirs.norm1),
        (ours.ffn_norm, theirs.norm2),
    ]
    for mine, its in pairs:
        nn.init.normal_(mine.weight, std=0.3)
        nn.init.normal_(mine.bias, std=0.3)
        its.load_state_dict(mine.state_dict())
    x = torch.randn(3, 7, 16, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    out = ours(x, keep)
    expected = theirs(y, src_key_padding_mask=None if keep is None else ~keep)
    torch.testing.assert_close(out, expected)
    # Of the padded positions' own outputs nobody makes use.
    read = 1.0 if keep is None else keep.unsqueeze(-1)
    (out * read).square().sum().backward()
    (expected * read).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(ours.attention.qkv.weight.grad, theirs.self_attn.in_proj_weight.grad)
    torch.testing.assert_close(ours.ffn[0].weight.grad, theirs.linear1.weight.grad)


def test_a_sample_of_padding_alone_attends_to_everything():
    attention = MultiHeadSelfAttention(8, 2)
    x = torch.randn(2, 5, 8)
    keep = torch.tensor([[False] * 5, [True] * 5])
    torch.testing.assert_close(attention(x, keep), attention(x))


def test_attention_dropout_is_pytorchs_and_off_in_evaluation():
    torch.manual_seed(0)
    attention = MultiHeadSelfAttention(8, 2, dropout=0.5)
    x = torch.randn(2, 5, 8)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


@pytest.mark.parametrize("embed_dim", [16, 7])
def test_sinusoids_are_the_formula(embed_dim):
    expected = np.empty((50, embed_dim))
    for position in range(50):
        for k in range(embed_dim):
            angle = position / 10000 ** ((k - k % 2) / embed_dim)
            expected[position, k] = np.cos(angle) if k % 2 else np.sin(angle)
    np.testing.assert_allclose(sinusoidal_table(50, embed_dim).numpy(), expected, atol=1e-6)


def test_sinusoids_are_neither_trained_nor_saved():
    positions = Positions(5, 8, learned=False)
    assert count(positions) == 0
    assert not positions.state_dict()
    x = torch.zeros(1, 5, 8)
    torch.testing.assert_close(positions(x)[0], sinusoidal_table(5, 8))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("pool", ["class_token", "mean"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_parameter_count(norm_first, pool, positions):
    spec = make_spec("image")
    model = Transformer(
        spec,
        embed_dim=16,
        depth=3,
        num_heads=2,
        ffn_dim=20,
        positions=positions,
        pool=pool,
        norm_first=norm_first,
    )
    d, f, patches = 16, 20, 2 * 3
    layer = (3 * d * d + 3 * d) + (d * d + d) + (d * f + f) + (f * d + d) + 4 * d
    expected = (3 * 4 * 4 * d + d) + 3 * layer + 5 * d + 5
    expected += patches * d * (positions == "learned") + d * (pool == "class_token")
    assert count(model) == expected + 2 * d * norm_first


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool", ["class_token", "mean"])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("regression", [False, True])
def test_every_kind_builds_and_trains(kind, pool, norm_first, regression):
    spec = make_spec(kind, outputs=2, regression=regression)
    model = Transformer(spec, embed_dim=16, depth=2, pool=pool, norm_first=norm_first)
    logits = model(make_batch(spec))
    assert logits.shape == (4, 2)
    assert logits.isfinite().all()
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("kind", "shape"), [("image", (1, 8, 8)), ("image", (1, 28, 28)), ("sequence", (1, 40))]
)
def test_default_patches_fit_the_shipped_data(kind, shape):
    spec = make_spec(kind, shape)
    assert Transformer(spec, depth=1)(make_batch(spec)).shape == (4, 5)


@pytest.mark.parametrize("pool", ["class_token", "mean"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_padding_influences_nothing(pool, positions):
    torch.manual_seed(0)
    model = Transformer(make_spec("text"), pool=pool, positions=positions).eval()
    x = torch.randint(1, 11, (3, 6))
    logits = model(x)
    longer = nn.functional.pad(x, (0, 10), value=PAD)
    torch.testing.assert_close(model(longer), logits)
    nn.init.normal_(model.embed.table.weight[PAD].detach())
    torch.testing.assert_close(model(longer), logits)
    assert model(torch.full((1, 16), PAD)).isfinite().all()


@pytest.mark.parametrize("pool", ["class_token", "mean"])
def test_a_text_without_padding_needs_no_mask(pool):
    spec = make_spec("text")
    model = Transformer(spec, pool=pool).eval()
    x = make_batch(spec)[:1]
    tokens = model.positions(model.embed.table(x))
    if pool == "class_token":
        tokens = torch.cat([model.class_token, tokens], 1)
    for layer in model.layers:
        tokens = layer(tokens)
    tokens = model.norm(tokens)
    expected = model.output(tokens[:, 0] if pool == "class_token" else tokens.mean(1))
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_positions_make_order_matter(positions):
    spec = make_spec("text")
    model = Transformer(spec, positions=positions).eval()
    x = make_batch(spec)[:1]
    assert not torch.allclose(model(x), model(x.flip(-1)), atol=1e-5)


def test_columns_of_a_table_are_a_set():
    model = Transformer(make_spec("tabular")).eval()
    x = make_batch(make_spec("tabular"))
    logits = model(x)
    order = torch.randperm(9)
    with torch.no_grad():
        model.embed.weight.copy_(model.embed.weight[order])
        model.embed.bias.copy_(model.embed.bias[order])
    torch.testing.assert_close(model(x[:, order]), logits)


@pytest.mark.parametrize("name", ["dropout", "attention_dropout"])
def test_dropout_is_off_in_evaluation(name):
    spec = make_spec("sequence")
    model = Transformer(spec, **{name: 0.5})
    x = make_batch(spec)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"embed_dim=60 is not .* model\.num_heads=8: .*=64"):
        Transformer(make_spec("text"), embed_dim=60, num_heads=8)


@pytest.mark.parametrize(("kind", "shape"), [("image", (3, 8, 12)), ("sequence", (2, 16))])
def test_a_patch_that_does_not_divide_the_input_is_refused(kind, shape):
    with pytest.raises(ValueError, match=r"model\.patch_size=5 does not divide .* one of 1, 2, 4"):
        Transformer(make_spec(kind, shape), patch_size=5)


def test_inputs_of_another_size_are_refused():
    with pytest.raises(ValueError, match="the input is 12 x 8 and the model was built for 8 x 12"):
        Transformer(make_spec("image"))(torch.randn(1, 3, 12, 8))
    with pytest.raises(
        ValueError, match=r"17 tokens do not fit the model's 16 .*shorten the samples"
    ):
        Transformer(make_spec("text"))(torch.ones(1, 17, dtype=torch.long))
