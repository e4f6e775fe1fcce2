"""What the leakage check found: stored beside the arrays, shown, and reason to stop."""

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from litlab.utils.errors import DataError

SCHEMA = 1
FILE_NAME = "leakage.json"
OLD_NAMES = ("guard.json",)  # in folders prepared by earlier versions
SHOWN = 5  # pairs in a message
KEPT = 20  # pairs in a report
Check = Literal[
    "exact_duplicates", "near_duplicates", "group_leak", "label_noise", "imbalance", "drift"
]
Place = tuple[str, int]  # the split, and the sample's number in the source
Pair = tuple[Place, Place]


class Finding(BaseModel):
    """One thing that was found.

    Attributes:
        check: Its name; those that stop are allowed by it in `data.allow`.
        stops: Whether the data are refused for it.
        count: How many samples (or classes, features) it concerns.
        counts: The same by where it was found, `train-test` for instance.
        message: In words.
        details: The classes or features concerned.
        pairs: The first of the samples concerned, by split and number in the source.
        fix: What to do about it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: Check
    stops: bool
    count: int
    message: str
    counts: dict[str, int] = {}
    details: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    fix: str = ""

    def examples(self, name: Callable[[Place], str] | None = None) -> str:
        """Return the first pairs in words; `name` names a sample, its split and number if None."""
        name = name or (lambda place: f"{place[0]} {place[1]}")
        pairs = [f"{name(one)} = {name(other)}" for one, other in self.pairs[:SHOWN]]
        return ", ".join(pairs) + (", ..." if len(self.pairs) > SHOWN else "")


class LeakageReport(BaseModel):
    """Everything that the leakage check looked at and found; JSON restores it.

    `checked` are the checks made, `notes` what could not be.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    sizes: dict[str, int]
    class_counts: dict[str, tuple[int, ...]] = {}
    counted: str = "class"  # or label
    findings: tuple[Finding, ...] = ()
    checked: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()

    def settle(self, chance: int, left_out: Finding | None) -> "LeakageReport":
        """Return the report with what became of the copies across splits.

        Args:
            chance: How many of them are equal by chance, and stay.
            left_out: What was removed before these samples were looked at.
        """
        found = [
            f for f in self.findings if not (chance and f.check == "exact_duplicates" and f.stops)
        ]
        if chance:
            what = f"{many(chance, 'row equals', 'rows equal')} one of another split"
            message = f"{what}, as expected by chance of so few different values: kept"
            found.insert(
                0, Finding(check="exact_duplicates", stops=False, count=chance, message=message)
            )
        if left_out:
            found.insert(0, left_out)
        return self.model_copy(update={"findings": tuple(found)})

    def refuse(self, allow: Sequence[str], name: Callable[[Place], str] | None = None) -> None:
        """Stop for what leaks from one split into another, unless it is allowed by name.

        Args:
            allow: Names of checks whose findings do not stop.
            name: How a sample is named: its file, line or row.

        Raises:
            DataError: The findings, with samples of the first.
        """
        stopping = self.stopping(allow)
        if not stopping:
            return
        first = stopping[0]
        more = "".join(f"; {finding.message}" for finding in stopping[1:])
        names = ",".join(dict.fromkeys([*allow, *(finding.check for finding in stopping)]))
        raise DataError(
            f"{first.message} ({first.examples(name)}){more}",
            "data",
            f"{first.fix}; or set data.allow=[{names}]",
        )

    def stopping(self, allow: Sequence[str] = ()) -> list[Finding]:
        """Return the findings that stop and are not allowed."""
        return [f for f in self.findings if f.stops and f.check not in allow]

    def lines(self) -> list[str]:
        """Return what a person reads: sizes, a line a finding, and what could not be looked at."""
        sizes = ", ".join(f"{split} {self._size(split)}" for split in self.sizes)
        found = [finding.message for finding in self.findings] or [
            f"nothing found by {', '.join(self.checked)}"
        ]
        return [f"leakage check: {line}" for line in (sizes, *found, *self.notes)]

    def _size(self, split: str) -> str:
        """A split's samples, and how many a class has."""
        counts = self.class_counts.get(split, ())
        if not counts:
            return f"{self.sizes[split]:,}"
        low, high = min(counts), max(counts)
        span = f"{low:,}{f' to {high:,}' if high > low else ''}"
        return f"{self.sizes[split]:,} ({span} per {self.counted})"


def many(number: int, one: str, more: str) -> str:
    """Return a count with its noun, and its verb: `1 sample is`, `2 samples are`."""
    return f"{number:,} {one if number == 1 else more}"
