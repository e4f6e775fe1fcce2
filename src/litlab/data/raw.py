from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from litlab.data.spec import Array, Kind, TaskKind


class Inputs(Protocol):
    """A source's samples, read by number: an array, a memory map, or files decoded on demand.

    What does not fit in memory is never asked for whole. An attribute `sizes` `(N,)`, in bytes,
    lets long samples be asked for in smaller numbers than short ones.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Any:
        """Return the samples of these row numbers `(n,)`, in this order."""


class Encoder(Protocol):
    """Turns what a source reads into numbers, by what it learns from the train split alone."""

    def fit(self, chunks: Callable[[], Iterator[Any]]) -> None:
        """Learn from the train split; each call of `chunks` goes through it once more."""

    def encode(self, chunk: Any) -> Any:
        """Return stored values `(n, *shape)`, or for text a list of n arrays of ids."""

    def describe(self) -> dict[str, Any]:
        """Return what it has learnt: fields of the DataSpec, `shape` among them."""

    def notes(self) -> list[str]:
        """Return what the user should know: cells filled, texts cut, values not seen in train."""


@dataclass
class Raw:
    """What a source hands to `prepare`.

    Attributes:
        kind: image, sequence, tabular or text.
        task: classification, regression or language_model.
        parts: `{"all": (inputs, targets)}`, or `{"train": ..., "test": ...}` (and `"val"`) where
            the publisher split the data. Inputs are an array or read by row number (see `Inputs`);
            without an encoder: images uint8 `(N, C, H, W)`, sequences float `(N, C, L)`, tables
            float `(N, F)`, text integer ids `(N, L)`, padded at the end. Targets: class numbers
            `(N,)`, or floats `(N, T)`.
        licence: The data's licence, as its publisher states it.
        origin: Where it comes from: a citation or an address.
        encoder: Makes stored values of inputs that are none yet: a table's cells, texts.
        columns: Further columns by part and name, `(N,)` each: what `data.group` and `data.time`
            may name.
        image_fit: How images were brought into one shape; new ones will be too.
        files: Files read, for noticing that they have changed since.
        notes: What the user should know of the reading: images converted, files left out.
    """

    kind: Kind
    task: TaskKind
    parts: dict[str, tuple[Any, Array]]
    licence: str
    origin: str
    classes: Sequence[str] = ()
    targets: Sequence[str] = ()
    features: Sequence[str] = ()
    vocabulary: Sequence[str] = ()
    pad_id: int | None = None
    encoder: Encoder | None = None
    columns: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    image_fit: Literal["resize", "crop"] | None = None
    files: Sequence[Any] = ()
    notes: Callable[[], list[str]] = list
