"""Lets the check see arrays, in chunks, as `prepare` would."""

from typing import Any

import numpy as np

from litlab.data.leakage.check import LeakageCheck
from litlab.data.leakage.report import Finding, LeakageReport
from litlab.data.spec import SPLITS


def look(
    kind: str,
    x: Any,
    y: Any = None,
    *,
    sizes: tuple[int, int, int] | None = None,
    content: Any = None,
    group: Any = None,
    task: str | None = None,
    chunk: int = 1000,
    **settings: Any,
) -> LeakageReport:
    """Guard samples whose first are train, then val, then test; their places are their numbers.

    `content` is a function of row numbers, or an array or list.
    """
    number = len(x)
    train, val, _ = sizes or (number - 2 * (number // 5), number // 5, number // 5)
    if y is None:
        y = np.arange(number) % 3
    y = np.asarray(y)
    task = task or ("classification" if y.ndim == 1 else "regression")
    classes = tuple(f"c{i}" for i in range(int(y.max()) + 1)) if task == "classification" else ()
    check = LeakageCheck(kind, task, classes, **settings)  # type: ignore[arg-type]
    ends = {"train": (0, train), "val": (train, train + val), "test": (train + val, number)}
    for split in SPLITS:
        for start in range(ends[split][0], ends[split][1], chunk):
            rows = np.arange(start, min(start + chunk, ends[split][1]))
            stored = [x[row] for row in rows] if isinstance(x, list) else x[rows]
            seen = stored
            if content is not None:
                seen = content(rows) if callable(content) else [content[row] for row in rows]
            check.add(split, rows, stored, y[rows], seen, None if group is None else group[rows])
    return check.finish()


def of(report: LeakageReport, check: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.check == check]


def stopping(report: LeakageReport) -> set[str]:
    return {finding.check for finding in report.findings if finding.stops}
