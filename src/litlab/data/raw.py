from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue

from litlab.data.spec import Array, Kind, TaskKind
from litlab.utils.output import one_line


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


class Decision(BaseModel):
    """What a source settled that the user left open, as the setting that would say the same.

    `litlab inspect` writes it into a data set's YAML, `prepare` prints and records it, and
    `data.strict=true` refuses instead.

    Attributes:
        setting: In full, such as `data.source.decimal`.
        value: What it was decided to be.
        why: The evidence, such as "412 of 430 cells are like '2,6'".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: str
    value: JsonValue
    why: Annotated[str, AfterValidator(one_line)]  # quotes cells, which may hold anything


class Reading(BaseModel):
    """How a source was read, for people; the model is told nothing of it.

    Attributes:
        decisions: What was settled that the user left open.
        suggestions: Settings that the user might want, with the evidence; they have no effect yet.
        target: Column of the labels.
        roles: What the remaining columns that were read are for: group, time.
        left_out: Columns that were not, with the reason.
        parts: File, folder or array that each of the source's parts comes from.
        doubts: What was probably meant otherwise, each a warning.
        own: The splits that the source brought along; filled in by `prepare`, as the rest.
        unknown: Share of the tokens that the tokenizer does not know, by split.
        brightest: The largest value of the images of train.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decisions: tuple[Decision, ...] = ()
    suggestions: tuple[Decision, ...] = ()
    target: str = ""
    roles: dict[str, str] = {}
    left_out: dict[str, str] = {}
    parts: dict[str, str] = {}
    doubts: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    unknown: dict[str, float] = {}
    brightest: int | None = None


@dataclass
class Raw:
    """What a source hands to `prepare`.

    Attributes:
        kind: image, sequence, tabular or text.
        task: classification, multi_label, regression or language_model.
        parts: `{"all": (inputs, targets)}`, or `{"train": ..., "test": ...}` (and `"val"`) where
            the publisher split the data. Inputs are an array or read by row number (see `Inputs`);
            without an encoder: images `(N, C, H, W)`, uint8, or numbers of any range, which are
            stored as float32 (`Raw.dtype`); sequences float `(N, C, L)`, tables float `(N, F)`,
            text integer ids `(N, L)`, padded at the end. Targets: class numbers `(N,)`, 0 or 1 of
            each label `(N, K)`, or floats `(N, T)`.
        classes: Names of the classes, or of the K labels.
        licence: The data's licence, as its publisher states it.
        origin: Where it comes from: a citation or an address.
        encoder: Makes stored values of inputs that are none yet: a table's cells, texts.
        columns: Further columns by part and name, `(N,)` each: what `data.group` and `data.time`
            may name.
        image_fit: How images were brought into one shape; new ones will be too.
        files: Files read, for noticing that they have changed since.
        notes: What the user should know of the reading: images converted, files left out.
        reading: What was read as what.
        place: Names row number n of a part, for messages: its file and line.
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
    reading: Reading = Reading()
    place: Callable[[str, int], str] | None = None

    @property
    def dtype(self) -> Literal["uint8", "float32", "int32"]:
        """How inputs are stored: images as bytes only where all of them are."""
        if self.kind == "text":
            return "int32"
        if self.kind != "image":
            return "float32"
        found = {np.dtype(getattr(x, "dtype", np.uint8)) for x, _ in self.parts.values()}
        return "uint8" if found == {np.dtype(np.uint8)} else "float32"


# Labels of any kind -> class numbers.


def number_classes(labels: Mapping[str, Array]) -> tuple[list[str], dict[str, Array]]:
    """Return the classes' names, and each part's labels as numbers `(N,)`, int64.

    The classes are the labels of all parts in their order, so that numbering from 1, or with gaps,
    does no harm. One that train lacks is refused later, by its name.

    Args:
        labels: By part, `(N,)`: integers or strings.
    """
    found = np.unique(np.concatenate([np.unique(part) for part in labels.values()]))
    numbers = {name: np.searchsorted(found, part) for name, part in labels.items()}
    return [str(label) for label in found], {n: y.astype(np.int64) for n, y in numbers.items()}
