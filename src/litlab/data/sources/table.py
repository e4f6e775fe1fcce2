import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from litlab.config.hyperparameters import Cell, Count
from litlab.data.encode.table import TableEncoder
from litlab.data.prepare.source_files import user_path
from litlab.data.raw import Decision, Raw, Reading
from litlab.data.sources.table_columns import (
    MOST_CATEGORIES,
    Decimal,
    Survey,
    amounts,
    are_marks,
    date_formats,
    flags,
    format_of,
    groups,
    is_label,
    labels,
    missing_cells,
    times,
    verdict,
)
from litlab.data.sources.table_file import (
    TableFile,
    is_parquet,
    lacks_columns,
    open_table,
    quoted,
)
from litlab.data.sources.table_layout import TableFormat
from litlab.data.sources.table_rows import Features, TableRows
from litlab.data.sources.table_suggestions import some, suggestions
from litlab.data.sources.unused import refuse_unused
from litlab.data.spec import Array, CellFormat, Column
from litlab.utils.errors import DataError, LitlabError, nearest, refuse

# What pandas calls the index that it writes beside the columns, in CSV and Parquet, and reads back.
INDEX = re.compile(r"|__index_level_0__|Unnamed: 0(\.\d+)?")
NUMBERED = re.compile(r"column(\d+)")
FEW_CLASSES = 20
# Settings of no use to Parquet.
OF_TEXT = ("delimiter", "header", "names", "comment", "encoding", "skip_start", "skip_end")
PARTS = (
    "year",
    "days",
    *(f"{turn} {s}" for turn in ("month", "weekday", "hour") for s in ("sin", "cos")),
)

T = TypeVar("T")


class Table:
    """A table of the user's: CSV, TSV or other text with delimiters, or Parquet.

    The columns that are neither target, group, time nor dropped are the features: numbers, also
    with units (`$1,234.50`), dates, which become year, month, weekday, hour and days, and
    categories, where the values are few. Free text, identifiers, constants and row numbers are left
    out. What a setting leaves open is found out from the file, and said in `Reading.decisions`.

    Args:
        path: The file, relative to the project's root; `.csv.gz` and the like are unpacked.
        target: Column to predict; several of them for several labels, or several numbers.
        task: `auto` takes a target of text, or of at most 20 whole numbers, for classes, and
            several targets of 0 and 1 for labels (multi_label).
        val_path: A file of its own for validation; null: a share of the first.
        test_path: A file of its own for the test split, likewise.
        delimiter: Between cells; `tab`, `whitespace` (any number of blanks), `fixed` (columns of
            fixed width); null: found from the first lines.
        header: Whether the first line names the columns; null: found out.
        names: Of the columns, where there is no header, or better ones.
        comment: Lines that start with it are left out.
        skip_start: Lines above the header that are left out; null: found out.
        skip_end: Lines below the last row that are left out, such as totals; null: found out.
        decimal: What separates a number's fraction, for all columns or by column; null: found out.
        encoding: Of the text; null: found out.
        na_values: Further cells that mean that nothing is known, beside `NA`, `null`, `?` and the
            like; blanks around cells, and case, never count.
        numeric: Columns of numbers, where they are mistaken for something else.
        categorical: Columns of categories, likewise: codes that look like numbers, identifiers.
        dates: Columns of dates with their formats: `{day: "%d/%m/%Y"}`, or `iso`. Others are found.
        drop: Columns to leave out, beside those that are found to be of no use.
        group: Column of what stays in one split; not a feature. conf/ hands data.group on.
        time: Column to split by; not a feature. Numbers or dates. conf/ hands data.time on.
        missing_target: What becomes of rows without a target: `drop` or `refuse`; null: drop.
        impute: What becomes of missing cells: refuse them, or fill a number with the median or the
            mean of train, a category with one of its own, `<missing>`. `indicator`: the median, and
            a further column that says where numbers were missing. null: that, if cells are missing.
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
        header: bool | None = None,
        names: tuple[str, ...] = (),
        comment: str | None = None,
        skip_start: int | None = None,
        skip_end: int | None = None,
        decimal: Literal[".", ","] | dict[str, str] | None = None,
        encoding: str | None = None,
        na_values: tuple[Cell, ...] = (),
        numeric: tuple[str, ...] = (),
        categorical: tuple[str, ...] = (),
        dates: dict[str, str] | None = None,
        drop: tuple[str, ...] = (),
        group: str | None = None,
        time: str | None = None,
        missing_target: Literal["drop", "refuse"] | None = None,
        impute: Literal["refuse", "median", "mean", "indicator"] | None = None,
        scale: Literal["standard", "quantile"] = "standard",
        max_categories: Count = 1000,
        label_suffix: str = "",
        licence: str = "not stated",
        origin: str | None = None,
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name != "self"}
        paths = {"train": path, "val": val_path, "test": test_path}
        self.paths = {part: str(p) for part, p in paths.items() if p is not None}
        self.style = TableFormat.of(self.given)
        self.targets = [target] if isinstance(target, str) else list(target)
        self.dates = dict(dates or {})
        self.options = {
            "target": self.targets,
            "numeric": list(numeric),
            "categorical": list(categorical),
            "dates": [name for name in self.dates if name != time],
            "drop": list(drop),
            "group": [group] if group else [],
            "time": [time] if time else [],
        }
        self.task, self.impute, self.scale, self.missing_target = (
            task,
            impute,
            scale,
            missing_target,
        )
        self.max_categories, self.label_suffix = max_categories, label_suffix
        self.licence, self.origin = licence, origin or path
        self._check_options()

    def _check_options(self) -> None:
        for name in ("comment", "delimiter"):
            if getattr(self.style, name) == "":
                fix = "give a character, or null"
                fix += "; a shell ends a command at ;, so write semicolon" * (name == "delimiter")
                raise ValueError(f"data.source.{name} is empty: {fix}")
        if not self.targets:
            raise ValueError("data.source.target is empty: name the column to predict")
        for name in [n for o in ("target", "categorical", "numeric") for n in self.options[o]]:
            others = [key for key, names in self.options.items() if name in names]
            if len(others) > 1:
                raise ValueError(f"column '{name}' is in {' and in '.join(others)}: choose one")

    def read(self, scratch: Path) -> Raw:
        """Spool the table into a file in `scratch` and look at each column.

        Raises:
            DataError: The file is no table, or holds what no network should be fed as it is.
            EnvironmentFault: There is no such file.
        """
        self.decisions: list[Decision] = []
        self.formats: dict[str, str] = {}  # of dates, as they were found
        self.left_out: dict[str, str] = {}
        tables = self._open()
        names = self._columns_read(tables)
        rows = self._spool(tables, names, scratch)
        surveys = self._survey(rows, self.targets, ())
        task, notes = self._decide(surveys)
        if task == "regression":
            rows = self._without_marks(tables, names, rows, scratch, surveys)
            surveys = self._survey(rows, self.targets, self.targets)
        roles = [*self.options["group"], *self.options["time"]]
        others = [name for name in names if name not in self.targets]
        surveys |= self._survey(rows, others, [n for n in others if n not in self.options["group"]])
        self._settle_decimal(surveys.values())
        self._settle_time(surveys)
        features = self._features([surveys[name] for name in others if name not in roles])
        of_features = [surveys[n] for n in dict.fromkeys(f.source for f in features)]
        impute = self._imputation(of_features)
        if impute == "indicator":
            features = _renamed([*features, *_indicators(of_features)])
        classes, targets = self._read_targets(rows, task, surveys)
        by_kind = [[f.name for f in features if f.kind == k] for k in ("numeric", "categorical")]
        styles = {feature.name: feature.cells for feature in features}
        return Raw(
            kind="tabular",
            task=task,
            parts=_alone(
                {part: (Features(r, features), targets[part]) for part, r in rows.items()}
            ),
            classes=classes,
            targets=self.targets if task == "regression" else [],
            licence=self.licence,
            origin=self.origin,
            encoder=TableEncoder(*by_kind, impute=impute, scale=self.scale, cells=styles),
            columns=_alone({part: self._columns(r, surveys) for part, r in rows.items()}),
            files=[table.path for table in tables.values()],
            notes=lambda: notes,
            reading=self._reading(tables, surveys, features),
        )

    def _reading(
        self,
        tables: Mapping[str, TableFile],
        surveys: Mapping[str, Survey],
        features: Sequence[Column],
    ) -> Reading:
        auto: Any = [d.value for d in self.decisions if d.setting == "data.source.drop"]
        dropped = auto[0] if auto else self.options["drop"]
        found = suggestions(surveys, features, self.targets, self.given, dropped)
        return Reading(
            decisions=tuple(self.decisions),
            suggestions=found,
            target=", ".join(self.targets),
            roles={role: name for role in ("group", "time") for name in self.options[role]},
            left_out=self.left_out,
            parts={part: table.path.name for part, table in tables.items()},
        )

    def _settle(self, name: str, value: Any, why: str) -> None:
        """Note a decision."""
        self.decisions.append(Decision(setting=f"data.source.{name}", value=value, why=why))

    # The files and their columns.

    def _open(self) -> dict[str, TableFile]:
        wanted = [n for o, names in self.options.items() if o != "drop" for n in names]
        tables = {
            part: open_table(user_path(path), self.style, wanted)
            for part, path in self.paths.items()
        }
        if all(is_parquet(table.path) for table in tables.values()):
            refuse_unused(Table, self.given, OF_TEXT, "Parquet has columns and types of its own")
        first, *others = tables.values()
        for decision in first.decisions:
            name = decision.setting.rpartition(".")[2]
            if all(_layout(t, name) == _layout(first, name) for t in others):
                self.decisions.append(decision)
        return tables

    def _columns_read(self, tables: Mapping[str, TableFile]) -> list[str]:
        """The columns to look at, after a look at all the names."""
        first = tables["train"]
        for option in ("numeric", "categorical", "drop"):
            blocks = [first.blocks.get(name, [name]) for name in self.options[option]]
            self.options[option] = [name for block in blocks for name in block]
        missing = []
        for option, names in self.options.items():
            setting = f"data.{option}" if option in ("group", "time") else f"data.source.{option}"
            missing += _lacking(names, first, f", {setting}")
        refuse(missing)
        roles = [n for o in ("target", "group", "time") for n in self.options[o]]
        known = {*roles, *self._sure()}
        self.left_out = {name: "data.source.drop" for name in self.options["drop"]}
        index = [name for name in first.names if INDEX.fullmatch(name)]
        unread = {
            n: f"holds {what}" for table in tables.values() for n, what in table.unread.items()
        }
        self.left_out |= {name: "an index" for name in index if name not in known}
        if first.names[0] == "" and "" not in known and len(first.names) > 1:
            self.left_out[""] = "an index"
        for name, why in unread.items():
            if name not in known and name not in self.left_out:
                self.left_out[name] = why
        names = [name for name in first.names if name not in self.left_out]
        for table in tables.values():
            lacking = [name for name in names if name not in table.names]
            if lacking:
                raise lacks_columns(lacking, names, table, f"'{first.path.name}' has")
        return names

    def _sure(self) -> list[str]:
        """The columns of which the user said what they are."""
        return [n for option in ("numeric", "categorical", "dates") for n in self.options[option]]

    def _spool(
        self,
        tables: Mapping[str, TableFile],
        names: Sequence[str],
        scratch: Path,
        needed: Mapping[str, CellFormat] | None = None,
    ) -> dict[str, TableRows]:
        """The rows with a target, in a file of their own."""
        kept = needed or dict.fromkeys(self.targets, CellFormat())
        kept = {} if self.missing_target == "refuse" else kept
        rows = {
            part: TableRows(table, names, scratch / f"{part}.arrow", kept)
            for part, table in tables.items()
        }
        number = sum(len(r.left_out) for r in rows.values())
        self.decisions = [d for d in self.decisions if not d.setting.endswith(".missing_target")]
        if number and self.missing_target is None:
            places = [
                t.place(int(i))
                for t, r in zip(tables.values(), rows.values(), strict=True)
                for i in r.left_out[:2]
            ]
            total = number + sum(map(len, rows.values()))
            lacked = ", ".join(self.targets)
            why = f"{number} of {total} rows have no {lacked}, first {', '.join(places[:2])}"
            if number == total:
                raise DataError(
                    f"no row has a target: {why}",
                    str(tables["train"].path),
                    "check data.source.target",
                )
            self._settle("missing_target", "drop", why)
        return rows

    def _without_marks(
        self,
        tables: Mapping[str, TableFile],
        names: Sequence[str],
        rows: dict[str, TableRows],
        scratch: Path,
        surveys: Mapping[str, Survey],
    ) -> dict[str, TableRows]:
        """The rows, without those whose target is a mark that nothing is known, such as '-'."""
        styles = {n: format_of(surveys[n], self._decimal(n)) for n in self.targets}
        if not any(style.missing for style in styles.values()) or self.missing_target == "refuse":
            return rows
        return self._spool(tables, names, scratch, styles)

    # What the columns are.

    def _survey(
        self, rows: Mapping[str, TableRows], names: Sequence[str], guessed: Sequence[str]
    ) -> dict[str, Survey]:
        """Look at columns, and once more at those `guessed` whose cells are no plain numbers."""
        surveys = self._look(rows, dict.fromkeys(names, CellFormat()))
        tie = self._tie([surveys[name] for name in guessed])
        styles: dict[str, CellFormat] = {}
        for name in guessed:
            if name in self.options["categorical"]:
                continue
            style = format_of(surveys[name], self._decimal(name), tie)
            if name in self.dates:
                style = CellFormat(dates=self.dates[name])
            if name in self.options["numeric"] and style.dates:
                style = CellFormat()
            if style != CellFormat():
                styles[name] = style
        dates = self._look(rows, {n: style for n, style in styles.items() if style.dates})
        for name, survey in list(dates.items()):  # a few cells that are no dates hold nothing
            number = sum(survey.marks.values())
            if number and are_marks(survey.marks, number, survey):
                marks = tuple(sorted(survey.marks))
                styles[name] = survey.style.model_copy(update={"missing": marks})
            elif number and name not in self.dates and name not in self.options["time"]:
                del styles[name], dates[name]
        again = {n: s for n, s in styles.items() if n not in dates or s.missing}
        return surveys | dates | self._look(rows, again)

    def _look(
        self, rows: Mapping[str, TableRows], styles: Mapping[str, CellFormat]
    ) -> dict[str, Survey]:
        where, names = str(rows["train"].path), list(styles)
        limits = dict.fromkeys(self.options["categorical"], MOST_CATEGORIES)
        surveys = {
            name: Survey(name, where, limits.get(name, self.max_categories), style)
            for name, style in styles.items()
        }
        for part in rows.values() if names else ():
            start = 0
            for batch in part.batches(names):
                for name in names:
                    surveys[name].see(batch[name], part.place, start)
                start += batch.num_rows
        return surveys

    def _decimal(self, name: str) -> Decimal | None:
        """What the user says that separates a column's fractions."""
        given: Any = self.style.decimal
        found: Decimal | None
        found = given.get(name, ".") if isinstance(given, Mapping) else given
        return found

    def _tie(self, surveys: Sequence[Survey]) -> Decimal:
        """What 1,234 is if a column has nothing but such cells: what the others have."""
        styles = [format_of(survey) for survey in surveys if survey.sample]
        commas = sum(style.decimal == "," for style in styles)
        points = sum(survey.dots > 0 and survey.is_numeric for survey in surveys)
        return "," if commas > points else "."

    def _features(self, surveys: Sequence[Survey]) -> list[Column]:
        """What is learnt from, with decisions on what had to be guessed.

        Raises:
            DataError: Nothing is left, or columns are not what the user says; all reasons at once.
        """
        found: dict[str, list[Column]] = {"numeric": [], "categorical": []}
        guessed: dict[str, dict[str, str]] = {"numeric": {}, "categorical": {}, "left out": {}}
        reasons: list[LitlabError] = []
        said = {n: o for o in ("numeric", "categorical", "dates") for n in self.options[o]}
        for survey in surveys:
            name = survey.name
            try:
                kind, why = verdict(survey, said.get(name))
            except DataError as error:
                reasons.append(error)
                continue
            if kind == "dates":
                found["numeric"] += _parts(survey)
                if survey.style.dates and name not in self.dates:
                    self.formats[name] = survey.style.dates
            elif kind == "left out":
                self.left_out[name] = why
            else:
                style = survey.style if kind == "numeric" else CellFormat()
                found[kind].append(Column(name=name, kind=kind, cells=style))
            if why and name not in said and kind != "dates":
                guessed[kind][name] = why
        kept = [s for s in surveys if s.name not in self.left_out]
        lacking = missing_cells(kept) if self.impute == "refuse" else None
        refuse([*reasons, lacking] if lacking else reasons)
        features = found["numeric"] + found["categorical"]
        if not features:
            left = "; ".join(f"{name} ({why})" for name, why in list(self.left_out.items())[:8])
            fix = "drop fewer columns, or keep some with data.source.categorical"
            texts = [name for name, why in self.left_out.items() if why.startswith("free text")]
            if texts:
                options = {"text": texts[0], "label": self.targets[0]}
                given = (f"data.source.{key}={quoted(name)}" for key, name in options.items())
                fix = f"to learn from texts: data=text {' '.join(given)}"
            raise DataError(
                f"no feature column is left: {left}",
                surveys[0].where if surveys else str(self.paths["train"]),
                fix,
            )
        self._settle_columns(surveys, guessed)
        return _renamed(features)

    def _settle_columns(
        self,
        surveys: Sequence[Survey],
        guessed: Mapping[str, Mapping[str, str]],
    ) -> None:
        """Note what was decided of columns, each list with what the user had set."""
        for option in ("numeric", "categorical"):
            names = guessed[option]
            if names:
                why = "; ".join(f"{name}: {reason}" for name, reason in list(names.items())[:5])
                self._settle(option, [*self.options[option], *names], why)
        formats = self.formats
        if formats:
            why = "features are year, month, weekday, hour and days, where they differ"
            both = [
                s.name for s in surveys if s.name in formats and (date_formats(s) or ("", []))[1]
            ]
            why += f"; day and month of {some(both)} may be the other way round" if both else ""
            self._settle("dates", {**self.dates, **formats}, why)
        if guessed["left out"]:
            reasons: dict[str, list[str]] = {}
            for name, why in guessed["left out"].items():
                reasons.setdefault(why.partition(":")[0], []).append(name)
            why = "; ".join(f"{reason}: {some(names)}" for reason, names in reasons.items())
            self._settle("drop", [*self.options["drop"], *guessed["left out"]], why)

    def _settle_time(self, surveys: Mapping[str, Survey]) -> None:
        """Keep the format of the dates to split by."""
        for name in self.options["time"]:
            if surveys[name].style.dates not in ("", "iso") and name not in self.dates:
                self.formats[name] = surveys[name].style.dates

    def _settle_decimal(self, surveys: Iterable[Survey]) -> None:
        """Note which columns have decimal commas."""
        numbers = [s for s in surveys if s.is_numeric and not s.dates]
        commas = {
            s.name: ","
            for s in numbers
            if s.style.decimal == "," and any("," in text for text in s.sample)
        }
        if commas and self.style.decimal is None:
            cells = [t for s in numbers if s.name in commas for t in s.sample if "," in t]
            points = any(s.dots and s.style.decimal == "." for s in numbers)
            why = f"{some(commas)}: cells such as '{next(iter(cells), '')}'"
            self._settle("decimal", dict(commas) if points else ",", why)

    def _imputation(
        self, surveys: Sequence[Survey]
    ) -> Literal["refuse", "median", "mean", "indicator"]:
        lacking = [s for s in surveys if s.missing]
        if self.impute is not None:
            return self.impute
        if not lacking:
            return "refuse"
        shown = [f"{s.name} {s.missing}" for s in lacking[:8]]
        more = f" and {len(lacking) - 8} more columns" if len(lacking) > 8 else ""
        self._settle("impute", "indicator", f"missing cells: {', '.join(shown)}{more}")
        return "indicator"

    def _decide(
        self, surveys: Mapping[str, Survey]
    ) -> tuple[Literal["classification", "multi_label", "regression"], list[str]]:
        """The task, and a note where it was a guess."""
        if self.task != "auto":
            return self.task, []
        target = surveys[self.targets[0]]
        number = len(target.values or ())
        if len(self.targets) == 1 and not target.is_numeric:
            style = format_of(target, self._decimal(target.name))
            few = target.values is not None and number <= FEW_CLASSES
            if few or style.dates or not (style.unit or style.missing or style.decimal == ","):
                return "classification", []
            return "regression", []
        if target.is_numeric and target.whole:
            number = len({float(value) for value in target.values or ()})
        if len(self.targets) > 1 and all(map(is_label, (surveys[n] for n in self.targets))):
            why = f"the {len(self.targets)} targets hold only 0 and 1"
            self._settle("task", "multi_label", why)
            return "multi_label", []
        if len(self.targets) > 1 or not target.whole:
            return "regression", []
        many = target.values is None or number > FEW_CLASSES
        task: Literal["classification", "regression"] = "regression" if many else "classification"
        shown = f"over {target.most}" if target.values is None else f"{number}"
        meant = "amounts" if many else "classes"
        why = f"the {shown} different whole numbers of '{target.name}' are read as {meant}"
        self._settle("task", task, why)
        return task, []

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


def _layout(table: TableFile, name: str) -> Any:
    """A setting of a file's format, as it was found."""
    return table.names if name == "names" else getattr(getattr(table, "style", None), name, None)


def _parts(survey: Survey) -> list[Column]:
    """Features of a column of dates."""
    parts = [part for part in PARTS if part in survey.parts]
    return [
        Column(
            name=f"{survey.name} {part}",
            kind="numeric",
            cells=survey.style.model_copy(update={"source": survey.name, "part": part}),
        )
        for part in parts
    ]


def _indicators(surveys: Sequence[Survey]) -> list[Column]:
    """Features that say where a number is missing; a category of its own says it of categories."""
    return [
        Column(
            name=f"{survey.name} missing",
            kind="numeric",
            cells=survey.style.model_copy(update={"source": survey.name, "part": "missing"}),
        )
        for survey in surveys
        if survey.missing and (survey.is_numeric or survey.dates)
    ]


def _renamed(features: Sequence[Column]) -> list[Column]:
    """Features of which no two have one name: parts of dates may be called as a column is."""
    taken = {feature.name for feature in features if not feature.cells.part}
    found: list[Column] = []
    for feature in features:
        name = feature.name
        while feature.cells.part and name in taken:
            name += "."
        taken.add(name)
        found.append(feature.model_copy(update={"name": name}))
    return found


def _lacking(names: Iterable[str], table: TableFile, setting: str = "") -> list[LitlabError]:
    """Refusals of columns that a file lacks."""
    reasons: list[LitlabError] = []
    for name in names:
        if name not in table.names:
            fix = nearest(name, table.names)
            if all(NUMBERED.fullmatch(known) for known in table.names):
                fix = f"the columns are {table.names[0]} to {table.names[-1]}, counted from 0"
            reasons.append(DataError(f"there is no column '{name}'", f"{table.path}{setting}", fix))
    return reasons
