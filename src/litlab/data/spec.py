import hashlib
import re
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from litlab.utils.errors import DataError, require
from litlab.utils.names import Name

SCHEMA = 2
FILE_NAME = "spec.json"
SPLITS = ("train", "val", "test")
ARRAYS = ".safetensors"  # the suffix of files that hold samples
# The last entry of spec.json: the SHA-256 of the same text without it.
_ENDING = re.compile(rb',\n  "sha256": "(?P<digest>[0-9a-f]{64})"\n}\n\Z')

Array = npt.NDArray[Any]
# "other": a LightningDataModule of the user's own, of which nothing is known.
Kind = Literal["image", "sequence", "tabular", "text", "other"]
TaskKind = Literal["classification", "multi_label", "regression", "language_model", "other"]


class CellFormat(BaseModel):
    """How a feature is read off a table's cells.

    Attributes:
        source: The column of the file; empty: the one of the feature's own name.
        part: What of it: empty for the cell itself, `missing` for whether it holds nothing, or a
            part of a date, such as `year`.
        decimal: What separates a number's fraction.
        unit: Empty: plain numbers. Else thousands may be separated, and `$#` or `# kg` stand around
            the number; `#` alone: nothing does.
        dates: Formats of dates, as `strptime` has them, `|` between them; `iso`: ISO 8601.
        missing: Cells that hold nothing in this column alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = ""
    part: str = ""
    decimal: Literal[".", ","] = "."
    unit: str = ""
    dates: str = ""
    missing: tuple[str, ...] = ()


class Column(BaseModel):
    """A table's column, as it was fitted on the train split.

    `fill` is what a missing cell becomes (None: missing cells are refused). A numeric column with
    `quantiles` is mapped through them to a normal distribution; without, it is stored as it is and
    standardized by the spec's mean and std. A categorical one is stored as a code: 0 for a value
    that train lacks, else 1 + its place in `categories`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["numeric", "categorical"]
    fill: float | str | None = None
    quantiles: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    cells: CellFormat = CellFormat()

    @property
    def source(self) -> str:
        """The column of the file that it is read from."""
        return self.cells.source or self.name


class DataSpec(BaseModel):
    """The only thing the data tell the model; `prepare` writes it as JSON beside the arrays.

    Shapes of one sample: image `(C, H, W)`, sequence `(C, L)`, tabular `(F,)`, text `(L,)`, L being
    the longest text that is kept. `mean` and `std` are of the train split alone, one number a
    channel (image, sequence) or a feature (tabular), in the units the model sees before
    normalization: images of bytes in [0, 1], all others in their own unit.

    `classes` are the names of the classes, or of the labels of a `multi_label` task, in which a
    sample has any number of them. `class_counts` are samples of train that have each one.

    `columns` describe a table whose columns were fitted: the numeric ones come first, then the
    categorical ones as codes, whose mean is 0 and std 1. `tokenizer` is the JSON of the library of
    that name, for text that it tokenized. `image_fit` is how new images are brought into shape.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    name: Name  # of the folder under data/prepared, also where a checkpoint from elsewhere says it
    source: str
    kind: Kind
    task: TaskKind
    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32", "int32"]
    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    class_counts: tuple[int, ...] = ()
    vocabulary: tuple[str, ...] = ()
    vocab_size: int | None = None
    pad_id: int | None = None
    tokenizer: str | None = None
    image_fit: Literal["resize", "crop"] | None = None
    sizes: dict[str, int]
    licence: str
    origin: str
    settings: dict[str, object] = {}
    checksums: dict[str, str] = {}
    split_hash: str = ""
    source_files: dict[str, str] = {}

    def __repr__(self) -> str:
        shape, sizes = "x".join(map(str, self.shape)), self.sizes.items()
        parts = (f"{self.kind} {shape}", self.task, f"{self.num_outputs} outputs")
        counts = " / ".join(f"{number:,} {split}" for split, number in sizes)
        return f"DataSpec({', '.join((self.name, *parts, counts))})"

    __str__ = __repr__

    @property
    def num_outputs(self) -> int:
        """How many numbers a model gives for one sample: one a class, or one a target.

        Of a language model, for one position: one a token of the vocabulary.
        """
        if self.task == "language_model":
            return self.vocab_size or 0
        return len(self.classes) or len(self.targets)

    @property
    def checksum(self) -> str:
        """One SHA-256 for all prepared samples; files that only describe them do not count."""
        named = sorted(pair for pair in self.checksums.items() if pair[0].endswith(ARRAYS))
        lines = "\n".join(f"{name} {value}" for name, value in named)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """How many codes each categorical column has, the one for unseen values included."""
        return tuple(1 + len(c.categories) for c in self.columns if c.kind == "categorical")

    @property
    def num_numeric(self) -> int:
        """How many of a table's features, the first ones, are numbers and not codes."""
        return self.shape[0] - len(self.cardinalities)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of a table's columns; numbered, from 0, where the source names none."""
        stored = tuple(column.name for column in self.columns) or self.features
        return stored or tuple(f"feature {i}" for i in range(self.shape[0]))

    def save(self, folder: Path) -> None:
        """Write the spec as `spec.json`, with a checksum, into a folder of prepared arrays."""
        text = self.model_dump_json(indent=2).encode()
        ending = f',\n  "sha256": "{hashlib.sha256(text).hexdigest()}"\n}}\n'.encode()
        (folder / FILE_NAME).write_bytes(text.removesuffix(b"\n}") + ending)

    @classmethod
    def load(cls, folder: Path) -> "DataSpec":
        """Read `spec.json` from a folder of prepared arrays.

        Raises:
            DataError: There is no such file, it was altered, or it is not a spec of this schema.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise DataError(
                "there are no prepared data",
                str(folder),
                "run `litlab prepare` with the run's overrides",
            )
        text, fix = path.read_bytes(), "run `litlab prepare` with the run's overrides again"
        ending = _ENDING.search(text)
        if ending is not None:  # else damaged, or written by an older version
            text = text[: ending.start()] + b"\n}"
            if hashlib.sha256(text).hexdigest().encode() != ending["digest"]:
                what = "altered since it was prepared: its checksum differs"
                raise DataError(what, str(path), fix)
        try:
            # The version first: another schema may have other fields.
            version = _Versioned.model_validate_json(text).schema_version
            if version != SCHEMA:
                what = f"prepared by schema {version}, this is schema {SCHEMA}"
                raise DataError(what, str(path), fix)
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the file"
            what = f"not a data spec: {field}: {first['msg']}"
            raise DataError(what, str(path), fix) from None


class _Versioned(BaseModel):
    schema_version: int


def require_spec(spec: DataSpec) -> None:
    """Refuse what is no description of data, such as a number of classes.

    Raises:
        ConfigError: It is something else.
    """
    require(spec, DataSpec, "litlab.models", "give data.spec of a litlab.DataModule")
