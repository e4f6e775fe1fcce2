import pytest
import torch
from torch import nn

from litlab.models.attention import MultiHeadSelfAttention
from litlab.models.cnn import CNN
from litlab.models.mlp import MLP
from litlab.models.simple import SimpleCNN, SimpleNN
from litlab.models.transformer import Transformer
from model_specs import VOCABULARY, make_spec

LENGTH = 12
SPEC = make_spec("text", (LENGTH,), outputs=0).model_copy(
    update={"task": "language_model", "pad_id": None}
)
SMALL = {"embed_dim": 16, "depth": 2, "num_heads": 4, "ffn_dim": 24}


def make_ids(batch=3, length=LENGTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (batch, length), generator=generator)


def make_model(**settings):
    torch.manual_seed(0)
    return Transformer(SPEC, **SMALL | settings).eval()


def triangle(length):
    """True where nn.MultiheadAttention must not look."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def copy_attention(ours, theirs):
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.project.state_dict())


def test_causal_attention_is_pytorchs():
    ours = MultiHeadSelfAttention(16, 4, causal=True)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    copy_attention(ours, theirs)
    x = torch.randn(3, 7, 16)
    expected, _ = theirs(x, x, x, attn_mask=triangle(7))
    torch.testing.assert_close(ours(x), expected)


def test_causal_attention_with_padding_is_pytorchs():
    ours = MultiHeadSelfAttention(16, 4, causal=True)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    copy_attention(ours, theirs)
    x = torch.randn(2, 7, 16)
    keep = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    expected, _ = theirs(x, x, x, key_padding_mask=~keep, attn_mask=triangle(7))
    torch.testing.assert_close(ours(x, keep)[keep], expected[keep])


def test_causal_attention_with_padding_in_front_is_finite():
    attention = MultiHeadSelfAttention(8, 2, causal=True)
    keep = torch.tensor([[False, False, True, True], [False] * 4])
    assert attention(torch.randn(2, 4, 8), keep).isfinite().all()


@pytest.mark.parametrize("norm_first", [True, False])
def test_the_whole_network_is_pytorchs_encoder_with_a_mask(norm_first):
    ours = make_model(norm_first=norm_first, positions="learned", activation="relu")
    layer = nn.TransformerEncoderLayer(
        16, 4, 24, 0.0, "relu", batch_first=True, norm_first=norm_first
    )
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    for mine, its in zip(ours.layers, theirs.layers, strict=True):
        copy_attention(mine.attention, its.self_attn)
        its.linear1.load_state_dict(mine.ffn[0].state_dict())
        its.linear2.load_state_dict(mine.ffn[3].state_dict())
    ids = make_ids()
    x = ours.embed.table(ids) + ours.positions.table
    x = theirs(x, mask=triangle(LENGTH))
    torch.testing.assert_close(ours(ids), ours.output(ours.norm(x)))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_no_token_changes_what_is_said_before_it(norm_first, positions):
    model = make_model(norm_first=norm_first, positions=positions)
    ids = make_ids()
    before = model(ids)
    assert before.shape == (3, LENGTH, VOCABULARY)
    for place in range(1, LENGTH):
        other = ids.clone()
        other[:, place:] = (other[:, place:] + 1) % VOCABULARY
        after = model(other)
        torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=1e-6)
        assert not torch.allclose(after[:, place], before[:, place])


def test_gradients_reach_every_earlier_token_and_no_later_one():
    model = make_model()
    vectors = []
    model.embed.table.register_forward_hook(
        lambda *arguments: vectors.append(arguments[-1]) or arguments[-1].retain_grad()
    )
    for place in range(LENGTH):
        vectors.clear()
        model(make_ids(batch=1))[0, place].square().sum().backward()
        reached = vectors[0].grad[0].abs().sum(1) > 0
        assert reached.tolist() == [other <= place for other in range(LENGTH)]


def test_a_shorter_text_gets_the_same_logits():
    model, ids = make_model(), make_ids()
    whole = model(ids)
    for length in (1, 5, LENGTH):
        torch.testing.assert_close(model(ids[:, :length]), whole[:, :length])


def test_padding_at_the_end_changes_nothing_before_it():
    spec = SPEC.model_copy(update={"pad_id": 0})
    torch.manual_seed(0)
    model = Transformer(spec, **SMALL).eval()
    ids = make_ids().clamp(min=1)
    padded = ids.clone()
    padded[:, 7:] = 0
    torch.testing.assert_close(model(padded)[:, :7], model(ids)[:, :7])


def test_training_with_dropout_leaks_nothing_either():
    model = make_model(dropout=0.2, attention_dropout=0.2).train()
    ids = make_ids()
    other = ids.clone()
    other[:, 6:] = (other[:, 6:] + 1) % VOCABULARY
    torch.manual_seed(1)
    before = model(ids)
    torch.manual_seed(1)
    torch.testing.assert_close(model(other)[:, :6], before[:, :6])


def test_a_class_token_is_refused():
    with pytest.raises(ValueError, match=r"model\.pool=mean"):
        make_model(pool="class_token")


@pytest.mark.parametrize("model", [MLP, CNN, SimpleNN, SimpleCNN])
def test_models_of_one_label_refuse_language_models(model):
    with pytest.raises(ValueError, match="use model=transformer"):
        model(SPEC)
