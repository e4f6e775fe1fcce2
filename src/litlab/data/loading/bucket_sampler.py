"""The order of batches for texts of uneven length: neighbours in length share a batch."""

import math
from collections.abc import Iterable, Iterator

import torch


class BucketSampler:
    """Batches of samples of like length, so that little of a batch is padding.

    Shuffled, an epoch's order is cut into pools of `pool` batches; within a pool the samples are
    sorted by length and cut into batches, whose order is then shuffled. What shares a batch thus
    changes from epoch to epoch: it is a function of (seed, epoch) and no more. Not shuffled, all
    samples are sorted by length, shortest first.

    Lightning calls `set_epoch` before each epoch, on resuming too.

    Args:
        lengths: Number of tokens of each sample `(N,)`.
        batch_size: Samples in a batch, over all processes together.
        shuffle: Whether each epoch has an order of its own.
        seed: Of the order.
        drop_last: Whether what fills no batch is left out: the last samples of the shuffled order,
            or of the data where nothing is shuffled, as a plain loader does.
        pool: How many batches are sorted together. More give less padding, and less chance in what
            shares a batch.
    """

    def __init__(
        self,
        lengths: torch.Tensor,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        drop_last: bool = False,
        pool: int = 50,
    ) -> None:
        self.lengths, self.batch_size, self.pool = lengths, batch_size, pool
        self.shuffle, self.seed, self.drop_last, self.epoch = shuffle, seed, drop_last, 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        rounded = math.floor if self.drop_last else math.ceil
        return rounded(len(self.lengths) / self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Give each global batch's sample numbers `(B,)`, int64."""
        number = len(self.lengths)
        full = number // self.batch_size * self.batch_size
        if not self.shuffle:
            kept = torch.arange(full if self.drop_last else number)
            yield from self._by_length(kept)
            return
        generator = epoch_generator(self.seed, self.epoch)
        order = torch.randperm(number, generator=generator)
        # The odd batch is cut off before sorting: were it always that of the longest texts, each
        # of them would weigh more than another text in every epoch.
        rest = [] if self.drop_last or full == number else [order[full:]]
        pools = torch.split(order[:full], self.batch_size * self.pool)
        batches = [batch for part in pools for batch in self._by_length(part)] + rest
        for place in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[place]

    def _by_length(self, samples: torch.Tensor) -> Iterator[torch.Tensor]:
        """Sort samples by length, equal ones in the order they came in, and cut into batches."""
        if len(samples):
            by_length = torch.argsort(self.lengths[samples], stable=True)
            yield from torch.split(samples[by_length], self.batch_size)


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Return the generator of an epoch's order.

    Both numbers, mixed: seed 0 in epoch 1 is not seed 1 in epoch 0.
    """
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + epoch) % 2**63)


def padding_share(lengths: torch.Tensor, batches: Iterable[torch.Tensor]) -> float:
    """Return which share of the positions is padding, each batch being as long as its longest."""
    tokens = positions = 0
    for batch in batches:
        own = lengths[batch]
        tokens += int(own.sum())
        positions += int(own.max()) * len(own) if len(own) else 0
    return 1 - tokens / positions if positions else 0.0
