import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from litlab.data.loading import BucketSampler, padding_share


def epoch(order: BucketSampler, number: int = 0) -> list[list[int]]:
    order.set_epoch(number)
    return [batch.tolist() for batch in order]


def uneven(number: int = 2000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(number, generator=generator) ** 3 * 60).long() + 1


LENGTHS = st.lists(st.integers(0, 40), max_size=60)


@given(
    lengths=LENGTHS,
    size=st.integers(1, 20),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    seed=st.integers(0, 2**40),
    at=st.integers(0, 5),
    pool=st.integers(1, 5),
)
def test_an_epoch_visits_each_sample_once(lengths, size, shuffle, drop_last, seed, at, pool):
    order = BucketSampler(
        torch.tensor(lengths, dtype=torch.int32),
        size,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        pool=pool,
    )
    batches = epoch(order, at)
    assert len(batches) == len(order)
    visited = [sample for batch in batches for sample in batch]
    assert len(set(visited)) == len(visited)
    number = len(lengths)
    theirs = torch.utils.data.DataLoader(range(number), batch_size=size, drop_last=drop_last)
    assert sorted(map(len, batches)) == sorted(map(len, theirs))
    if drop_last:
        assert len(visited) == number // size * size
    else:
        assert sorted(visited) == list(range(number))


@given(lengths=LENGTHS, size=st.integers(1, 9), drop_last=st.booleans())
def test_unshuffled_it_goes_from_short_to_long(lengths, size, drop_last) -> None:
    order = BucketSampler(torch.tensor(lengths), size, shuffle=False, drop_last=drop_last)
    visited = [sample for batch in order for sample in batch.tolist()]
    kept = len(lengths) // size * size if drop_last else len(lengths)
    assert visited == sorted(range(kept), key=lambda i: lengths[i])  # Python's sort is stable


@given(lengths=LENGTHS, size=st.integers(1, 9), at=st.integers(0, 3))
def test_padding_share_counts_what_padding_adds(lengths, size, at) -> None:
    tensor = torch.tensor(lengths, dtype=torch.int64)
    batches = epoch(BucketSampler(tensor, size, shuffle=True), at)
    texts = [[torch.ones(lengths[i]) for i in batch] for batch in batches]
    padded = [torch.nn.utils.rnn.pad_sequence(batch, batch_first=True) for batch in texts]
    positions = sum(batch.numel() for batch in padded)
    padding = sum(int((batch == 0).sum()) for batch in padded)
    share = padding_share(tensor, [torch.tensor(batch) for batch in batches])
    assert share == pytest.approx(padding / positions if positions else 0)


def test_little_is_padding() -> None:
    lengths = uneven()
    plain = padding_share(lengths, torch.arange(2000).split(16))
    shuffled = padding_share(lengths, BucketSampler(lengths, 16, shuffle=True))
    ordered = padding_share(lengths, BucketSampler(lengths, 16, shuffle=False))
    assert plain > 0.6
    assert shuffled < 0.1
    assert ordered < 0.02


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    orders, lengths = {}, uneven(200)
    for seed in range(4):
        order = BucketSampler(lengths, 8, shuffle=True, seed=seed, pool=5)
        for number in range(4):
            torch.manual_seed(number)  # the global generator has no say
            orders[seed, number] = str(epoch(order, number))
        fresh = BucketSampler(lengths, 8, shuffle=True, seed=seed, pool=5)
        assert str(epoch(fresh, 3)) == orders[seed, 3]  # as after resuming
        assert str(epoch(order, 1)) == orders[seed, 1]
    assert len(set(orders.values())) == 16


def test_epochs_differ_in_what_shares_a_batch_and_in_the_order_of_lengths() -> None:
    order = BucketSampler(uneven(), 16, shuffle=True)
    first, second = epoch(order, 0), epoch(order, 1)
    assert not {frozenset(batch) for batch in first} & {frozenset(batch) for batch in second}
    longest = [int(order.lengths[batch].max()) for batch in first]
    assert longest != sorted(longest)


def test_long_texts_are_not_always_in_the_odd_batch() -> None:
    lengths = torch.arange(21)
    order = BucketSampler(lengths, 8, shuffle=True)
    odd = [batch for number in range(20) for batch in epoch(order, number) if len(batch) < 8]
    assert len(odd) == 20
    assert len({sample for batch in odd for sample in batch}) > 15


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    epoch(BucketSampler(uneven(50), 4, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)
