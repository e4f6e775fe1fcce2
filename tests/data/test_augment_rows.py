"""Sequences, tables and texts, each against a loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litlab.data.augment.base import mask_id
from litlab.data.augment.feature_dropout import FeatureDropout
from litlab.data.augment.scale import Scale
from litlab.data.augment.shift import Shift
from litlab.data.augment.span_mask import SpanMask
from litlab.data.augment.time_mask import TimeMask
from litlab.data.augment.token_dropout import TokenDropout
from litlab.data.augment.token_swap import TokenSwap
from made_augment import change, draws_of, samples, spec_of


@pytest.mark.parametrize("steps", [1, 4, 30])
def test_shift_is_a_roll_of_each_sequence(steps) -> None:
    spec = spec_of("sequence", (2, 11))
    x = samples(spec)
    by = draws_of().integers(-steps, steps + 1, 1, 1).flatten().tolist()
    wrapped = change(Shift(spec, steps=steps), x)
    cut = change(Shift(spec, steps=steps, wrap=False), x)
    for sample, amount, rolled, shifted in zip(x.numpy(), by, wrapped, cut, strict=True):
        expected = np.roll(sample, amount, axis=1)
        np.testing.assert_array_equal(rolled, expected)
        if amount >= 0:
            expected[:, :amount] = 0
        else:
            expected[:, amount:] = 0
        np.testing.assert_array_equal(shifted, expected)
    assert {-1, 1} <= set(np.sign(by).tolist())


def test_scale_multiplies_each_sequence_by_one_factor() -> None:
    spec = spec_of("sequence", (2, 7))
    x = samples(spec, 500) + 1
    factors = change(Scale(spec, amount=0.3), x) / x
    assert torch.allclose(factors, factors[:, :1, :1].expand_as(factors))
    assert torch.allclose(factors[:, 0, 0], draws_of(500).uniform(1, low=0.7, high=1.3)[:, 0])
    assert 0.7 <= factors.min() < 0.75
    assert 1.25 < factors.max() <= 1.3 + 1e-6
    assert torch.equal(change(Scale(spec, amount=0), x), x)


def test_time_mask_against_a_loop() -> None:
    spec = spec_of("sequence", (2, 30))
    x = samples(spec, 300)
    out = change(TimeMask(spec, share=0.4, p=0.8), x)
    draws = draws_of(300)
    hit, number, at = draws.bernoulli(0.8), draws.integers(0, 13), draws.uniform()
    for i in range(300):
        expected, size = x[i].clone(), int(number[i] * hit[i])
        start = int(at[i] * (30 - size + 1))
        expected[:, start : start + size] = torch.tensor(spec.mean)[:, None]
        assert torch.equal(out[i], expected)
    assert torch.equal(change(TimeMask(spec, p=0), x), x)
    assert torch.equal(change(TimeMask(spec, share=0), x), x)


def test_feature_dropout_against_a_loop() -> None:
    spec = spec_of("tabular")
    x = samples(spec, 400) + 1
    out = change(FeatureDropout(spec, p=0.3), x)
    hidden = draws_of(400).uniform(6) < 0.3
    for row, gone, got in zip(x.tolist(), hidden.tolist(), out.tolist(), strict=True):
        unknown = [*spec.mean[:4], 0.0, 0.0]  # a train mean, or the code of a value not seen
        expected = [u if g else v for v, g, u in zip(row, gone, unknown, strict=True)]
        assert got == pytest.approx(expected)
    assert hidden.float().mean() == pytest.approx(0.3, abs=0.04)


def test_feature_dropout_at_both_ends() -> None:
    spec = spec_of("tabular")
    x = samples(spec)
    assert torch.equal(change(FeatureDropout(spec, p=0), x), x)
    nothing = torch.tensor([*spec.mean[:4], 0.0, 0.0]).expand_as(x)
    assert torch.equal(change(FeatureDropout(spec, p=1), x), nothing)
    plain = spec_of("tabular", (2,))  # no categorical column
    out = change(FeatureDropout(plain, p=1), samples(plain))
    assert torch.allclose(out, torch.tensor(plain.mean).expand_as(out))


def texts(number: int = 300) -> torch.Tensor:
    return samples(spec_of("text"), number)


def words(row: torch.Tensor) -> list[int]:
    """A text without its padding, which must all be at the end."""
    kept = row.tolist()
    while kept and kept[-1] == 0:
        kept.pop()
    assert 0 not in kept
    return kept


def test_token_dropout_against_a_loop() -> None:
    x = texts()
    out = change(TokenDropout(spec_of("text"), p=0.4), x)
    assert out.shape == x.shape
    for row, luck, got in zip(x, draws_of(300).uniform(15).tolist(), out, strict=True):
        before = words(row)
        luck = luck[: len(before)]
        kept = [w for w, u in zip(before, luck, strict=True) if u >= 0.4]
        assert words(got) == (kept or [before[int(np.argmax(luck))]])


def test_token_dropout_never_empties_a_text() -> None:
    x = texts()
    out = change(TokenDropout(spec_of("text"), p=1), x)
    assert ((out != 0).sum(1) == 1).all()
    assert torch.equal(change(TokenDropout(spec_of("text"), p=0), x), x)


def test_token_swap_against_a_loop() -> None:
    x = texts()
    out = change(TokenSwap(spec_of("text"), share=0.3), x)
    draws = draws_of(300)
    luck, places = draws.uniform().tolist(), draws.uniform(10).tolist()
    for row, more, at, got in zip(x, luck, places, out, strict=True):
        expected = words(row)
        for i in range(int(0.3 * len(expected) + more)):
            one, other = (int(u * len(expected)) for u in at[2 * i : 2 * i + 2])
            expected[one], expected[other] = expected[other], expected[one]
        assert words(got) == expected
    assert torch.equal(change(TokenSwap(spec_of("text"), share=0), x), x)


def test_span_mask_against_a_loop() -> None:
    spec = spec_of("text", vocabulary=("<pad>", "a", "b", "<mask>", "<unk>", "c"))
    x = torch.where(texts() > 0, 1 + (texts() > 3), 0)
    out = change(SpanMask(spec, share=0.4, p=0.6), x)
    draws = draws_of(300)
    hit, at = draws.bernoulli(0.6).tolist(), draws.uniform().tolist()
    for row, masked, u, got in zip(x, hit, at, out, strict=True):
        expected = words(row)
        length = len(expected)
        number = min(max(round(0.4 * length), 1), length - 1) if masked else 0
        start = int(u * (length - number + 1))
        expected[start : start + number] = [3] * number
        assert words(got) == expected


def test_span_mask_at_both_ends() -> None:
    spec = spec_of("text", vocabulary=("<pad>", "<unk>", "a", "b", "c", "d"))
    x = texts().clamp(max=5)
    x = torch.where(x == 1, 2, x)
    assert torch.equal(change(SpanMask(spec, p=0), x), x)
    out = change(SpanMask(spec, share=1, p=1), x)
    length = (x != 0).sum(1)
    assert torch.equal((out == 1).sum(1), length - 1)  # one token stays
    assert torch.equal(change(SpanMask(spec, share=0, p=1), x) == 1, out == 1) is False


def test_without_a_mask_any_token_stands_in() -> None:
    spec = spec_of("text", pad_id=3)
    assert mask_id(spec) is None
    x = torch.full((4000, 15), 1)
    x[:, 10:] = 3
    out = change(SpanMask(spec, share=0.9, p=1), x)
    assert torch.equal(out == 3, x == 3)
    found = torch.bincount(out[:, :10].flatten(), minlength=6)
    assert found[3] == 0
    others = found[[0, 2, 4, 5]].float()  # 1 is what stayed, too
    assert (others / others.mean() - 1).abs().max() < 0.1


def test_the_id_of_a_hidden_token() -> None:
    assert mask_id(spec_of("text", vocabulary=("<pad>", "<unk>", "<mask>"))) == 2
    assert mask_id(spec_of("text", vocabulary=("<pad>", "a", "<unk>"))) == 2
    assert mask_id(spec_of("text", vocabulary=("<pad>", "<unk>", "a"))) == 1
    assert mask_id(spec_of("text", vocabulary=(), tokenizer="{}")) == 2
    assert mask_id(spec_of("text", vocabulary=("<pad>", "a"))) is None


MADE = [TokenDropout, TokenSwap, SpanMask]


@pytest.mark.parametrize("made", MADE)
def test_empty_texts_and_texts_of_a_token_stay(made) -> None:
    spec = spec_of("text")
    x = torch.zeros(200, 6, dtype=torch.long)
    x[100:, 0] = 2
    first = {"p": 1.0} if made is not TokenSwap else {"share": 1.0}
    assert torch.equal(change(made(spec, **first), x), x)
    assert torch.equal(change(made(spec, **first), x[:, :1]), x[:, :1])


@pytest.mark.parametrize("made", MADE)
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 12), st.floats(0, 1), st.integers(0, 1000))
def test_more_padding_changes_nothing(made, extra, amount, seed) -> None:
    """The batch that a text is in decides how far it is padded, and must not decide its change."""
    spec, x = spec_of("text"), texts(30)
    augment = made(spec, **({"share": amount} if made is TokenSwap else {"p": amount}))
    wide = torch.cat([x, torch.zeros(30, extra, dtype=torch.long)], 1)
    out, other = change(augment, x, seed=seed), change(augment, wide, seed=seed)
    assert torch.equal(out, other[:, :15])
    assert (other[:, 15:] == 0).all()
    if made is TokenSwap:
        assert torch.equal(out.sort(1).values, x.sort(1).values)
    if made is not TokenDropout:
        assert torch.equal(out == 0, x == 0)


@pytest.mark.parametrize("made", MADE)
def test_a_language_model_keeps_its_texts(made) -> None:
    spec = spec_of("text", task="language_model", classes=())
    with pytest.raises(ValueError, match=f"{made.__name__} changes texts.*use dropout instead"):
        made(spec)
