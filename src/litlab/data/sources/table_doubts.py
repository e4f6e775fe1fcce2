"""Columns of a table that are probably not what they were taken for."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from litlab.data.sources.table_columns import Survey
from litlab.data.sources.table_format import quoted

CURRENCY = "$€£¥₹₩₽"
DIGITS = re.compile(r"[+-]?\d[\d.,'’\u00a0\u202f\u2009]*(?: \d{3})*")
AMOUNT = re.compile(
    rf"(?:[{CURRENCY}]|[A-Z]{{3}})? ?# ?(?:[%‰{CURRENCY}]|[^\W\d_]{{1,5}}[²³]?)?|\(#\)"
)
MOMENT = re.compile(
    r"\d{4}[-/.]\d{1,2}|\d{1,2}[-/.]\d{4}|\d{1,2}[:.]\d{2}([:.]\d{2})?( ?[ap]m)?"
    r"|(\d{1,2}[-/. ])?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-/. ]\d{2,4}",
    re.IGNORECASE,
)
DAY_NUMBER = re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
LEAST = 3  # different values that say something
MOST = 0.8  # of them, are nearly all
ROWS = 10  # growing by chance in so many rows is unlikely
NAMES = 5  # in a message


def doubts(
    surveys: Iterable[Survey], numeric: Collection[str], sure: Collection[str]
) -> tuple[str, ...]:
    """Return a warning for each kind of doubt, which names the columns and what to set.

    Args:
        surveys: Of the features.
        numeric: The features that are taken for numbers; the others are categories.
        sure: The features of which the user said what they are.
    """
    asked = [survey for survey in surveys if survey.name not in sure]
    numbers = [survey for survey in asked if survey.name in numeric]
    categories = [survey for survey in asked if survey.name not in numeric]
    found = (
        _warning(
            [s for s in categories if _are_amounts(s)],
            "categories that look like numbers with a unit, whose order and distance are lost",
            "write plain numbers in the file, or set {categorical} to keep them",
        ),
        _warning(
            [s for s in categories if _share(s, MOMENT.fullmatch) > MOST],
            "categories that look like dates or times",
            "turn them into numbers, split by one (data.time), or set {categorical} to keep them",
        ),
        _warning(
            [s for s in numbers if s.zeros],
            "numbers with leading zeros, which are lost",
            "if they are codes, such as postcodes, set {categorical}",
        ),
        _warning(
            [s for s in numbers if _share(s, DAY_NUMBER.fullmatch) > MOST],
            "numbers that look like dates",
            "turn them into numbers such as day and month, or split by one (data.time)",
        ),
        _warning(
            [s for s in numbers if s.rising and s.whole and s.rows >= ROWS],
            "whole numbers that grow from row to row, like row numbers",
            "if they only number the rows, set {drop}",
        ),
    )
    return tuple(warning for warning in found if warning)


def _warning(surveys: Sequence[Survey], what: str, fix: str) -> str:
    if not surveys:
        return ""
    shown = ", ".join(f"'{s.name}'{_example(s)}" for s in surveys[:NAMES])
    more = f" and {len(surveys) - NAMES} more" if len(surveys) > NAMES else ""
    names = ",".join(quoted(s.name) for s in surveys) if len(surveys) <= NAMES else "..."
    settings = {key: f"data.source.{key}=[{names}]" for key in ("categorical", "drop")}
    return f"{what}: {shown}{more}; {fix.format(**settings)}"


def _example(survey: Survey) -> str:
    value = survey.zeros or next(iter(sorted(survey.values or ())), "")
    return f" ({value[:30]})" if value else ""


def _are_amounts(survey: Survey) -> bool:
    """Whether nearly all values are a number in one and the same dress: `$#`, `# kg`, `#%`."""
    values = survey.values or ()
    dresses = Counter(DIGITS.sub("#", value) for value in values)
    dress, number = dresses.most_common(1)[0] if dresses else ("", 0)
    return number >= max(LEAST, MOST * len(values)) and bool(AMOUNT.fullmatch(dress))


def _share(survey: Survey, fits: Callable[[str], object]) -> float:
    """The share of a column's different values that fit; 0 where they are too many or few."""
    values = survey.values or ()
    return sum(map(bool, map(fits, values))) / len(values) if len(values) >= LEAST else 0.0
