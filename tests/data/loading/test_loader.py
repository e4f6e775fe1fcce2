import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from litlab.data.loading import BatchLoader, Split, of_values


def make_loader(number: int = 20, size: int = 6, **settings) -> BatchLoader:
    x = torch.arange(number)
    return BatchLoader(Split(x, x * 10, x), batch_size=size, **settings)


def epoch(loader: BatchLoader, number: int = 0) -> list[list[int]]:
    loader.sampler.set_epoch(number)
    batches = []
    for x, y, index, *share in loader:
        assert torch.equal(y, x * 10)
        assert torch.equal(index, x)
        assert all(own in (0, len(x)) for own, _ in share)
        batches.append([] if share and share[0][0] == 0 else x.tolist())  # else a stand-in
    return batches


def flat(batches: list[list[int]]) -> list[int]:
    return [sample for batch in batches for sample in batch]


@given(
    number=st.integers(0, 50),
    size=st.integers(1, 20),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    seed=st.integers(0, 2**40),
    at=st.integers(0, 5),
)
def test_an_epoch_visits_each_sample_once(number, size, shuffle, drop_last, seed, at) -> None:
    loader = make_loader(number, size, shuffle=shuffle, drop_last=drop_last, seed=seed)
    batches = epoch(loader, at)
    assert len(batches) == len(loader)
    visited = flat(batches)
    assert len(set(visited)) == len(visited)
    if drop_last:
        assert [len(batch) for batch in batches] == [size] * (number // size)
    else:
        assert sorted(visited) == list(range(number))
    if not shuffle:
        assert visited == list(range(len(visited)))


def test_as_pytorch_cuts_batches() -> None:
    """The same number of batches of the same sizes as torch's own DataLoader."""
    for drop_last in (False, True):
        theirs = torch.utils.data.DataLoader(range(20), batch_size=6, drop_last=drop_last)
        ours = make_loader(drop_last=drop_last)
        assert epoch(ours) == [batch.tolist() for batch in theirs]
        assert len(ours) == len(theirs)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    orders = {}
    for seed in range(4):
        loader = make_loader(40, shuffle=True, seed=seed)
        for number in range(4):
            torch.manual_seed(number)  # the global generator has no say
            orders[seed, number] = tuple(flat(epoch(loader, number)))
        # Whatever came before: as after resuming.
        assert tuple(flat(epoch(make_loader(40, shuffle=True, seed=seed), 3))) == orders[seed, 3]
        assert tuple(flat(epoch(loader, 1))) == orders[seed, 1]
    assert len(set(orders.values())) == 16


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    epoch(make_loader(shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


@given(
    world=st.integers(1, 3),
    number=st.integers(1, 40),
    drop_last=st.booleans(),
    size=st.integers(1, 12),
)
def test_the_processes_shares_make_up_the_global_batch(world, number, drop_last, size) -> None:
    settings = {"shuffle": True, "drop_last": drop_last, "seed": 5}
    whole = epoch(make_loader(number, size, **settings), 2)
    shares = [
        epoch(make_loader(number, size, rank=rank, world=world, **settings), 2)
        for rank in range(world)
    ]
    assert {len(share) for share in shares} == {len(whole)}  # or the processes would wait forever
    for place, batch in enumerate(whole):
        parts = [share[place] for share in shares]
        assert sorted(flat(parts)) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("shape", [(3, 4, 4), (7,)])
def test_batches_are_copies(shape) -> None:
    x = torch.rand(5, *shape)
    loader = BatchLoader(Split(x, torch.arange(5), torch.arange(5)), batch_size=5)
    batch, *_ = next(iter(loader))
    batch.zero_()
    assert x.all()


def test_texts_share_a_batch_with_those_of_like_length() -> None:
    lengths = [1 + (7 * i) % 30 for i in range(60)]
    loader = BatchLoader(of_values([[i % 9 + 1] * n for i, n in enumerate(lengths)]), batch_size=6)
    seen = []
    for x, _, index in loader:
        own = [lengths[i] for i in index.tolist()]
        assert x.shape == (6, max(own))
        assert (x > 0).sum(1).tolist() == own
        assert max(own) - min(own) <= 3  # sorted, 60 texts of 30 lengths
        seen += index.tolist()
    assert sorted(seen) == list(range(60))


@given(world=st.integers(1, 3), number=st.integers(2, 30), seed=st.integers(0, 9))
def test_a_samples_partner_is_its_own_whatever_the_batch(world, number, seed) -> None:
    def partners(size: int, rank: int = 0, world: int = 1) -> dict[int, int]:
        loader = make_loader(
            number, size, shuffle=True, seed=seed, partners=True, rank=rank, world=world
        )
        loader.sampler.set_epoch(3)
        found = {}
        for x, _, index, *_ in loader:
            assert torch.equal(x, index)
            first, second = index.chunk(2)
            found |= dict(zip(first.tolist(), second.tolist(), strict=True))
        return found

    whole = partners(number)
    assert sorted(whole) == list(range(number))
    assert set(whole.values()) <= set(whole)
    assert partners(2) == whole
    shares = [partners(4, rank, world) for rank in range(world)]
    assert {k: v for share in shares for k, v in share.items()} == whole
