import math

import pytest
import torch
from scipy import integrate, stats
from torch import nn

from litlab.models.attention import Positions
from litlab.models.embedding import BagOfTokens, FeatureEmbedding, PatchEmbedding, TokenEmbedding
from litlab.models.layers import (
    ACTIVATIONS,
    GAINS,
    ChannelNorm,
    activation_layer,
    initialize,
    masked_mean,
    norm_layer,
)
from model_specs import PAD, VOCABULARY, make_spec


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "gelu", "silu"])
def test_rectifier_gains_keep_the_second_moment(name):
    layer = ACTIVATIONS[name]().double()

    def integrand(z):
        return layer(torch.tensor(z, dtype=torch.float64)).item() ** 2 * stats.norm.pdf(z)

    moment = sum(integrate.quad(integrand, *ends)[0] for ends in [(-10, 0), (0, 10)])
    assert GAINS[name] == pytest.approx(moment**-0.5, rel=1e-6)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "sigmoid"])
def test_gains_are_pytorchs_where_it_has_them(name):
    assert GAINS[name] == pytest.approx(nn.init.calculate_gain(name))


def test_every_activation_has_a_gain():
    assert GAINS.keys() == ACTIVATIONS.keys()


FAN_IN, FAN_OUT, GAIN = 300, 200, 1.5
STD = {
    "xavier_uniform": GAIN * math.sqrt(2 / (FAN_IN + FAN_OUT)),
    "xavier_normal": GAIN * math.sqrt(2 / (FAN_IN + FAN_OUT)),
    "he_uniform": GAIN / math.sqrt(FAN_IN),
    "he_normal": GAIN / math.sqrt(FAN_IN),
}


@pytest.mark.parametrize("scheme", STD)
def test_initialization_has_the_papers_deviation_and_shape(scheme):
    torch.manual_seed(0)
    layer = nn.Linear(FAN_IN, FAN_OUT)
    initialize([layer], scheme, GAIN)
    weight, std = layer.weight.detach(), STD[scheme]
    assert weight.std().item() == pytest.approx(std, rel=0.02)
    assert abs(weight.mean().item()) < 0.02 * std
    largest = weight.abs().max().item()
    if scheme.endswith("uniform"):
        assert largest == pytest.approx(math.sqrt(3) * std, rel=0.01)
    else:
        assert largest > 3.5 * std
    assert not layer.bias.any()


def test_he_of_relu_is_pytorchs_kaiming():
    ours, theirs = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
    torch.manual_seed(1)
    initialize([ours], "he_normal", GAINS["relu"])
    torch.manual_seed(1)
    nn.init.kaiming_normal_(theirs.weight, nonlinearity="relu")
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_patches_start_as_a_linear_layer_of_whole_patches_does():
    patches, linear = nn.Conv2d(3, 64, 4, stride=4), nn.Linear(48, 64)
    torch.manual_seed(1)
    initialize([patches], "xavier_uniform")
    torch.manual_seed(1)
    initialize([linear], "xavier_uniform")
    assert torch.equal(patches.weight.flatten(1), linear.weight)


def test_convolutions_that_overlap_start_from_pytorchs_fans():
    ours, theirs = nn.Conv2d(3, 64, 4, stride=2), nn.Conv2d(3, 64, 4, stride=2)
    torch.manual_seed(1)
    initialize([ours], "xavier_uniform")
    torch.manual_seed(1)
    nn.init.xavier_uniform_(theirs.weight)
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("layer", [nn.Linear(40, 24), nn.Conv1d(4, 10, 5), nn.Conv2d(2, 6, 3)])
def test_orthogonal_rows_are_orthogonal(layer):
    initialize([layer], "orthogonal", 2.0)
    rows = layer.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, 4 * torch.eye(len(rows)), atol=1e-5, rtol=0)


def test_default_initialization_leaves_pytorchs():
    layer = nn.Linear(5, 4)
    weight, bias = layer.weight.clone(), layer.bias.clone()
    initialize([layer], "default", 3.0)
    assert torch.equal(layer.weight, weight)
    assert torch.equal(layer.bias, bias)


def test_initialization_finds_nested_layers_and_leaves_norms_and_embeddings():
    model = nn.Sequential(nn.Sequential(nn.Linear(6, 6)), nn.BatchNorm1d(6), nn.Embedding(3, 6))
    table = model[2].weight.clone()
    initialize([model], "xavier_normal")
    assert not model[0][0].bias.any()
    assert torch.equal(model[1].weight, torch.ones(6))
    assert torch.equal(model[2].weight, table)


def test_channel_norm_is_layer_norm_of_each_position():
    x = torch.randn(2, 6, 3, 4)
    norm = ChannelNorm(6)
    nn.init.normal_(norm.weight)
    by_hand = torch.empty_like(x)
    for i in range(3):
        for j in range(4):
            at = x[:, :, i, j]
            mean, var = at.mean(1, keepdim=True), at.var(1, keepdim=True, unbiased=False)
            by_hand[:, :, i, j] = (at - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), by_hand)


@pytest.mark.parametrize(
    ("dims", "kind"), [(0, nn.BatchNorm1d), (1, nn.BatchNorm1d), (2, nn.BatchNorm2d)]
)
def test_batch_norm_has_the_right_dimensions(dims, kind):
    norm = norm_layer("batch", 4, dims)
    assert type(norm) is kind
    assert norm(torch.randn(3, 4, *[5] * dims)).shape == (3, 4, *[5] * dims)


def test_unknown_names_are_refused_by_the_setting():
    with pytest.raises(ValueError, match=r"model\.activation=swish.*silu"):
        activation_layer("swish")
    with pytest.raises(ValueError, match=r"model\.norm=group.*batch, layer or none"):
        norm_layer("group", 4)
    with pytest.raises(ValueError, match=r"model\.initialization=lecun.*orthogonal"):
        initialize([nn.Linear(2, 2)], "lecun")


def test_masked_mean_counts_only_what_is_kept():
    x = torch.arange(12.0).view(2, 3, 2)
    keep = torch.tensor([[True, False, True], [False, False, False]])
    expected = torch.tensor([[2.0, 3.0], [0.0, 0.0]])
    torch.testing.assert_close(masked_mean(x, keep), expected)
    torch.testing.assert_close(masked_mean(x, None), x.mean(1))


def test_token_embedding_is_pytorchs_with_padding_zeroed_even_if_trained():
    embed = TokenEmbedding(make_spec("text"), 6)
    nn.init.normal_(embed.table.weight)
    ids = torch.tensor([[3, 1, PAD], [PAD, PAD, 2]])
    vectors, keep = embed(ids)
    assert keep.tolist() == [[True, True, False], [False, False, True]]
    torch.testing.assert_close(vectors[keep], embed.table.weight[torch.tensor([3, 1, 2])])
    assert not vectors[~keep].any()


@pytest.mark.parametrize(("task", "std"), [("classification", 0.1), ("language_model", 1.0)])
def test_token_vectors_start_small_where_texts_are_labelled(task, std):
    spec = make_spec("text").model_copy(update={"task": task, "vocab_size": 500})
    weight = TokenEmbedding(spec, 40).table.weight
    assert weight[PAD + 1 :].std().item() == pytest.approx(std, rel=0.05)
    assert not weight[PAD].any()


def test_without_a_padding_id_every_token_counts():
    spec = make_spec("text").model_copy(update={"pad_id": None})
    _, keep = TokenEmbedding(spec, 4)(torch.zeros(2, 3, dtype=torch.long))
    assert keep.all()


def test_a_text_without_a_vocabulary_is_refused():
    spec = make_spec("text").model_copy(update={"vocab_size": None})
    with pytest.raises(ValueError, match="no vocab_size: run `litlab prepare`"):
        TokenEmbedding(spec, 4)


def test_bag_of_tokens_is_pytorchs_embedding_bag():
    bag = BagOfTokens(make_spec("text"), 6)
    ids = torch.randint(0, VOCABULARY, (5, 16))
    ids[0] = PAD
    theirs = nn.EmbeddingBag(VOCABULARY, 6, mode="mean", padding_idx=PAD)
    theirs.weight = bag.embed.table.weight
    torch.testing.assert_close(bag(ids), theirs(ids))


def test_patches_are_the_rows_of_unfold():
    spec = make_spec("image", (3, 8, 12))
    embed = PatchEmbedding(spec, 5, 4)
    x = torch.randn(2, 3, 8, 12)
    patches = nn.functional.unfold(x, 4, stride=4).transpose(1, 2)
    by_hand = patches @ embed.project.weight.flatten(1).T + embed.project.bias
    torch.testing.assert_close(embed(x), by_hand)
    assert embed.num_patches == by_hand.shape[1] == 6


def test_feature_embedding_is_affine_in_each_feature():
    embed = FeatureEmbedding(3, 4)
    x = torch.randn(2, 3)
    tokens = embed(x)
    for b in range(2):
        for j in range(3):
            torch.testing.assert_close(tokens[b, j], x[b, j] * embed.weight[j] + embed.bias[j])
    assert max(embed.weight.abs().max(), embed.bias.abs().max()) <= 0.5


def test_positions_are_added_and_a_longer_input_is_refused():
    positions = Positions(6, 4, learned=True)
    x = torch.randn(2, 5, 4)
    torch.testing.assert_close(positions(x), x + positions.table[:5])
    with pytest.raises(
        ValueError, match=r"7 tokens do not fit the model's 6 .*shorten the samples"
    ):
        positions(torch.randn(1, 7, 4))
