import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from litlab.data.augment.draws import Draws
from litlab.data.loading.arrays import Split
from litlab.data.loading.bucket_sampler import BucketSampler, epoch_generator

# Inputs, targets, sample numbers. One of several processes is given its share as well, `(own,
# all)`: how many samples of the batch are its own, and how many all processes have.
Indexed = tuple[Any, ...]


class EpochOrder:
    """The batches of an epoch, as sample numbers: a function of (seed, epoch) only.

    Lightning calls `set_epoch` before each epoch, on resuming too.
    """

    def __init__(
        self, num_samples: int, batch_size: int, *, shuffle: bool, seed: int, drop_last: bool
    ) -> None:
        self.num_samples, self.batch_size, self.drop_last = num_samples, batch_size, drop_last
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        rounded = math.floor if self.drop_last else math.ceil
        return rounded(self.num_samples / self.batch_size)

    def indices(self) -> torch.Tensor:
        """Return this epoch's sample numbers `(N,)`."""
        if not self.shuffle:
            return torch.arange(self.num_samples)
        return torch.randperm(self.num_samples, generator=epoch_generator(self.seed, self.epoch))

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Give each global batch's sample numbers `(B,)`."""
        yield from torch.split(self.indices(), self.batch_size)[: len(self)]


class FirstEpoch:
    """An order whose every epoch is the first."""

    def __init__(self, order: EpochOrder | BucketSampler) -> None:
        self.order, self.epoch = order, 0

    def set_epoch(self, epoch: int) -> None:
        """Keep the epoch, whatever Lightning sets."""

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.order)


class BatchLoader:
    """Serves whole batches by index from arrays in memory, without work per sample.

    Several processes each take every `world`-th sample of every global batch, so `batch_size` and
    what is in a batch do not depend on their number. One that is left without a sample is served
    the batch's first as a stand-in, its share being 0 samples: all must take every step together.
    Texts of uneven length share a batch with those of like length.

    Args:
        split: The arrays.
        batch_size: Samples in a batch, over all processes together.
        shuffle: Whether each epoch has an order of its own.
        drop_last: Whether a last batch that is not full is left out.
        seed: Of the order.
        rank: This process.
        world: How many processes there are.
        partners: Whether every sample brings another one to be mixed with: batches then have `2B`
            rows, the partners last. A sample's partner depends on (seed, epoch, its number) alone.
        repeat: Whether every epoch is the first one again.

    Attributes:
        start: How many batches of the next epoch are left out, for they were done before.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        partners: bool = False,
        repeat: bool = False,
    ) -> None:
        self.split, self.seed = split, seed
        self.rank, self.world, self.partners = rank, world, partners
        self.start = 0
        order = (
            EpochOrder(len(split), batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)
            if split.lengths is None
            else BucketSampler(
                split.lengths.cpu(), batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last
            )
        )
        self.sampler = FirstEpoch(order) if repeat else order
        self.batch_sampler = None  # Lightning reads it wherever there is a `sampler`

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Indexed]:
        self.split.begin_epoch(self.seed, self.sampler.epoch)
        for batch in islice(self.sampler, self.start, None):
            mine = batch[self.rank :: self.world] if self.world > 1 else batch
            share = [(len(mine), len(batch))] if self.world > 1 else []
            mine = mine if len(mine) else batch[:1]
            if self.partners:
                mine = torch.cat([mine, self._partners(mine)])
            index = mine.to(self.split.x.device)
            yield *self.split.take(index), index, *share

    def _partners(self, samples: torch.Tensor) -> torch.Tensor:
        draws = Draws(self.seed, self.sampler.epoch, samples).stream("partner")
        return draws.integers(0, len(self.split))
