"""mixup and CutMix: inputs and labels of each sample and its partner, against loops."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from litlab.data.augment.draws import Draws
from litlab.data.augment.mixing import BetaTable, CutMix, Mixup, MixupCutMix
from made_augment import draws_of, samples, spec_of

CONTINUOUS = ["image", "sequence", "tabular"]
EVERY = [*CONTINUOUS, "text"]


def pairs(spec, number: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """`2B` rows: the batch, then the partners, of another class."""
    x = samples(spec, 2 * number)
    return x, torch.arange(2 * number) % 3


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 1.0, 3.0])
def test_beta_against_scipys(alpha) -> None:
    found = BetaTable(alpha)(draws_of(20_000)).double().numpy()
    beta = stats.beta(alpha, alpha)
    low = found[found < 0.5]  # near 1, float32 has no room for a small alpha's many values
    assert stats.kstest(low, lambda w: 2 * beta.cdf(w)).pvalue > 1e-4
    for w in np.linspace(0.01, 0.99, 50):
        assert (found < w).mean() == pytest.approx(beta.cdf(w), abs=4 * 0.5 / 20_000**0.5)
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    repeated = BetaTable(alpha)(Draws(0, 0, torch.tensor([5, 3])))
    np.testing.assert_array_equal(repeated.numpy(), found[[5, 3]].astype(np.float32))


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_mixup_against_a_loop(kind) -> None:
    spec = spec_of(kind)
    x, y = pairs(spec)
    mixup = Mixup(spec, alpha=0.4, p=0.7)
    mixed, soft = mixup(x, y, draws_of(128))
    draws = draws_of()
    hit = draws.bernoulli(0.7)
    weights = torch.where(hit, BetaTable(0.4)(draws), 1.0).double().tolist()
    assert len(set(weights)) > 20
    for i, weight in enumerate(weights):
        labels = np.zeros(3)
        labels[y[i]] += weight
        labels[y[64 + i]] += 1 - weight
        np.testing.assert_allclose(soft[i], labels, atol=1e-6)
        expected = weight * x[i].double() + (1 - weight) * x[64 + i].double()
        if kind == "tabular":
            expected[4:] = (x[i] if weight >= 0.5 else x[64 + i])[4:]
        np.testing.assert_allclose(mixed[i], expected, atol=1e-6)


def test_codes_stay_codes() -> None:
    spec = spec_of("tabular")
    x, y = pairs(spec)
    for made in (Mixup(spec, alpha=1.0), CutMix(spec), MixupCutMix(spec, mixup_alpha=1.0)):
        mixed, _ = made(x, y, draws_of())
        own, other = x[:64, 4:], x[64:, 4:]
        assert ((mixed[:, 4:] == own) | (mixed[:, 4:] == other)).all()
        assert (mixed[:, 4:] != own).any()


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_labels_are_mixed_as_inputs_are(kind) -> None:
    """The inputs carry the one-hot labels in every place, so that their means must agree."""
    tail = {"image": (9, 7), "sequence": (23,), "tabular": (1,)}[kind]
    shape = (3 * 60,) if kind == "tabular" else (3, *tail)
    y = torch.arange(128) % 3
    one_hot = F.one_hot(y, 3).float()
    x = one_hot.repeat_interleave(60, 1) if kind == "tabular" else one_hot
    x = x.reshape(128, *shape) if kind == "tabular" else x[(...,) + (None,) * len(tail)]
    x = x.expand(128, *shape)
    spec = spec_of(kind, shape, columns=(), mean=(0.0,) * shape[0], std=(1.0,) * shape[0])
    for made in (Mixup(spec, alpha=1.0), CutMix(spec), MixupCutMix(spec)):
        mixed, soft = made(x, y, draws_of())
        if kind != "tabular" or isinstance(made, Mixup):
            means = mixed.reshape(64, 3, -1).mean(2)
            torch.testing.assert_close(means, soft, atol=1e-5, rtol=0)
        assert torch.allclose(soft.sum(1), torch.ones(64))
        assert ((soft > 0.05) & (soft < 0.95)).any()


def test_regression_targets_are_mixed_alike() -> None:
    spec = spec_of("tabular", (2,), classes=(), targets=("u", "v"), task="regression")
    x = torch.rand(64, 2)
    mixed, y = Mixup(spec, alpha=1.0)(x, x.clone(), draws_of(32))
    assert torch.allclose(mixed, y)
    assert not torch.equal(mixed, x[:32])
    _, cut = CutMix(spec)(x, x.clone(), draws_of(32))
    shares = (cut - x[32:]) / (x[:32] - x[32:])  # of the sample itself, by either target
    assert torch.allclose(shares[:, 0], shares[:, 1], atol=1e-3)
    assert ((shares[:, 0] * 2).round() / 2 - shares[:, 0]).abs().max() < 1e-3  # of two columns


@pytest.mark.parametrize("kind", EVERY)
def test_cutmix_takes_each_place_from_one_or_the_other(kind) -> None:
    spec = spec_of(kind)
    x, y = pairs(spec, 500)
    if kind != "text":
        x = torch.rand(x.shape)  # so that no place is equal in both
    mixed, soft = CutMix(spec)(x, y, draws_of(500))
    own, other = x[:500], x[500:]
    assert ((mixed == own) | (mixed == other)).all()
    weight = soft[torch.arange(500), y[:500]]
    assert torch.allclose(weight + soft[torch.arange(500), y[500:]], torch.ones(500))
    assert weight.min() < 0.1
    assert weight.max() > 0.9
    if kind != "text":
        kept = (mixed == own).flatten(1).float().mean(1)
        torch.testing.assert_close(kept, weight, atol=1e-5, rtol=0)


def test_cutmix_of_images_against_a_loop() -> None:
    spec = spec_of("image", (3, 13, 20))
    x, y = pairs(spec)
    mixed, soft = CutMix(spec, alpha=0.9, p=0.8)(x, y, draws_of())
    draws = draws_of()
    hit = draws.bernoulli(0.8)
    own, centres = BetaTable(0.9)(draws), draws.uniform(2)
    for i in range(64):
        side = (1 - own[i]).sqrt() if hit[i] else torch.tensor(0.0)
        box = []
        for length, at in zip((13, 20), centres[i], strict=True):
            number = int((side * length).round())
            start = int(at * length) - number // 2
            box.append(slice(max(start, 0), min(max(start + number, 0), length)))
        expected = x[i].clone()
        expected[:, box[0], box[1]] = x[64 + i][:, box[0], box[1]]
        assert torch.equal(mixed[i], expected)
        share = (box[0].stop - box[0].start) * (box[1].stop - box[1].start) / (13 * 20)
        labels = np.zeros(3)
        labels[y[i]] += 1 - share
        labels[y[64 + i]] += share
        np.testing.assert_allclose(soft[i], labels, atol=1e-6)


def test_cutmix_of_sequences_and_tables_against_loops() -> None:
    for kind in ("sequence", "tabular"):
        spec = spec_of(kind)
        x, y = pairs(spec)
        mixed, _ = CutMix(spec)(x, y, draws_of())
        draws = draws_of()
        draws.bernoulli(1)
        size, length = 1 - BetaTable(1.0)(draws), x.shape[-1]
        numbers = draws.uniform(length) if kind == "tabular" else draws.uniform()
        for i in range(64):
            expected = x[i].clone()
            if kind == "tabular":
                taken = numbers[i] < size[i]
                expected[taken] = x[64 + i][taken]
            else:
                number = int((size[i] * length).round())
                start = int(numbers[i] * (length - number + 1))
                expected[:, start : start + number] = x[64 + i][:, start : start + number]
            assert torch.equal(mixed[i], expected)


def test_cutmix_of_texts_keeps_padding_and_counts_tokens() -> None:
    spec = spec_of("text")
    x, y = pairs(spec, 500)
    x[500:][x[500:] > 0] += 1000  # tokens of partners can be told apart
    mixed, soft = CutMix(spec)(x, y, draws_of(500))
    assert torch.equal(mixed == 0, x[:500] == 0)
    taken = mixed > 1000
    assert torch.equal(mixed, torch.where(taken, x[500:], x[:500]))
    runs = (taken[:, 1:] & ~taken[:, :-1]).sum(1) + taken[:, 0]
    assert runs.max() == 1
    share = taken.sum(1) / (x[:500] != 0).sum(1)
    torch.testing.assert_close(soft[torch.arange(500), y[500:]], share, atol=1e-6, rtol=0)
    assert 0.3 < share.mean() < 0.5  # short partners have less to give than asked
    aimed = draws_of(500)
    aimed.bernoulli(1)
    own, other = (x[:500] != 0).sum(1), (x[500:] != 0).sum(1)
    number = ((1 - BetaTable(1.0)(aimed)) * own).round()
    assert torch.equal(taken.sum(1).float(), torch.minimum(number, other.float()))


def test_empty_texts_are_left_as_they_are() -> None:
    spec = spec_of("text")
    x = torch.zeros(4, 5, dtype=torch.long)
    x[2:] = 3
    mixed, soft = CutMix(spec)(x, torch.tensor([0, 1, 2, 2]), draws_of(2))
    assert torch.equal(mixed, x[:2])
    assert torch.equal(soft, F.one_hot(torch.tensor([0, 1]), 3).float())


@pytest.mark.parametrize("kind", EVERY)
def test_nothing_is_mixed_at_p_zero(kind) -> None:
    spec = spec_of(kind)
    x, y = pairs(spec)
    kinds = [CutMix] if kind == "text" else [CutMix, Mixup, MixupCutMix]
    for made in kinds:
        mixed, soft = made(spec, p=0)(x, y, draws_of())
        assert torch.equal(mixed, x[:64])
        assert torch.equal(soft, F.one_hot(y[:64], 3).float())


def test_the_switch() -> None:
    spec = spec_of("image")
    x, y = pairs(spec, 500)
    settings = {"mixup_alpha": 1.0, "cutmix_alpha": 1.0}

    def cut(switch: float) -> torch.Tensor:
        """Which samples were cut, not blended: every pixel is one of the two."""
        mixed, _ = MixupCutMix(spec, **settings, switch=switch)(x, y, draws_of(500))
        return ((mixed == x[:500]) | (mixed == x[500:])).flatten(1).all(1)

    assert cut(1).all()
    assert not cut(0).any()
    assert cut(0.3).float().mean() == pytest.approx(0.3, abs=0.09)


def test_soft_labels_may_come_in() -> None:
    spec = spec_of("image")
    x, y = pairs(spec)
    once = Mixup(spec)(x, y, draws_of())
    soft = Mixup(spec)(x, F.one_hot(y, 3).float(), draws_of())
    assert torch.equal(once[1], soft[1])


def test_what_cannot_be_mixed_is_refused() -> None:
    for made in (Mixup, MixupCutMix):
        with pytest.raises(
            ValueError, match="is text; token ids cannot be averaged: use augment=cutmix"
        ):
            made(spec_of("text"))
    text = spec_of("text", task="language_model", classes=())
    with pytest.raises(ValueError, match="CutMix mixes labels, and the targets of 'made' are"):
        CutMix(text)
