"""What files call their classes, as class numbers."""

import math
from array import array
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from litlab.data.spec import Array
from litlab.utils.errors import DataError

SHOWN = 5  # in messages
FEW = 100  # labels that are never too many
SINGLE = "several labels per sample are not supported: give each sample one text or number"


class Labels:
    """Gathers the labels of all parts, then numbers the classes.

    Without names, the classes are the labels found, in the order of numbers if all are integers,
    else of the alphabet. With names, the labels are either names or places in the list, from 0.

    Attributes:
        first: Each label that was found, and where first.
    """

    def __init__(self, column: str, names: Sequence[str] | None) -> None:
        self.column, self.names = column, names
        self.first: dict[str, tuple[Path, int]] = {}
        self._codes: dict[str, int] = {}
        self._rows = 0

    def add(self, cell: Any, path: Path, number: int) -> int:
        """Take one label and return its preliminary number.

        Raises:
            DataError: It is missing, or not a single value.
        """
        if isinstance(cell, Collection) and not isinstance(cell, str | bytes):
            what = f"line {number}: the label '{self.column}' is {cell!r:.60}"
            raise DataError(what, str(path), SINGLE)
        label = label_of(cell)
        if not label:
            what = f"line {number} has no label ('{self.column}')"
            raise DataError(what, str(path), "give it one, or remove the line")
        if label not in self._codes:
            self._codes[label] = len(self._codes)
            self.first[label] = (path, number)
        self._rows += 1
        return self._codes[label]

    def classes(self) -> list[str]:
        """Return the classes' names in order.

        Raises:
            DataError: Nearly every row has a label of its own.
        """
        if self.names is not None:
            return list(self.names)
        found = list(self._codes)
        if len(found) > max(FEW, self._rows // 2):
            raise DataError(
                f"{len(found)} different labels in {self._rows} rows, such as '{found[0]}'",
                f"column '{self.column}'",
                "name the column of the classes: data.source.label=...",
            )
        numbers = all(_is_integer(label) for label in found)
        return sorted(found, key=int if numbers else str)

    def numbered(self, codes: "array[int]") -> Array:
        """Return class numbers `(n,)`, int64, for preliminary ones.

        Raises:
            DataError: A label is none of the names.
        """
        classes = self.classes()
        place = {name: number for number, name in enumerate(classes)}
        unknown = [label for label in self._codes if label not in place]
        if unknown and len(unknown) == len(self._codes):
            place = {str(number): number for number in range(len(classes))}
            unknown = [label for label in self._codes if label not in place]
        if unknown:
            self._refuse(unknown, classes)
        final = np.array([place[label] for label in self._codes], dtype=np.int64)
        numbers: Array = final[np.frombuffer(codes, dtype=np.int64)]
        return numbers

    def _refuse(self, unknown: list[str], classes: list[str]) -> None:
        shown = ", ".join(f"'{label}' (line {self.first[label][1]})" for label in unknown[:SHOWN])
        raise DataError(
            f"{len(unknown)} labels are not among {', '.join(classes)}: {shown}",
            str(self.first[unknown[0]][0]),
            f"correct data.source.label_names, or number them 0 to {len(classes) - 1} in the file",
        )


def label_of(cell: Any) -> str:
    """Return a label as text: JSON's and Parquet's numbers as integers where they are."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def _is_integer(label: str) -> bool:
    return label.removeprefix("-").isdecimal()
