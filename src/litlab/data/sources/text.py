import math
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from litlab.config.hyperparameters import Count
from litlab.data.encode.text import TextEncoder
from litlab.data.prepare.source_files import cannot_write, user_path
from litlab.data.raw import Raw, Reading
from litlab.data.sources.image_layout import refuse_splits
from litlab.data.sources.text_files import (
    Layout,
    Row,
    TextSpool,
    check_layout,
    read_rows,
    read_whole,
)
from litlab.data.sources.unused import refuse_unused
from litlab.data.spec import Array
from litlab.utils.errors import DataError, nearest

# What files call their classes, as class numbers.


SHOWN = 5  # in messages
FEW = 100  # labels that are never too many
SINGLE = "give each sample one text or number"


class Labels:
    """Gathers the labels of all parts, then numbers the classes.

    Without names, the classes are the labels found, in the order of numbers if all are integers,
    else of the alphabet. With names, the labels are either names or places in the list, from 0.

    Args:
        column: Of the labels, for messages.
        names: The classes, where they are known.
        separator: Between the labels of a cell; None: a cell of text is one label.

    Attributes:
        first: Each label that was found, and where first.
        lists: Where a cell first was a list, or held several labels, if one did.
        several: Whether a sample has none, or more than one.
    """

    def __init__(
        self, column: str, names: Sequence[str] | None, separator: str | None = None
    ) -> None:
        self.column, self.names, self.separator = column, names, separator
        self.first: dict[str, tuple[Path, int]] = {}
        self.lists: tuple[Path, int] | None = None
        self.several = False
        self._codes: dict[str, int] = {}
        self._rows = 0

    def add(self, cell: Any, path: Path, number: int) -> list[int]:
        """Take a sample's label, or list of labels, and return their preliminary numbers.

        Raises:
            DataError: It is missing, or a label is not a single value.
        """
        cells = self._cells(cell, path, number)
        found = list(dict.fromkeys(self._add(one, path, number) for one in cells))
        self.several = self.several or len(found) != 1
        self._rows += 1
        return found

    def _cells(self, cell: Any, path: Path, number: int) -> list[Any]:
        if isinstance(cell, Mapping):
            what = f"line {number}: the label '{self.column}' is {cell!r:.60}"
            raise DataError(what, str(path), SINGLE)
        if isinstance(cell, Collection) and not isinstance(cell, str | bytes):
            self.lists = self.lists or (path, number)
            return list(cell)
        if self.separator is not None and isinstance(cell, str):
            self.lists = self.lists or (path, number)
            return [part for part in cell.split(self.separator) if part.strip()]
        return [cell]

    def _add(self, cell: Any, path: Path, number: int) -> int:
        if isinstance(cell, Collection) and not isinstance(cell, str | bytes):
            what = f"line {number}: a label of '{self.column}' is {cell!r:.60}"
            raise DataError(what, str(path), SINGLE)
        label = label_of(cell)
        if not label:
            what = f"line {number} has no label ('{self.column}')"
            fix = "give it one, remove the line, or write [] where none of several labels holds"
            raise DataError(what, str(path), fix)
        if label not in self._codes:
            self._codes[label] = len(self._codes)
            self.first[label] = (path, number)
        return self._codes[label]

    def classes(self) -> list[str]:
        """Return the classes' names in order.

        Raises:
            DataError: Nearly every row has a label of its own.
        """
        if self.names is not None:
            return list(self.names)
        found = list(self._codes)
        if not found:
            what, fix = "no sample has a label", "name their column: data.source.label=..."
            raise DataError(what, f"column '{self.column}'", fix)
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

    def flags(self, codes: "array[int]", counts: "array[int]") -> Array:
        """Return 0 or 1 of each label, uint8 `(n, K)`.

        Args:
            codes: Preliminary numbers of all samples' labels, one sample after the other.
            counts: How many labels each sample has, `(n,)`.

        Raises:
            DataError: A label is none of the names.
        """
        found = np.zeros((len(counts), len(self.classes())), dtype=np.uint8)
        rows = np.repeat(np.arange(len(counts)), np.frombuffer(counts, dtype=np.int64))
        found[rows, self.numbered(codes)] = 1
        return found

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


SPLITS = ("train", "val", "test")


def folders_of(root: Path) -> dict[str, Path]:
    """Return the folder of each part: `root/train` and so on where they are there, else the root.

    Raises:
        DataError: There is a test or val split without one for training, or folders named like
            splits in another way.
    """
    parts = {name: root / name for name in SPLITS if (root / name).is_dir()}
    if not parts:
        refuse_splits((entry.name for entry in root.iterdir() if entry.is_dir()), str(root))
        return {"all": root}
    if "train" not in parts:
        raise DataError("the folder has no folder 'train'", str(root), "add it, or name its parent")
    return parts


def read_folder(root: Path, encoding: str, names: Sequence[str] | None) -> Iterator[Row]:
    """Give the text and the class of each file `root/class/*.txt`, in the order of their names.

    Args:
        root: The folder.
        encoding: Of the files.
        names: The only folders to read; None: all.

    Raises:
        DataError: There are none, or a file is in another encoding.
    """
    found = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    for name in names or ():
        if name not in found:
            raise DataError(f"the folder has no folder '{name}'", str(root), nearest(name, found))
    files = [file for name in names or found for file in sorted((root / name).glob("*.txt"))]
    if not files:
        raise DataError("the folder has no texts", str(root), "put them in class/*.txt")
    for file in files:
        yield file, 1, [read_whole(file, encoding), file.parent.name]


# Settings that say how files with rows are read, and those that a format uses (a CSV uses all).
OF_FILES = ("text", "label", "columns", "delimiter", "header", "quotes")
USED = {
    "jsonl": ("text", "label", "columns", "encoding"),
    "parquet": ("text", "label", "columns"),
    "lines": ("columns", "encoding"),  # further columns are refused where the lines are read
}


class Text:
    """Labelled texts from files of the user's own.

    CSV, TSV, JSON lines or Parquet with a column of texts and one of labels; lines of a label and a
    text, as in TREC; or a folder for each class with a file for each text,
    `root/class/*.txt` or `root/{train,val,test}/class/*.txt`, as IMDb comes. Read once, one text at
    a time, into a file in the scratch folder.

    Args:
        path: The file or folder; relative to the project's root.
        val_path: A file of validation texts, where the publisher split the data.
        test_path: The same for the test.
        format: How the files are written; auto goes by their suffix, and takes an unknown one for
            lines.
        text: Name of the column of texts; without a header its number, from 0.
        label: The same of the labels.
        columns: Further columns, for `data.group` and `data.time`.
        encoding: Of the characters, by Python's name: utf-8, latin-1, cp1252, utf-16.
        delimiter: Between a CSV's cells; null: a comma, in TSV a tab.
        header: Whether the first row of a CSV names the columns.
        quotes: Whether a CSV's cells may stand in quotation marks; false takes them as they are.
        task: classification: one label a text; multi_label: any number, as a list in JSON lines and
            Parquet, as several `__label__` in lines; null: multi_label where a text has more than
            one label, or an empty list.
        label_separator: Between the labels of a cell of text, such as `;` in a CSV.
        label_names: The classes in order; what the files have are these names, or their places in
            this list, from 0. Null: the labels that are found. Of folders, only these are read.
        empty: What a text without a character is: refused, or one padding token.
        tokenizer: What a token is: a word, a character, or a frequent run of bytes (byte pairs).
        vocab_size: At most so many tokens are told apart, three special ones included.
        min_frequency: What is seen less often in the train split is unknown, or not merged.
        lowercase: Whether case is ignored.
        max_length: Tokens kept of a text; longer ones are cut and counted.
        licence: Of the texts, for the records.
        origin: Where they come from, for the records; null: the path.

    Raises:
        ValueError: The encoding is not known, `delimiter` is not one character, a name is twice in
            `label_names`, or `vocab_size` is too small for the tokenizer.
    """

    def __init__(
        self,
        *,
        path: str,
        val_path: str | None = None,
        test_path: str | None = None,
        format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "lines"] = "auto",
        text: str = "text",
        label: str = "label",
        columns: tuple[str, ...] = (),
        encoding: str = "utf-8",
        delimiter: str | None = None,
        header: bool = True,
        quotes: bool = True,
        task: Literal["classification", "multi_label"] | None = None,
        label_separator: str | None = None,
        label_names: tuple[str, ...] | None = None,
        empty: Literal["refuse", "pad"] = "refuse",
        tokenizer: Literal["word", "char", "bpe"] = "word",
        vocab_size: Count = 10000,
        min_frequency: Count = 2,
        lowercase: bool = True,
        max_length: Count = 256,
        licence: str = "not stated",
        origin: str | None = None,
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name != "self"}
        self.paths = {"train": path, "val": val_path, "test": test_path}
        self.columns = [text, label, *columns]
        self.layout = Layout(format, encoding, delimiter, header, quotes)
        check_layout(self.layout)
        if label_names and len(set(label_names)) < len(label_names):
            raise ValueError("a name appears twice in label_names")
        if label_separator == "":
            raise ValueError("label_separator is empty: give a character, or null")
        self.task, self.label_separator = task, label_separator
        self.label_names = None if label_names is None else list(label_names)
        self.empty, self.licence, self.origin = empty, licence, origin or path
        self.encoder = TextEncoder(
            unit=tokenizer,
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            lowercase=lowercase,
            max_length=max_length,
        )

    def read(self, scratch: Path) -> Raw:
        """Spool the texts into `scratch` and return them with their labels.

        Raises:
            DataError: A file is not what it should be, a text is empty or a label missing.
            EnvironmentFault: A file is missing, or the disk is full.
        """
        paths = {part: user_path(given) for part, given in self.paths.items() if given}
        labels = Labels(self.columns[1], self.label_names, self.label_separator)
        parts, columns = {}, {}
        for part, rows in self._rows(paths).items():
            reading = _Part(rows, self.columns, labels)
            try:
                texts = TextSpool(scratch / f"{part}.txt", reading)
            except OSError as error:
                raise cannot_write(error, scratch) from None
            if self.empty == "refuse":
                reading.check_empty()
            parts[part] = (texts, reading)
            columns[part] = dict(zip(self.columns[2:], reading.further(), strict=True))
        several = self._several(labels)
        targets = {
            part: labels.flags(r.codes, r.counts) if several else labels.numbered(r.codes)
            for part, (_, r) in parts.items()
        }
        return Raw(
            kind="text",
            task="multi_label" if several else "classification",
            parts={part: (texts, targets[part]) for part, (texts, _) in parts.items()},
            classes=labels.classes(),
            licence=self.licence,
            origin=self.origin,
            encoder=self.encoder,
            columns=columns,
            files=list(paths.values()),
            reading=Reading(
                target="" if paths["train"].is_dir() else self.columns[1],
                parts={part: path.name for part, path in paths.items()},
            ),
        )

    def _several(self, labels: Labels) -> bool:
        """Whether the texts have several labels each; refuse what was asked for and is not so."""
        if self.task == "classification" and labels.several:
            path, number = labels.lists or next(iter(labels.first.values()))
            what = f"a text has several labels or none (lists from line {number} on)"
            raise DataError(what, str(path), "set data.source.task=null, for several labels a text")
        return labels.several or self.task == "multi_label"

    def _rows(self, paths: dict[str, Path]) -> dict[str, Iterator[Row]]:
        """Each part's rows, not read yet."""
        if paths["train"].is_dir():
            if len(paths) > 1:
                what = "a folder contains its own splits: train, val, test"
                raise DataError(what, str(paths["train"]), "set val_path and test_path to null")
            of_files = (*OF_FILES, "format")
            refuse_unused(Text, self.given, of_files, "the texts are files in one folder per class")
            return {
                part: read_folder(folder, self.layout.encoding, self.label_names)
                for part, folder in folders_of(paths["train"]).items()
            }
        formats = {self.layout.format_of(path) for path in paths.values()}
        used = {name for each in formats for name in USED.get(each, (*OF_FILES, "encoding"))}
        unused = [name for name in (*OF_FILES, "encoding") if name not in used]
        refuse_unused(Text, self.given, unused, f"the format is {' and '.join(sorted(formats))}")
        parts = {name if len(paths) > 1 else "all": path for name, path in paths.items()}
        return {part: read_rows(path, self.columns, self.layout) for part, path in parts.items()}


class _Part:
    """Goes through a part's rows once: gives the texts, and keeps what else they have."""

    def __init__(self, rows: Iterator[Row], columns: list[str], labels: Labels) -> None:
        self.rows, self.column, self.labels = rows, columns[0], labels
        self.codes = array("q")  # of all labels, one text after the other
        self.counts = array("q")  # how many each text has
        self.empty: list[tuple[Path, int]] = []
        self.cells: list[list[Any]] = [[] for _ in columns[2:]]

    def __iter__(self) -> Iterator[str]:
        for path, number, (text, label, *further) in self.rows:
            if text is not None and not isinstance(text, str):
                what = f"line {number}: '{self.column}' is {text!r:.40}, which is not text"
                raise DataError(what, str(path), "name the column of texts: data.source.text=...")
            stripped = (text or "").strip()
            if not stripped:
                self.empty.append((path, number))
            codes = self.labels.add(label, path, number)
            self.codes.extend(codes)
            self.counts.append(len(codes))
            for cells, cell in zip(self.cells, further, strict=True):
                cells.append(cell)
            yield stripped

    def check_empty(self) -> None:
        """Refuse texts without a character.

        Raises:
            DataError: There are some.
        """
        if self.empty:
            shown = ", ".join(f"{path.name}:{number}" for path, number in self.empty[:SHOWN])
            raise DataError(
                f"{len(self.empty)} empty texts, first {shown}",
                str(self.empty[0][0]),
                "remove them, or make each one padding token: data.source.empty=pad",
            )

    def further(self) -> list[Array]:
        """Return the further columns `(n,)`: of numbers where they are numbers."""
        return [_column(cells) for cells in self.cells]


def _column(cells: list[Any]) -> Array:
    try:
        numbers: Array = np.array([float(cell) for cell in cells])
        return numbers
    except (TypeError, ValueError):
        return np.array(["" if cell is None else str(cell) for cell in cells], dtype=object)
