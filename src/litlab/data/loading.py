import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from litlab.data.augment.base import Augmentation
from litlab.data.augment.draws import Draws
from litlab.data.spec import ARRAYS, Array, DataSpec
from litlab.utils.errors import DataError

# The order of batches for texts of uneven length: neighbours in length share a batch.


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


# Prepared arrays on disk: safetensors, memory-mapped, known by their SHA-256.


@dataclass(frozen=True)
class Split:
    """One split's arrays.

    Attributes:
        x: Inputs `(N, *shape)`; of texts the ids `(sum of lengths,)`, one text after the other.
        y: Class numbers `(N,)` int64, labels `(N, K)` uint8, or targets `(N, T)` float32.
        source_index: Each sample's place in the source, `(N,)` int64.
        lengths: How many ids each text has, `(N,)` int32; None if all samples have one shape.
        pad_id: What fills a batch of texts of different lengths.
    """

    x: torch.Tensor
    y: torch.Tensor
    source_index: torch.Tensor
    lengths: torch.Tensor | None = None
    pad_id: int = field(default=0, kw_only=True)

    def __len__(self) -> int:
        return len(self.source_index)

    @cached_property
    def starts(self) -> torch.Tensor:
        """Where each text begins in `x`, `(N,)` int64."""
        assert self.lengths is not None
        ends = self.lengths.cumsum(0, dtype=torch.int64)
        return ends - self.lengths

    def take(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the samples `index` `(B,)`: inputs `(B, *shape)` and targets.

        Texts are `(B, L)`, padded at the end to the longest of them.
        """
        y = self.y.index_select(0, index)
        if self.lengths is None:
            return self.x.index_select(0, index), y
        lengths, starts = self.lengths[index], self.starts[index]
        columns = torch.arange(int(lengths.max()), device=self.x.device)
        inside = columns < lengths[:, None]
        places = torch.where(inside, starts[:, None] + columns, 0)
        return torch.where(inside, self.x[places], self.pad_id), y

    def to(self, device: torch.device) -> "Split":
        """Return the same on a device."""
        lengths = None if self.lengths is None else self.lengths.to(device)
        x, y, index = (t.to(device) for t in (self.x, self.y, self.source_index))
        return replace(self, x=x, y=y, source_index=index, lengths=lengths)

    @property
    def nbytes(self) -> int:
        """How much memory it takes, in bytes."""
        held = (self.x, self.y, self.source_index, self.lengths)
        return sum(t.nbytes for t in held if t is not None)

    def begin_epoch(self, seed: int, epoch: int) -> None:
        """Called before each epoch: nothing, where every epoch has the same samples."""


@dataclass(frozen=True)
class StreamSplit(Split):
    """One split of a text, as windows that a language model reads: sample i starts at `i * L`.

    While training, the windows of an epoch all start a little later, by a number below L that
    depends on (seed, epoch) alone: a token is then not always seen at the same place. A last window
    that would reach over the end starts earlier instead. Of validation and test, the tokens that
    fill no window (fewer than L + 1) are left out.

    Attributes:
        x: The ids of the whole split `(T,)`.
        context_length: L, the tokens of a window.
        shifts: Whether epochs differ: of train.
        shift: This epoch's, a scalar.
    """

    context_length: int = field(kw_only=True)
    shifts: bool = field(default=False, kw_only=True)
    shift: torch.Tensor = field(
        default_factory=lambda: torch.zeros((), dtype=torch.int64), kw_only=True
    )

    def __len__(self) -> int:
        return num_windows(len(self.x), self.context_length)

    def take(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return windows `(B, L)`, and for each of their tokens the one after it `(B, L)`."""
        length = self.context_length
        starts = (index * length + self.shift).clamp(max=len(self.x) - length - 1)
        places = starts[:, None] + torch.arange(length + 1, device=self.x.device)
        ids = self.x[places]
        return ids[:, :-1], ids[:, 1:].long()

    def begin_epoch(self, seed: int, epoch: int) -> None:
        """Choose the epoch's shift."""
        if self.shifts:
            generator = epoch_generator(seed, epoch)
            self.shift.copy_(torch.randint(self.context_length, (), generator=generator))


def num_windows(num_tokens: int, context_length: int) -> int:
    """Return how many windows a stream has, each with one more token after it to predict."""
    return max(0, (num_tokens - 1) // context_length)


def of_values(values: Array | list[Array], pad_id: int = 0) -> Split:
    """Return samples without known targets as a split: an array, or a list of texts' ids."""
    number = len(values)
    y, index = torch.zeros(number, dtype=torch.int64), torch.arange(number)
    if isinstance(values, list):
        parts = [torch.as_tensor(ids, dtype=torch.int32) for ids in values]
        lengths = torch.tensor([len(ids) for ids in parts], dtype=torch.int32)
        return Split(torch.cat(parts), y, index, lengths, pad_id=pad_id)
    return Split(torch.from_numpy(values.copy(order="C")), y, index)


def file_of(folder: Path, split: str) -> Path:
    """Return the path of one split's file."""
    return folder / f"{split}{ARRAYS}"


def open_split(folder: Path, spec: DataSpec, split: str) -> Split:
    """Map one split into memory, after comparing its checksum with the spec's.

    Pages are shared between processes and read on first use.

    Raises:
        DataError: The file is missing or is not the one that `prepare` wrote.
    """
    from safetensors import safe_open

    path = file_of(folder, split)
    _check(path, spec)
    with safe_open(path, framework="pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if spec.task == "language_model":
        del held["lengths"]  # of the blocks in which the source read the text
        return StreamSplit(**held, context_length=spec.shape[0], shifts=split == "train")
    return Split(**held, pad_id=spec.pad_id or 0)


def check_descriptions(folder: Path, spec: DataSpec) -> None:
    """Compare the files beside the arrays, such as the leakage report, with their checksums.

    Raises:
        DataError: A file is missing or is not the one that `prepare` wrote.
    """
    for name in spec.checksums:
        if not name.endswith(ARRAYS):
            _check(folder / name, spec)


def _check(path: Path, spec: DataSpec) -> None:
    fix = "run `litlab prepare` with the same overrides again (or `dvc repro --force prepare`)"
    if not path.is_file():
        raise DataError("a prepared file is missing", str(path), fix)
    if sha256(path) != spec.checksums.get(path.name):
        raise DataError("altered since it was prepared: its checksum differs", str(path), fix)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


class Key(NamedTuple):
    """What a batch's random numbers depend on; `samples` are their numbers `(B,)`."""

    seed: int
    epoch: int
    samples: torch.Tensor


class Preprocess(nn.Module):
    """Stored values -> what augmentation sees -> what the model sees.

    The statistics are those of the train split (spec.mean, spec.std), wherever the batch comes
    from: validation, test, or a user's new data.
    """

    mean: torch.Tensor
    inverse_std: torch.Tensor

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.kind = spec.kind
        tail = (1,) * (len(spec.shape) - 1)
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("mean", mean.reshape(-1, *tail), persistent=False)
        self.register_buffer("inverse_std", (1 / std).reshape(-1, *tail), persistent=False)

    def to_float(self, x: torch.Tensor) -> torch.Tensor:
        """Turn bytes `(B, C, H, W)` into floats in [0, 1], others into floats; ids into int64."""
        if self.kind == "text":
            return x.long()
        return x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x.to(torch.float32)

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """Subtract the train split's mean and divide by its deviation; ids stay as they are."""
        return x if self.kind == "text" else (x - self.mean).mul_(self.inverse_std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Do both, for data that are not augmented any further."""
        if x.dtype == torch.uint8:  # its floats are nobody else's
            return self.to_float(x).sub_(self.mean).mul_(self.inverse_std)
        return self.normalize(self.to_float(x))

    def augmented(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        augmentations: Mapping[str, Augmentation],
        key: Key,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return stored values as the model sees them while training, and their targets.

        Augmentations that can do so work on bytes, which are a quarter of the floats to move.
        """
        draws = Draws(*key)
        for name, augmentation in augmentations.items():
            if not augmentation.on_bytes:
                x = self.to_float(x)
            if augmentation.mixes:  # two rows a sample: it and its partner
                draws = Draws(key.seed, key.epoch, key.samples[: len(x) // 2])
            x, y = augmentation(x, y, draws.stream(name))
        return self(x), y
