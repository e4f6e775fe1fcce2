import math
from collections.abc import Iterator

import torch


class EpochOrder:
    """The order in which an epoch visits the samples: a function of (seed, epoch) and no more.

    Lightning calls `set_epoch` before each epoch, on resuming too.
    """

    def __init__(self, num_samples: int, *, shuffle: bool, seed: int) -> None:
        self.num_samples, self.shuffle, self.seed, self.epoch = num_samples, shuffle, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def indices(self) -> torch.Tensor:
        """Return this epoch's sample numbers `(N,)`."""
        if not self.shuffle:
            return torch.arange(self.num_samples)
        # Both numbers, mixed: seed 0 in epoch 1 is not seed 1 in epoch 0.
        generator = torch.Generator().manual_seed((self.seed * 0x9E3779B1 + self.epoch) % 2**63)
        return torch.randperm(self.num_samples, generator=generator)


class BatchLoader:
    """Serves whole batches by index from arrays in memory; no work is done a sample.

    Several processes each take every `world`-th sample of every global batch, so `batch_size` and
    what is in a batch do not depend on their number.

    Args:
        x: Inputs `(N, ...)`.
        y: Targets `(N, ...)`.
        batch_size: Samples in a batch, over all processes together.
        shuffle: Whether each epoch has an order of its own.
        drop_last: Whether a last batch that is not full is left out.
        seed: Of the order.
        rank: This process.
        world: How many processes there are.
    """

    def __init__(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        *,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.x, self.y, self.batch_size, self.drop_last = x, y, batch_size, drop_last
        self.rank, self.world = rank, world
        self.sampler = EpochOrder(len(x), shuffle=shuffle, seed=seed)
        self.batch_sampler = None  # Lightning reads it wherever there is a `sampler`

    def __len__(self) -> int:
        rounded = math.floor if self.drop_last else math.ceil
        return rounded(len(self.x) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        indices = self.sampler.indices().to(self.x.device)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            batch = indices[start : start + self.batch_size]
            mine = batch[self.rank :: self.world] if self.world > 1 else batch
            yield self.x.index_select(0, mine), self.y.index_select(0, mine)
