"""Looks for what makes a score too good to be true, while `prepare` streams the samples."""

from typing import Any

import numpy as np

from litlab.data.guard.exact import exact_duplicates, label_noise
from litlab.data.guard.report import Check, Finding, GuardReport
from litlab.data.guard.samples import Samples, target_digests
from litlab.data.guard.values import input_digests
from litlab.data.spec import SPLITS, Array, Kind, TaskKind


class Guard:
    """Sees every sample once, in chunks, and remembers some dozen bytes of each.

    Args:
        kind: What the samples are.
        task: What is asked of them.
        classes: Their names, in the order of the class numbers.
        cardinalities: Codes of a table's last columns, which are categorical.
        columns: A table's columns, for naming those that drift.
    """

    def __init__(
        self,
        kind: Kind,
        task: TaskKind,
        classes: tuple[str, ...],
        cardinalities: tuple[int, ...] = (),
        columns: tuple[str, ...] = (),
    ) -> None:
        self.kind, self.task, self.classes = kind, task, classes
        self.cardinalities, self.columns = cardinalities, columns
        self.samples = Samples()

    def add(
        self,
        split: str,
        index: Array,
        x: Any,
        y: Array | None,
        content: Any,
        group: Array | None = None,
    ) -> None:
        """Look at a chunk of n samples of a split.

        Args:
            split: train, val or test.
            index: Places in the source `(n,)`.
            x: Stored values `(n, *shape)`, or a list of n arrays of ids.
            y: Targets `(n,)` or `(n, T)`; None where there are none.
            content: The chunk as the source gave it: n texts, a DataFrame of n rows, or x.
            group: Values of the column `data.group` `(n,)`.
        """
        if len(index):
            inputs = input_digests(self.kind, x, content)
            self.samples.add(split, index, inputs, target_digests(y, len(index)))

    def finish(self) -> GuardReport:
        """Return what was found."""
        findings: list[Finding] = exact_duplicates(self.samples)
        checked: list[Check] = ["exact_duplicates"]
        if self.task != "language_model":
            findings += label_noise(self.samples)
            checked.append("label_noise")
        sizes = np.bincount(self.samples.split, minlength=len(SPLITS)).tolist()
        return GuardReport(
            sizes=dict(zip(SPLITS, sizes, strict=True)),
            findings=tuple(findings),
            checked=tuple(checked),
        )
