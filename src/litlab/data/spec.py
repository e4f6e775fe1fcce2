from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from litlab.errors import DataError

SCHEMA = 1
FILE_NAME = "spec.json"
SPLITS = ("train", "val", "test")

Array = npt.NDArray[Any]
Kind = Literal["image", "sequence", "tabular", "text"]


class DataSpec(BaseModel):
    """The only thing the data tell the model; `prepare` writes it as JSON beside the arrays.

    Shapes of one sample: image `(C, H, W)`, sequence `(C, L)`, tabular `(F,)`, text `(L,)`.
    `mean` and `std` are of the train split alone, one number a channel (image, sequence) or a
    feature (tabular), in the units the model sees before normalization: images in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    name: str
    source: str
    kind: Kind
    task: Literal["classification", "regression"]
    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32", "int32"]
    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    class_counts: tuple[int, ...] = ()
    vocabulary: tuple[str, ...] = ()
    vocab_size: int | None = None
    pad_id: int | None = None
    sizes: dict[str, int]
    licence: str
    origin: str
    settings: dict[str, object] = {}
    checksums: dict[str, str] = {}
    split_hash: str = ""

    @property
    def num_outputs(self) -> int:
        """How many numbers a model gives for one sample: one a class, or one a target."""
        return len(self.classes) or len(self.targets)

    def save(self, folder: Path) -> None:
        """Write the spec as `spec.json` into a folder of prepared arrays."""
        text = self.model_dump_json(indent=2) + "\n"
        (folder / FILE_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "DataSpec":
        """Read `spec.json` from a folder of prepared arrays.

        Raises:
            DataError: There is no such file, or it is not a spec of this schema.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise DataError("there are no prepared data", str(folder), "run `litlab prepare`")
        text, fix = path.read_bytes(), "run `litlab prepare` again"
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


@dataclass
class Raw:
    """What a source hands to `prepare`.

    Attributes:
        kind: image, sequence, tabular or text.
        task: classification or regression.
        parts: `{"all": (inputs, targets)}`, or `{"train": ..., "test": ...}` (and `"val"`) where
            the publisher split the data. Inputs: images uint8 `(N, C, H, W)`, sequences float
            `(N, C, L)`, tables float `(N, F)`, text integer ids `(N, L)`. Targets: class numbers
            `(N,)`, or floats `(N, T)`.
        licence: The data's licence, as its publisher states it.
        origin: Where it comes from: a citation or an address.
    """

    kind: Kind
    task: Literal["classification", "regression"]
    parts: dict[str, tuple[Array, Array]]
    licence: str
    origin: str
    classes: Sequence[str] = ()
    targets: Sequence[str] = ()
    features: Sequence[str] = ()
    vocabulary: Sequence[str] = ()
    pad_id: int | None = None
