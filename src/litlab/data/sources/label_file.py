"""A table of labels beside pictures: which file, which column names pictures, which their class."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from litlab.data.prepare.source_files import require_file
from litlab.data.raw import Decision
from litlab.data.sources.array_names import PARTS
from litlab.utils.errors import DataError, nearest

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")
DELIMITERS = ",;\t|"
LABELS = (
    *("label", "labels", "class", "class_name", "classes", "category", "categories", "target"),
    *("y", "species", "breed", "diagnosis", "tag", "tags"),
)
SPLITS = ("split", "subset", "set", "partition")
MATCHED = 0.5  # of the rows name a picture
SEPARATORS = ("|", ";", ",", " ")
SHOWN = 8
JOINT = "\x1f"  # between several labels of an image
ONCE = "write all labels of an image in one cell: a|b"


@dataclass
class Labelled:
    """What a table says of pictures.

    Attributes:
        labels: By the picture's name; of an amount, its text; several with `JOINT` between them.
        parts: By the picture's name; empty where no column has them.
        columns: The other cells, by column and picture.
        amounts: Whether the labels are numbers that are no classes.
        target: The column of the labels.
        path: The table.
        decisions: What was settled that the user left open.
        notes: Rows and pictures that were left out.
    """

    labels: dict[str, str]
    parts: dict[str, str]
    columns: dict[str, dict[str, str]]
    amounts: bool
    target: str
    path: Path
    decisions: list[Decision] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """The settings of the source that say how the table is read; None where it is left open."""

    labels: str | None = None
    file_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None


def find_table(root: Path, pictures: Sequence[str], asked: Asked) -> Labelled | None:
    """Return what a table in the root says of the pictures; None where there is none.

    Args:
        root: The folder.
        pictures: Their paths below it.
        asked: What the user has set.

    Raises:
        DataError: The table that the user named does not name the pictures, or it is not clear
            which table or which column is meant.
    """
    index = _index(pictures)
    if asked.labels is not None:
        path = root / asked.labels
        if not path.is_file():
            held = [p.name for p in root.iterdir() if p.suffix.lower() in SUFFIXES]
            fix = f"set data.source.labels: {nearest(asked.labels, held)}"
            raise DataError(f"there is no file '{asked.labels}' in it", str(root), fix)
        return _Reader(path, root, index, asked).read()
    found = []
    for path in sorted(path for path in root.iterdir() if path.suffix.lower() in SUFFIXES):
        try:
            reader = _Reader(path, root, index, asked)
        except DataError:  # another table, which is nobody's business here
            continue
        if reader.share > MATCHED and len(reader.names) > 1:
            found.append(reader)
    if len(found) > 1:
        names = ", ".join(reader.path.name for reader in found)
        fix = f"set data.source.labels={found[0].path.name}, or another of them"
        raise DataError(f"several tables name the images: {names}", str(root), fix)
    return found[0].read() if found else None


def _index(pictures: Sequence[str]) -> dict[str, str]:
    """Pictures by path, by name and by name without suffix, where these are nobody else's."""
    index = {name: name for name in pictures}
    paths = {name: PurePosixPath(name) for name in pictures}
    for short in (
        {name: path.name for name, path in paths.items()},
        {name: path.stem for name, path in paths.items()},
    ):
        counts = Counter(short.values())
        for name, key in short.items():
            if counts[key] == 1:
                index.setdefault(key, name)
    return index


class _Reader:
    """One table.

    Raises:
        DataError: It cannot be read.
    """

    def __init__(self, path: Path, root: Path, index: Mapping[str, str], asked: Asked) -> None:
        self.path, self.root, self.index, self.asked = path, root, index, asked
        self.rows = read_rows(path, index)
        self.names = list(dict.fromkeys(name for row in self.rows for name in row))
        shares = {name: self._share(name) for name in self.names}
        best = max(shares, key=lambda name: shares[name], default="")
        self.file_column = asked.file_column or best
        self.share = shares.get(self.file_column, 0.0)
        self.decisions: list[Decision] = []
        self.notes: list[str] = []

    def read(self) -> Labelled:
        """Say which picture has which label."""
        if self.share <= MATCHED:
            what = f"{self.share:.0%} of the rows name an image by '{self.file_column}'"
            fix = f"set data.source.file_column: {nearest(self.file_column, self.names)}"
            raise DataError(what, str(self.path), fix)
        if self.asked.labels is None:
            why = f"{self.share:.0%} of its rows name an image"
            self._decide("labels", self.path.relative_to(self.root).as_posix(), why)
        if self.asked.file_column is None:
            self._decide("file_column", self.file_column, "its cells name the images")
        split = self._split_column()
        target, labels = self._labels([c for c in self.names if c not in (self.file_column, split)])
        kept = self._kept(labels)
        parts = {n: str(self.rows[row][split]) for n, row in kept.items()} if split else {}
        others = [c for c in self.names if c not in (self.file_column, split, target)]
        columns = {
            c: {name: str(self.rows[row].get(c, "")) for name, row in kept.items()} for c in others
        }
        texts = {name: labels[row] for name, row in kept.items()}
        amounts = _are_amounts(texts.values())
        separator = "" if amounts else _separator(texts.values())
        return Labelled(
            {name: _joined(text, separator) for name, text in texts.items()},
            {name: _part(cell) for name, cell in parts.items()},
            *(columns, amounts, target, self.path, self.decisions, self.notes),
        )

    def _share(self, name: str) -> float:
        cells = [str(row.get(name, "")).strip() for row in self.rows]
        return sum(self._picture(cell) is not None for cell in cells) / max(1, len(cells))

    def _picture(self, cell: str) -> str | None:
        cell = cell.strip().replace("\\", "/").removeprefix("./")
        return self.index.get(cell) or self.index.get(PurePosixPath(cell).name)

    def _split_column(self) -> str | None:
        asked = self.asked.split_column
        if asked is not None:
            if asked not in self.names:
                fix = f"set data.source.split_column: {nearest(asked, self.names)}"
                raise DataError(f"has no column '{asked}'", str(self.path), fix)
            unknown = sorted(
                {str(row.get(asked)) for row in self.rows if not _part(row.get(asked))}
            )
            if unknown:
                what = f"column '{asked}' has cells that are no split: {', '.join(unknown[:SHOWN])}"
                raise DataError(what, str(self.path), "write train, val or test")
            return asked
        for name in self.names:
            values = {_part(row.get(name)) for row in self.rows}
            if (
                name.lower() in SPLITS
                and "train" in values
                and "" not in values
                and len(values) > 1
            ):
                self._decide("split_column", name, f"its cells are {', '.join(sorted(values))}")
                return name
        return None

    def _labels(self, others: Sequence[str]) -> tuple[str, list[str]]:
        """The column of the labels, and each row's."""
        asked = self.asked.label_column
        if asked is not None:
            if asked not in self.names:
                fix = f"set data.source.label_column: {nearest(asked, self.names)}"
                raise DataError(f"has no column '{asked}'", str(self.path), fix)
            return asked, self._cells(asked)
        named = [name for name in others if name.lower() in LABELS]
        column = named[0] if len(named) == 1 else others[0] if len(others) == 1 else None
        if column is not None:
            why = "named like labels" if named else "the only other column"
            self._decide("label_column", column, why)
            return column, self._cells(column)
        columns = {name: self._cells(name) for name in others}
        if len(columns) > 1 and all(set(cells) <= _BITS for cells in columns.values()):
            return "label", self._one_hot(columns)
        listed = ", ".join(others[:SHOWN]) or "none"
        what = f"which column holds the labels is not clear (columns: {listed})"
        fix = f"set data.source.label_column to one of them, e.g. {(named or others or ['?'])[0]}"
        raise DataError(what, str(self.path), fix)

    def _one_hot(self, columns: Mapping[str, Sequence[str]]) -> list[str]:
        """A column a class, of which one is 1."""
        labels = []
        for cells in zip(*columns.values(), strict=True):
            ones = [name for name, cell in zip(columns, cells, strict=True) if _is_one(cell)]
            labels.append(JOINT.join(ones))
        self.notes.append(f"{self.path.name} has a column a class: those that are 1 are the label")
        return labels

    def _cells(self, name: str) -> list[str]:
        cells = [row.get(name, "") for row in self.rows]
        lists = [cell if isinstance(cell, list) else [cell] for cell in cells]
        return [JOINT.join(str(label).strip() for label in labels) for labels in lists]

    def _kept(self, labels: Sequence[str]) -> dict[str, int]:
        """The row of each picture that has a label."""
        kept: dict[str, int] = {}
        absent: list[str] = []
        without = 0
        for number, row in enumerate(self.rows):
            cell = str(row.get(self.file_column, ""))
            name = self._picture(cell)
            if name is None:
                absent.append(cell)
            elif not labels[number]:
                without += 1
            elif name in kept and labels[kept[name]] != labels[number]:
                pair = f"'{labels[kept[name]]}' and '{labels[number]}'"
                what = f"{name} has two labels, {pair}"
                raise DataError(what, str(self.path), ONCE)
            else:
                kept.setdefault(name, number)
        name = self.path.name
        if absent:
            shown = ", ".join(absent[:3]) + ("" if len(absent) < 4 else ", ...")
            self.notes.append(f"{len(absent):,} rows of {name} name no image: {shown}")
        if without:
            self.notes.append(f"{without:,} rows of {name} have no label: left out")
        rest = len(set(self.index.values())) - len(kept)
        if rest:
            self.notes.append(f"{rest:,} images have no label in {name}: left out")
        return kept

    def _decide(self, setting: str, value: str, why: str) -> None:
        self.decisions.append(Decision(setting=f"data.source.{setting}", value=value, why=why))


def _separator(labels: Iterable[str]) -> str:
    """What stands between several labels of a cell, `a|b`; "" where each has one."""
    values = set(labels)
    if any(JOINT in value for value in values):
        return ""
    for separator in SEPARATORS:
        tokens = {part.strip() for value in values for part in value.split(separator)}
        joined = any(separator in value for value in values)
        if joined and values & tokens and len(tokens) < len(values):
            return separator
    return ""


def _joined(label: str, separator: str) -> str:
    parts = label.split(separator) if separator else [label]
    return JOINT.join(part.strip() for part in parts if part.strip())


_BITS = {"0", "1", "0.0", "1.0", "True", "False", "true", "false"}


def _is_one(cell: str) -> bool:
    return cell.lower() in ("1", "1.0", "true")


def _part(cell: object) -> str:
    return PARTS.get(str(cell).strip().lower(), "")


def _are_amounts(labels: Iterable[str]) -> bool:
    """Whether these are fractions, or numbers that hardly ever come twice."""
    texts = list(labels)
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return False
    whole = all(number.is_integer() for number in numbers)
    return not whole or len(set(numbers)) > max(20, len(numbers) / 2)


def read_rows(path: Path, index: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a table's rows, by column.

    CSV of any usual delimiter, with or without a header (then column0, column1, ...); JSON: a list
    of objects, an object of labels by file, or an object a line.

    Raises:
        DataError: It cannot be read.
    """
    require_file(path)
    try:
        content = path.read_bytes()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")
        if path.suffix.lower() in (".json", ".jsonl"):
            return _of_json(text)
        return _of_csv(text, index)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read: {error}", str(path), "save it as CSV in UTF-8") from None


def _of_csv(text: str, index: Mapping[str, str]) -> list[dict[str, Any]]:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    delimiter = max(DELIMITERS, key=lambda mark: min(line.count(mark) for line in lines[:20]))
    rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
    if any(cell.strip() in index or PurePosixPath(cell).name in index for cell in rows[0]):
        names = [f"column{number}" for number in range(len(rows[0]))]
    else:
        names, *rows = rows
        names = [name.strip() or f"column{number}" for number, name in enumerate(names)]
    return [dict(zip(names, row, strict=False)) for row in rows]


def _of_json(text: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        if len(lists) == 1 and all(isinstance(row, dict) for row in lists[0]):
            content = lists[0]
        else:
            content = [{"file": name, "label": label} for name, label in content.items()]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError("neither a list of objects nor an object of labels by file")
    return content
