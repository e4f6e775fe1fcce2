"""Tables with categories, in every model; those without keep the models they had."""

import pytest
import torch
from torch import nn

from litlab.data.loading import Preprocess
from litlab.data.spec import Column, DataSpec
from litlab.models.cnn import CNN
from litlab.models.embedding import CellEmbedding, FeatureEmbedding, RowEmbedding
from litlab.models.mlp import MLP
from litlab.models.simple import SimpleCNN, SimpleNN
from litlab.models.transformer import Transformer
from litlab.tasks.optim.optimizers import muon, parameter_groups
from model_specs import count, make_batch, make_spec

MODELS = [MLP, SimpleNN, CNN, SimpleCNN, Transformer]
CARDINALITIES = (3, 21, 1001)


def table_spec(numbers: int = 4, cardinalities: tuple[int, ...] = CARDINALITIES) -> DataSpec:
    columns = [Column(name=f"n{i}", kind="numeric") for i in range(numbers)]
    columns += [
        Column(name=f"c{i}", kind="categorical", categories=tuple(map(str, range(n - 1))))
        for i, n in enumerate(cardinalities)
    ]
    width = len(columns)
    statistics = {"mean": (0.0,) * width, "std": (1.0,) * width}
    return make_spec("tabular", (width,)).model_copy(
        update={"columns": tuple(columns), **statistics}
    )


def rows(spec: DataSpec, batch: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(batch, spec.num_numeric, generator=generator)
    codes = [torch.randint(0, n, (batch, 1), generator=generator) for n in spec.cardinalities]
    return torch.cat([numbers, *(code.float() for code in codes)], 1)


def test_a_row_is_its_numbers_and_a_vector_a_category() -> None:
    spec = table_spec()
    embed = RowEmbedding(spec, 64)
    assert [tuple(table.weight.shape) for table in embed.embeddings] == [
        (3, 3),
        (21, 9),
        (1001, 64),
    ]
    assert embed.width == 4 + 3 + 9 + 64  # fastai's rule says 77 for 1001
    x = rows(spec)
    parts = [x[:, :4]]
    for place, table in enumerate(embed.embeddings):
        hot = nn.functional.one_hot(x[:, 4 + place].long(), CARDINALITIES[place]).float()
        parts.append(hot @ table.weight)
    torch.testing.assert_close(embed(x), torch.cat(parts, 1))


@pytest.mark.parametrize("numbers", [0, 4])
def test_cells_are_the_ft_transformers_tokens(numbers) -> None:
    spec = table_spec(numbers)
    embed = CellEmbedding(spec, 16)
    x = rows(spec)
    tokens = embed(x)
    assert tokens.shape == (6, numbers + 3, 16)
    for j in range(numbers):
        expected = x[:, j, None] * embed.numbers.weight[j] + embed.numbers.bias[j]
        torch.testing.assert_close(tokens[:, j], expected)
    for j, table in enumerate(embed.table.weight.split(CARDINALITIES)):
        torch.testing.assert_close(
            tokens[:, numbers + j], table[x[:, numbers + j].long()] + embed.bias[j]
        )
    weights = torch.cat([p.flatten() for p in embed.parameters()])
    assert weights.abs().max() <= 16**-0.5


def test_a_value_that_train_lacks_starts_as_nothing_and_is_left_alone() -> None:
    spec = table_spec()
    for embed in (RowEmbedding(spec, 8), CellEmbedding(spec, 8)):
        x = rows(spec)
        x[:, 4:] = 0
        out = embed(x)
        own = out[:, 4:] if isinstance(embed, RowEmbedding) else out[:, 4:] - embed.bias
        assert not own.any()
        x[:, 4:] = 1
        embed(x).sum().backward()
        tables = getattr(embed, "embeddings", None) or [embed.table]
        assert not any(table.weight.grad[0].any() for table in tables)


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize("numbers", [0, 4])
def test_every_model_builds_and_trains(build, numbers) -> None:
    spec = table_spec(numbers)
    model = build(spec)
    x = rows(spec)
    logits = model(x)
    assert logits.shape == (6, 5)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("build", MODELS)
def test_each_category_counts(build) -> None:
    spec = table_spec()
    model = build(spec).eval()
    x = rows(spec)
    for place, number in enumerate(CARDINALITIES):
        other = x.clone()
        other[:, 4 + place] = (x[:, 4 + place] + 1) % number
        assert not torch.allclose(model(other), model(x), atol=1e-7), place


@pytest.mark.parametrize("build", MODELS)
def test_without_categories_nothing_changes(build) -> None:
    plain = make_spec("tabular")
    columns = tuple(Column(name=f"n{i}", kind="numeric") for i in range(9))
    models = []
    for spec in (plain, plain.model_copy(update={"columns": columns})):
        torch.manual_seed(0)
        models.append(build(spec).eval())
    assert list(models[0].state_dict()) == list(models[1].state_dict())
    x = make_batch(plain)
    torch.testing.assert_close(models[1](x), models[0](x), rtol=0, atol=0)
    assert not any(isinstance(m, RowEmbedding | CellEmbedding) for m in models[0].modules())


def test_the_seeded_feature_tokens_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    embed = FeatureEmbedding(9, 16)
    torch.manual_seed(0)
    weight = torch.empty(9, 16).uniform_(-0.25, 0.25)
    torch.testing.assert_close(embed.weight.detach(), weight, rtol=0, atol=0)
    assert count(embed) == 2 * 9 * 16


def test_normalization_leaves_codes_as_they_are() -> None:
    spec = table_spec(cardinalities=(3, 100_001))
    spec = spec.model_copy(update={"mean": (0.3,) * 4 + (0.0,) * 2, "std": (1.7,) * 4 + (1.0,) * 2})
    x = rows(spec, 500)
    x[0, 5] = 100_000
    torch.testing.assert_close(Preprocess(spec)(x)[:, 4:], x[:, 4:], rtol=0, atol=0)


@pytest.mark.parametrize("build", [MLP, Transformer])
def test_biases_do_not_decay_and_muon_leaves_embeddings_to_adamw(build) -> None:
    model = build(table_spec())
    decayed = {id(p) for p in parameter_groups(model, 0.1)[0]["params"]}
    names = {name for name, p in model.named_parameters() if id(p) not in decayed}
    assert all("bias" in name or "norm" in name or "hidden" in name for name in names)
    optimizer = muon(model)
    hidden = {id(p) for g in optimizer.param_groups if g["name"] == "muon" for p in g["params"]}
    assert hidden
    for name, parameter in model.named_parameters():
        if "embed" in name:
            assert id(parameter) not in hidden, name


def test_a_transformer_with_categories_can_be_exported() -> None:
    spec = table_spec()
    model = Transformer(spec, depth=1).eval()
    x = rows(spec)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))
