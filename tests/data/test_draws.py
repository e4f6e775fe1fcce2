"""Keyed random numbers: good enough to pass tests of randomness, and keyed by what they should."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from litlab.data.augment import draws as bits
from litlab.data.augment.draws import Draws

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix64(z: int) -> int:
    """splitmix64's output function, written down once more in unbounded integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def mix32(w: int) -> int:
    w = ((w ^ (w >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
    w = ((w ^ (w >> 15)) * 0xD35A2D97) & 0xFFFFFFFF
    return w ^ (w >> 15)


def words(made: Draws, *shape: int) -> np.ndarray:
    """The bits behind the numbers, `(B, number)`."""
    return made._words(shape, 32).numpy().view(np.uint32)


def slow_words(seed: int, epoch: int, index: int, *shape: int) -> list[int]:
    """The bits of the first call, without a stream's name."""
    base = mix64((mix64(seed & MASK) + (epoch + 2) * GOLDEN) & MASK)
    key = mix64((mix64((index * GOLDEN + base) & MASK) + mix64(GOLDEN)) & MASK)
    low, high = key & 0xFFFFFFFF, key >> 32
    if not shape:
        return [high]
    return [mix32(mix32((i * 0x9E3779B9 + low) & 0xFFFFFFFF) ^ high) for i in range(*shape)]


def draws(number: int = 20_000, seed: int = 0, epoch: int = 0, start: int = 0) -> Draws:
    return Draws(seed, epoch, torch.arange(start, start + number))


def test_the_mixer_is_splitmix64() -> None:
    """The generator's first outputs from state 1234567, as its authors' C code prints them."""
    first = [mix64((1234567 + (i + 1) * GOLDEN) & MASK) for i in range(3)]
    assert first == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 + 5, -1])
@pytest.mark.parametrize("epoch", [0, 7])
def test_words_against_unbounded_integers(seed, epoch) -> None:
    index = torch.tensor([0, 1, 2, 59_999, 2**40])
    for shape in ((), (5,)):
        got = words(Draws(seed, epoch, index), *shape)
        expected = [slow_words(seed, epoch, i, *shape) for i in index.tolist()]
        np.testing.assert_array_equal(got, expected)


def test_numbers_stay_what_they_are() -> None:
    """A change of these changes every run ever recorded."""
    made = draws(3, seed=42, epoch=1).stream("flip")
    assert made.integers(0, 1000).tolist() == [732, 397, 863]


def variants(number: int = 20_000) -> dict[str, torch.Tensor]:
    """Uniform numbers of neighbouring keys, each of which should look unrelated."""
    base = draws(number)
    found = {
        "first call": (one := draws(number)).uniform(),
        "second call": one.uniform(),
        "next samples": draws(number, start=1).uniform(),
        "next seed": draws(number, seed=1).uniform(),
        "next epoch": draws(number, epoch=1).uniform(),
        "stream": base.stream("a").uniform(),
        "other stream": base.stream("b").uniform(),
        "inner stream": base.stream("a").stream("b").uniform(),
        "lasting": base.lasting().uniform(),
    }
    elements = draws(number).uniform(4)
    return found | {f"element {i}": elements[:, i] for i in range(1, 4)}


@pytest.mark.parametrize("name", variants(2))
def test_uniform_and_uncorrelated_with_the_next_sample(name) -> None:
    u = variants()[name].double().numpy()
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    for lag in (1, 2, 3, 64):
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 4 / np.sqrt(len(u))
    pairs = np.histogram2d(u[:-1], u[1:], bins=16, range=[[0, 1]] * 2)[0]
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-4


def test_keys_give_unrelated_numbers() -> None:
    found = variants()
    for one, other in itertools.combinations(found, 2):
        a, b = found[one].double().numpy(), found[other].double().numpy()
        assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / np.sqrt(len(a)), (one, other)
        pairs = np.histogram2d(a, b, bins=8, range=[[0, 1]] * 2)[0]
        assert stats.chisquare(pairs.ravel()).pvalue > 1e-5, (one, other)


def test_elements_of_a_sample_are_unrelated() -> None:
    u = draws(64).uniform(3072).double().numpy()
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-4
    among = np.corrcoef(u) - np.eye(64)  # between samples
    assert np.abs(among).max() < 5 / np.sqrt(u.shape[1])
    for lag in (1, 2, 32, 1024):
        assert abs(np.corrcoef(u[:, :-lag].ravel(), u[:, lag:].ravel())[0, 1]) < 4 / np.sqrt(u.size)


def test_each_bit_is_fair() -> None:
    made = words(draws(200), 1000).ravel()
    ones = np.array([((made >> bit) & 1).mean() for bit in range(32)])
    assert np.abs(ones - 0.5).max() < 4.5 * 0.5 / np.sqrt(len(made))


@pytest.mark.parametrize("shape", [(), (2,)])
def test_one_bit_of_the_key_changes_half_of_the_bits(shape) -> None:
    base = words(draws(2000), *shape)
    others = {
        "seed": draws(2000, seed=1),
        "epoch": draws(2000, epoch=1),
        "sample": Draws(0, 0, torch.arange(2000) ^ 1),
        "sample, high": Draws(0, 0, torch.arange(2000) ^ 2**31),
    }
    for name, other in others.items():
        changed = np.unpackbits((base ^ words(other, *shape)).view(np.uint8))
        assert changed.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(changed.size)), name


def test_normal_numbers() -> None:
    z = draws(2000).normal(51).double().numpy()  # an odd number of them
    assert z.shape == (2000, 51)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-4
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / z.size)
    assert abs(stats.skew(z.ravel())) < 4 * np.sqrt(6 / z.size)
    assert abs(stats.kurtosis(z.ravel())) < 4 * np.sqrt(24 / z.size)
    assert np.abs(np.corrcoef(z.T) - np.eye(51)).max() < 5 / np.sqrt(2000)
    assert np.isfinite(z).all()
    assert draws(5).normal().shape == (5,)


@pytest.mark.parametrize(("low", "high"), [(0, 2), (-4, 5), (0, 1000), (3, 4)])
def test_integers_cover_their_range_evenly(low, high) -> None:
    n = draws(50_000).integers(low, high)
    assert n.dtype == torch.int64
    assert n.shape == (50_000,)
    counts = np.bincount(n.numpy() - low, minlength=high - low)
    assert len(counts) == high - low
    assert (counts > 0).all()
    assert high - low == 1 or stats.chisquare(counts).pvalue > 1e-4


def test_the_largest_range() -> None:
    n = draws(4000).integers(-5, 2**31 - 5, 3)
    assert n.shape == (4000, 3)
    assert n.min() >= -5
    assert n.max() < 2**31 - 5
    assert stats.kstest((n.double().numpy().ravel() + 5) / 2**31, "uniform").pvalue > 1e-4


def test_bernoulli_at_both_ends_and_between() -> None:
    assert not draws().bernoulli(0).any()
    assert draws().bernoulli(1).all()
    hits = draws().bernoulli(0.3).double().mean()
    assert hits == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 20_000))


def test_range_and_shape_of_uniform() -> None:
    u = draws(300).uniform(2, 3, low=-2, high=5)
    assert u.shape == (300, 2, 3)
    assert u.dtype == torch.float32
    assert -2 <= u.min() < -1.9
    assert 4.9 < u.max() < 5
    assert draws(4).uniform(0).shape == (4, 0)
    assert Draws(0, 0, torch.arange(0)).normal(3).shape == (0, 3)
    assert Draws(0, 0, torch.arange(0)).integers(0, 5, 2).shape == (0, 2)


def everything(made: Draws) -> list[torch.Tensor]:
    """One call of each, on streams and after one another."""
    inner = made.stream("inner")
    return [
        made.uniform(),
        made.uniform(3, 2),
        made.normal(5),
        inner.integers(0, 10, 2),
        made.bernoulli(0.5),
        inner.lasting().uniform(),
        made.uniform(),
    ]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 2**40), min_size=2, max_size=40),
    st.integers(0, 2**32),
    st.integers(0, 1000),
    st.data(),
)
def test_the_batch_does_not_matter(index, seed, epoch, data) -> None:
    index = torch.tensor(index)
    whole = everything(Draws(seed, epoch, index))
    order = torch.tensor(data.draw(st.permutations(range(len(index)))))
    cut = data.draw(st.integers(0, len(index)))
    shuffled = everything(Draws(seed, epoch, index[order]))
    parts = zip(
        everything(Draws(seed, epoch, index[:cut])),
        everything(Draws(seed, epoch, index[cut:])),
        strict=True,
    )
    for a, b, (c, d) in zip(whole, shuffled, parts, strict=True):
        assert torch.equal(a[order], b)
        assert torch.equal(a, torch.cat([c, d]))
    for a, b in zip(whole, everything(Draws(seed, epoch, index).first(cut)), strict=True):
        assert torch.equal(a[:cut], b)


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    for number in (1, 2, 5):
        assert torch.equal(draws(9).uniform(number), draws(9).uniform(8)[:, :number])
        shorter = draws(9).integers(0, 10, number)
        assert torch.equal(shorter, draws(9).integers(0, 10, 8)[:, :number])


def test_large_draws_are_cut_where_it_does_not_show() -> None:
    whole = draws(40).uniform(3 * 2**14)
    parts = [draws(1, start=i).uniform(3 * 2**14) for i in range(40)]
    assert torch.equal(whole, torch.cat(parts))
    assert draws(3).normal(2**17 + 1).shape == (3, 2**17 + 1)  # one sample is more than a piece


def test_torchs_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = everything(draws(10))
    torch.manual_seed(1)
    again = everything(draws(10))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    torch.manual_seed(0)
    everything(draws(10))
    assert torch.equal(torch.get_rng_state(), before)


def test_streams_do_not_depend_on_what_was_drawn_before() -> None:
    used, fresh = draws(50), draws(50)
    used.uniform(7)
    assert torch.equal(used.stream("a").uniform(), fresh.stream("a").uniform())
    assert not torch.equal(used.stream("a").uniform(), fresh.stream("b").uniform())
    inner, outer = fresh.stream("a").stream("b"), fresh.stream("b").stream("a")
    assert not torch.equal(inner.uniform(), outer.uniform())


def test_lasting_draws_forget_the_epoch_and_nothing_else() -> None:
    one, later = draws(50, epoch=0).stream("a"), draws(50, epoch=9).stream("a")
    assert torch.equal(one.lasting().uniform(), later.lasting().uniform())
    assert not torch.equal(one.uniform(), later.uniform())
    assert (one.lasting().epoch, later.lasting().epoch) == (0, 9)
    others = [draws(50).stream("b"), draws(50, seed=1).stream("a"), draws(50, start=1).stream("a")]
    for other in others:
        assert not torch.equal(one.lasting().uniform(), other.lasting().uniform())


def test_the_index_is_left_as_it_was() -> None:
    index = torch.arange(5)
    everything(Draws(3, 2, index))
    assert index.tolist() == [0, 1, 2, 3, 4]
    as_int32 = Draws(3, 2, index.int())
    assert torch.equal(as_int32.uniform(), Draws(3, 2, index).uniform())


@pytest.mark.parametrize("number", [None, 1, 7, 3000])
@pytest.mark.parametrize("keep", [24, 32])
def test_torch_makes_the_same_bits_as_numpy(monkeypatch, number, keep) -> None:
    """A GPU's numbers are made by torch, the CPU's by NumPy."""
    index = torch.tensor([0, 1, 77, 2**40, 5])
    keys = bits.sample_keys(index, 2**64 - 3)
    expected = bits.words(keys, 2**63 + 11, number, keep)
    signed = torch.from_numpy(keys.view(np.int64))
    assert torch.equal(bits.words(signed, 2**63 + 11, number, keep), expected)
    monkeypatch.setattr(torch.Tensor, "device", torch.device("meta"))
    assert torch.equal(bits.sample_keys(index, 2**64 - 3), signed)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_draws_the_same() -> None:
    index = torch.arange(500)
    here, there = everything(Draws(1, 2, index)), everything(Draws(1, 2, index.cuda()))
    for a, b in zip(here, there, strict=True):
        assert b.is_cuda
        assert torch.allclose(a.double(), b.cpu().double(), atol=1e-6)
