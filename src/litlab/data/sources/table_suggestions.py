"""Settings of a table that the user might want, with the evidence; none of them is in effect."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from litlab.data.raw import Decision
from litlab.data.sources.table_cells import MISSING
from litlab.data.sources.table_columns import ROWS, Survey
from litlab.data.spec import Column

GROUP_NAME = re.compile(
    r".*(patient|subject|person|user|customer|client|participant|household|speaker|family"
    r"|session|student|player|driver|author)s?([\W_]*(id|nr|no|number|code|name))?",
    re.IGNORECASE,
)


def suggestions(
    surveys: Mapping[str, Survey],
    features: Sequence[Column],
    targets: Sequence[str],
    given: Mapping[str, Any],
    dropped: Sequence[str],
) -> tuple[Decision, ...]:
    """Return settings that the user might want, each list with what is set already.

    Args:
        surveys: Of the columns that were read.
        features: What is learnt from.
        targets: What is predicted.
        given: The source's settings by name.
        dropped: Columns that are left out.
    """
    others = [survey for name, survey in surveys.items() if name not in targets]
    sure = {*given["numeric"], *given["categorical"], *(given["dates"] or {})}
    asked = [survey for survey in others if survey.name not in sure]
    numbers = {f.source for f in features if f.kind == "numeric" and not f.cells.part}
    rising = [s.name for s in asked if s.name in numbers and _is_rising(s)]
    categories = {f.source for f in features if f.kind == "categorical"}
    mixed = [s for s in asked if s.name in categories and _has_several_units(s)]
    found = [_marks(surveys, given["na_values"])]
    found += [_group(others)] if not given["group"] else []
    found += [_time(features)] if not given["time"] else []
    if rising:
        why = f"whole numbers that grow from row to row, like row numbers: {some(rising)}"
        found.append(_list("drop", [*dropped, *rising], why))
    if mixed:
        shown = some(f"{s.name} ({s.example()})" for s in mixed)
        why = f"numbers with several units are read as categories: {shown}; write plain numbers in "
        why += "the file, or confirm"
        names = [*given["categorical"], *(s.name for s in mixed)]
        found.append(_list("categorical", names, why))
    return tuple(suggestion for suggestion in found if suggestion is not None)


def _marks(surveys: Mapping[str, Survey], known: Sequence[str]) -> Decision | None:
    marks = {n: mark for n, s in surveys.items() if (mark := sentinel(s)) is not None}
    if not marks:
        return None
    given = [value for value in known if value.lower() not in map(str.lower, MISSING)]
    counts = some(f"{name} {surveys[name].sentinels[mark]}" for name, mark in marks.items())
    why = f"far from all other numbers, so these are probably missing cells: {counts}"
    return _list("na_values", [*given, *dict.fromkeys(f"{m:g}" for m in marks.values())], why)


def sentinel(survey: Survey) -> float | None:
    """Return a number that probably means that nothing is known, far from all others."""
    for mark, number in survey.sentinels.most_common():
        below = mark < -1 and survey.low >= 0
        above = mark > 0 and survey.high < mark / 5
        far = mark < 0 and survey.low > mark / 3
        if survey.numbers > number > 1 and (below or above or far):
            return mark
    return None


def _group(surveys: Sequence[Survey]) -> Decision | None:
    for survey in surveys:
        number = len(survey.values or ())
        if GROUP_NAME.fullmatch(survey.name) and 5 < number < survey.present / 1.5:
            repeats = survey.present / number
            why = f"each value of {survey.name} is in {repeats:.1f} rows: keep them in one split"
            return Decision(setting="data.group", value=survey.name, why=why)
    return None


def _time(features: Sequence[Column]) -> Decision | None:
    dated = next((f.source for f in features if f.cells.part == "days"), None)
    why = "to test on what comes later, if the task is to look ahead"
    return Decision(setting="data.time", value=dated, why=why) if dated else None


def _list(name: str, values: Sequence[str], why: str) -> Decision:
    return Decision(setting=f"data.source.{name}", value=list(values), why=why)


def _is_rising(survey: Survey) -> bool:
    return survey.rising and survey.whole and survey.rows >= ROWS


def _has_several_units(survey: Survey) -> bool:
    units = max(survey.amounts.values(), key=lambda units: sum(units.values()))
    return len(units) == 2 and sum(units.values()) + survey.numbers > survey.present / 2


def some(names: Iterable[str], most: int = 8) -> str:
    """Return a list as a message shows it."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" * (len(listed) > most))
