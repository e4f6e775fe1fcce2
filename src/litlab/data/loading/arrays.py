"""Prepared arrays on disk: safetensors, memory-mapped, known by their SHA-256."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from litlab.data.loading.bucket_sampler import epoch_generator
from litlab.data.spec import ARRAYS, Array, DataSpec
from litlab.utils.errors import DataError


@dataclass(frozen=True)
class Split:
    """One split's arrays.

    Attributes:
        x: Inputs `(N, *shape)`; of texts the ids `(sum of lengths,)`, one text after the other.
        y: Class numbers `(N,)` int64, or targets `(N, T)` float32.
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
    """Compare the files beside the arrays, such as what the guard found, with their checksums.

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
