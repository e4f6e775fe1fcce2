import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from litlab.config.hyperparameters import Cell, Count
from litlab.data.encode.table import TableEncoder
from litlab.data.prepare.source_files import user_path
from litlab.data.raw import Raw, Reading
from litlab.data.sources.table_columns import (
    MOST_CATEGORIES,
    Survey,
    amounts,
    doubts,
    flags,
    groups,
    is_label,
    kinds,
    labels,
    missing_cells,
    times,
)
from litlab.data.sources.table_file import (
    Features,
    TableFile,
    TableFormat,
    TableRows,
    is_parquet,
    lacks_columns,
    open_table,
)
from litlab.data.sources.unused import refuse_unused
from litlab.data.spec import Array
from litlab.utils.errors import DataError, nearest

# What pandas calls the index that it writes beside the columns, in CSV and Parquet, and reads back.
INDEX = re.compile(r"|__index_level_0__|Unnamed: 0(\.\d+)?")
FEW_CLASSES = 20
OF_TEXT = ("delimiter", "header", "names", "comment", "encoding")  # settings of no use to Parquet

T = TypeVar("T")


class Table:
    """A table of the user's: CSV, TSV or other text with delimiters, or Parquet.

    The columns that are neither target, group, time nor dropped are the features: numeric where
    every cell is a number, categorical where the values are few. Dates, free text and columns that
    are numbers but for a few cells are refused, with the settings that help.

    Args:
        path: The file, relative to the project's root; `.csv.gz` and the like are unpacked.
        target: Column to predict; several of them for several labels, or several numbers.
        task: `auto` takes a target of text, or of at most 20 whole numbers, for classes, and
            several targets of 0 and 1 for labels (multi_label).
        val_path: A file of its own for validation; null: a share of the first.
        test_path: A file of its own for the test split, likewise.
        delimiter: Between cells; null: found from the first lines, a tab for `.tsv`.
        header: Whether the first line names the columns.
        names: Of the columns, where there is no header, or better ones.
        comment: Lines that start with it are left out.
        decimal: What separates a number's fraction.
        encoding: Of the text.
        na_values: Cells that mean that nothing is known, beside those of the default; blanks around
            cells, and case, never count.
        numeric: Columns of numbers, where they are mistaken for something else.
        categorical: Columns of categories, likewise: codes that look like numbers, identifiers.
        drop: Columns to leave out.
        group: Column of what stays in one split; not a feature. conf/ hands data.group on.
        time: Column to split by; not a feature. Numbers or ISO dates. conf/ hands data.time on.
        impute: What becomes of missing cells: refuse them, or fill a number with the median or the
            mean of train, a category with one of its own, `<missing>`.
        scale: Numbers less the mean over the deviation of train, or mapped by its quantiles to a
            normal distribution.
        max_categories: More different values than these are text, unless `categorical` says so.
        label_suffix: Cut off the ends of labels, as the '.' of UCI's .test files.
        licence: Of the data, for the record.
        origin: Of the data: a citation or an address; null: the path.
    """

    def __init__(
        self,
        *,
        path: str,
        target: str | list[str],
        task: Literal["auto", "classification", "multi_label", "regression"] = "auto",
        val_path: str | None = None,
        test_path: str | None = None,
        delimiter: str | None = None,
        header: bool = True,
        names: tuple[str, ...] = (),
        comment: str | None = None,
        decimal: Literal[".", ","] = ".",
        encoding: str = "utf-8",
        na_values: tuple[Cell, ...] = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "?"),
        numeric: tuple[str, ...] = (),
        categorical: tuple[str, ...] = (),
        drop: tuple[str, ...] = (),
        group: str | None = None,
        time: str | None = None,
        impute: Literal["refuse", "median", "mean"] = "refuse",
        scale: Literal["standard", "quantile"] = "standard",
        max_categories: Count = 1000,
        label_suffix: str = "",
        licence: str = "not stated",
        origin: str | None = None,
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name != "self"}
        paths = {"train": path, "val": val_path, "test": test_path}
        self.paths = {part: str(p) for part, p in paths.items() if p is not None}
        self.style = TableFormat(
            delimiter, header, tuple(names), comment, decimal, encoding, tuple(na_values)
        )
        self.targets = [target] if isinstance(target, str) else list(target)
        self.options = {
            "target": self.targets,
            "numeric": list(numeric),
            "categorical": list(categorical),
            "drop": list(drop),
            "group": [group] if group else [],
            "time": [time] if time else [],
        }
        self.task, self.impute, self.scale = task, impute, scale
        self.max_categories, self.label_suffix = max_categories, label_suffix
        self.licence, self.origin = licence, origin or path
        self._check_options()

    def _check_options(self) -> None:
        for name in ("comment", "delimiter"):
            if getattr(self.style, name) == "":
                raise ValueError(f"data.source.{name} is empty: give a character, or null")
        if not self.targets:
            raise ValueError("data.source.target is empty: name the column to predict")
        for name in self.targets + self.options["categorical"] + self.options["numeric"]:
            others = [key for key, names in self.options.items() if name in names]
            if len(others) > 1:
                raise ValueError(f"column '{name}' is in {' and in '.join(others)}: choose one")

    def read(self, scratch: Path) -> Raw:
        """Spool the table into a file in `scratch` and look at each column.

        Raises:
            DataError: The file is no table, or holds what no network should be fed as it is.
            EnvironmentFault: There is no such file.
        """
        tables = {
            part: open_table(user_path(path), self.style) for part, path in self.paths.items()
        }
        if all(is_parquet(table.path) for table in tables.values()):
            refuse_unused(Table, self.given, OF_TEXT, "Parquet has columns and types of its own")
        features = self._features(tables)
        kept = [*self.options["group"], *self.options["time"]]
        names = list(dict.fromkeys([*features, *self.targets, *kept]))
        rows = {
            part: TableRows(table, names, scratch / f"{part}.arrow")
            for part, table in tables.items()
        }
        surveys = self._look(rows, names)
        of_features = [surveys[name] for name in features]
        numeric, categorical = kinds(
            of_features, self.options["numeric"], self.options["categorical"]
        )
        refused = missing_cells(of_features)
        if refused and self.impute == "refuse":
            raise refused
        task, notes = self._decide(surveys)
        classes, targets = self._read_targets(rows, task, surveys)
        parts = {
            part: (Features(r, numeric, categorical, self.style.decimal), targets[part])
            for part, r in rows.items()
        }
        return Raw(
            kind="tabular",
            task=task,
            parts=_alone(parts),
            classes=classes,
            targets=self.targets if task == "regression" else [],
            licence=self.licence,
            origin=self.origin,
            encoder=TableEncoder(numeric, categorical, impute=self.impute, scale=self.scale),
            columns=_alone({part: self._columns(r, surveys) for part, r in rows.items()}),
            files=[table.path for table in tables.values()],
            notes=lambda: notes,
            reading=Reading(
                target=", ".join(self.targets),
                roles={role: name for role in ("group", "time") for name in self.options[role]},
                left_out=self._left_out(tables["train"]),
                parts={part: table.path.name for part, table in tables.items()},
                doubts=doubts(of_features, numeric, self._sure()),
            ),
        )

    def _sure(self) -> list[str]:
        """The columns of which the user said what they are."""
        return [*self.options["numeric"], *self.options["categorical"]]

    def _left_out(self, table: TableFile) -> dict[str, str]:
        """The columns that nothing is learnt from, with the reason."""
        known = {*self.targets, *self.options["group"], *self.options["time"], *self._sure()}
        index = {name: "an index" for name in table.names if INDEX.fullmatch(name)}
        index |= {name: "data.source.drop" for name in self.options["drop"]}
        return {name: why for name, why in index.items() if name not in known}

    def _features(self, tables: Mapping[str, TableFile]) -> list[str]:
        """The columns that are features, after a look at all the names."""
        first = tables["train"]
        for option, names in self.options.items():
            setting = f"data.{option}" if option in ("group", "time") else f"data.source.{option}"
            _require(names, first, f", {setting}")
        used = {n for o in ("target", "group", "time") for n in self.options[o]}
        used |= self._left_out(first).keys()
        features = [name for name in dict.fromkeys(first.names) if name not in used]
        if not features:
            raise DataError("no feature column is left", str(first.path), "drop fewer columns")
        kept = [*features, *self.targets, *self.options["group"], *self.options["time"]]
        for table in tables.values():
            _require_all(kept, table, first)
            twice = [name for name in kept if table.names.count(name) > 1]
            if twice:
                raise DataError(f"column '{twice[0]}' appears twice", str(table.path), "rename it")
        return features

    def _look(self, rows: Mapping[str, TableRows], names: Sequence[str]) -> dict[str, Survey]:
        where, decimal = str(rows["train"].path), self.style.decimal
        limits = dict.fromkeys(self.options["categorical"], MOST_CATEGORIES)
        surveys = {
            name: Survey(name, where, decimal, limits.get(name, self.max_categories))
            for name in names
        }
        for part in rows.values():
            start = 0
            for batch in part.batches(names):
                for name in names:
                    surveys[name].see(batch[name], part.place, start)
                start += batch.num_rows
        return surveys

    def _decide(
        self, surveys: Mapping[str, Survey]
    ) -> tuple[Literal["classification", "multi_label", "regression"], list[str]]:
        """The task, and a note where it was a guess."""
        if self.task != "auto":
            return self.task, []
        target = surveys[self.targets[0]]
        if len(self.targets) > 1 and all(map(is_label, (surveys[n] for n in self.targets))):
            note = f"the {len(self.targets)} targets hold only 0 and 1 and are read as labels"
            return "multi_label", [f"{note} (amounts: data.source.task=regression)"]
        if len(self.targets) == 1 and target.numbers < target.present:
            return "classification", []
        number = len(target.values or ())
        if len(self.targets) > 1 or not target.whole or not 0 < number <= FEW_CLASSES:
            return "regression", []
        note = f"the target '{target.name}' has {number} different whole numbers and is read as "
        return "classification", [f"{note}classes (amounts: data.source.task=regression)"]

    def _read_targets(
        self, rows: Mapping[str, TableRows], task: str, surveys: Mapping[str, Survey]
    ) -> tuple[list[str], dict[str, Array]]:
        if task == "regression":
            refuse_unused(Table, self.given, ["label_suffix"], "the targets are numbers")
            return [], amounts(rows, [surveys[name] for name in self.targets])
        if task == "multi_label":
            refuse_unused(Table, self.given, ["label_suffix"], "the targets are 0 and 1")
            return self.targets, flags(rows, [surveys[name] for name in self.targets])
        if len(self.targets) == 1:
            return labels(rows, surveys[self.targets[0]], self.label_suffix)
        what = f"{len(self.targets)} targets that are classes"
        raise DataError(what, "data.source.target", "name one; several must be 0 and 1, or numbers")

    def _columns(self, rows: TableRows, surveys: Mapping[str, Survey]) -> Mapping[str, Array]:
        """What the split may go by."""
        found = {name: groups(rows, surveys[name]) for name in self.options["group"]}
        return found | {name: times(rows, surveys[name]) for name in self.options["time"]}


def _alone(parts: dict[str, T]) -> dict[str, T]:
    """A table without files of its own for validation and test is the whole of the data."""
    return {"all": parts["train"]} if list(parts) == ["train"] else parts


def _require_all(names: Sequence[str], table: TableFile, first: TableFile) -> None:
    """Refuse a file that lacks columns of the first one."""
    lacking = [name for name in names if name not in table.names]
    if lacking:
        raise lacks_columns(lacking, names, table, f"'{first.path.name}' has")


def _require(names: Iterable[str], table: TableFile, setting: str = "") -> None:
    for name in names:
        if name not in table.names:
            where = f"{table.path}{setting}"
            raise DataError(f"there is no column '{name}'", where, nearest(name, table.names))
