"""Looks for what makes a score too good to be true, while `prepare` streams the samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from litlab.data.leakage.drift import Drift, imbalance, input_digests
from litlab.data.leakage.duplicates import (
    Groups,
    copies,
    exact_duplicates,
    label_noise,
    near_duplicates,
)
from litlab.data.leakage.images import SMALLEST, Thumbnails
from litlab.data.leakage.report import Check, Finding, LeakageReport
from litlab.data.leakage.samples import SampleDigests, target_digests
from litlab.data.leakage.texts import FEWEST, Wordings, normalize, words_of
from litlab.data.spec import SPLITS, Array, Kind, TaskKind

COUNTED = ("classification", "multi_label")  # tasks whose classes or labels have frequencies


class LeakageCheck:
    """Sees every sample once, in chunks, and remembers some dozen bytes of each.

    Args:
        kind: What the samples are.
        task: What is asked of them.
        classes: Their names, in the order of the class numbers.
        cardinalities: Codes of a table's last columns, which are categorical.
        columns: A table's columns, for naming those that drift.
        folder: Where thumbnails and words wait in temporary files, up to 900 bytes of an image and
            4 of each different word of a text.
    """

    def __init__(
        self,
        kind: Kind,
        task: TaskKind,
        classes: tuple[str, ...],
        cardinalities: tuple[int, ...] = (),
        columns: tuple[str, ...] = (),
        folder: Path | None = None,
    ) -> None:
        self.kind, self.task, self.classes, self.folder = kind, task, classes, folder
        self.samples = SampleDigests()
        self.groups: Groups | None = None
        self.drift = Drift(kind, cardinalities, columns)
        self.counts = {split: np.zeros(len(classes), np.int64) for split in SPLITS}
        self.thumbnails: Thumbnails | None = None
        self.wordings: Wordings | None = None
        self.notes: list[str] = []

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
        if not len(index):
            return
        worded = self.kind == "text" and isinstance(content[0], str)
        if worded:
            content = [normalize(text) for text in content]
        inputs = input_digests(self.kind, x, content)
        if self.task == "language_model" and worded:
            inputs = _only_long(inputs, index, content)
        self.samples.add(split, index, inputs, target_digests(y, len(index)))
        if self.task == "classification" and y is not None:
            self.counts[split] += np.bincount(y, minlength=len(self.classes))
        elif self.task == "multi_label" and y is not None:
            self.counts[split] += y.sum(0, dtype=np.int64)
        if group is not None:
            self.groups = self.groups or Groups()
            self.groups.add(split, index, group)
        self.drift.add(split, index, x, content)
        if self.kind == "image":
            self._add_images(x)
        elif worded:
            self.wordings = self.wordings or Wordings(self.folder)
            self.wordings.add(content)

    def _add_images(self, x: Array) -> None:
        if min(x.shape[2:]) >= SMALLEST:
            self.thumbnails = self.thumbnails or Thumbnails(x.shape[1:], self.folder)
            self.thumbnails.add(x)
        elif not self.notes:
            size = " x ".join(map(str, x.shape[2:]))
            note = f"images of {size} are too small for the near-duplicate check"
            self.notes.append(f"{note} (below {SMALLEST} pixels a side)")

    def copies(self, kept_in: Sequence[str]) -> dict[str, Array]:
        """Return the samples that equal one of a split earlier in `kept_in`: places by split."""
        return copies(self.samples, kept_in)

    def finish(self) -> LeakageReport:
        """Return what was found."""
        checked: list[Check] = ["exact_duplicates"]
        findings: list[Finding] = exact_duplicates(self.samples)
        if self.thumbnails or self.wordings:
            checked.append("near_duplicates")
            findings += self._near()
        if self.groups:
            checked.append("group_leak")
            findings += self.groups.shared()
        if self.task != "language_model":
            checked.append("label_noise")
            findings += label_noise(self.samples)
        sizes = np.bincount(self.samples.split, minlength=len(SPLITS)).tolist()
        if self.task in COUNTED:
            checked.append("imbalance")
            of = dict(zip(SPLITS, sizes, strict=True)) if self.task == "multi_label" else None
            findings += imbalance(self.counts, self.classes, of)
        checked.append("drift")
        findings += self.drift.found()
        counts = {split: tuple(n.tolist()) for split, n in self.counts.items()}
        return LeakageReport(
            sizes=dict(zip(SPLITS, sizes, strict=True)),
            class_counts=counts if self.task in COUNTED else {},
            counted="label" if self.task == "multi_label" else "class",
            findings=tuple(findings),
            checked=tuple(checked),
            notes=tuple(self.notes),
        )

    def _near(self) -> list[Finding]:
        if self.wordings:
            pairs = self.wordings.near_pairs()
            return near_duplicates(self.samples, pairs, "with almost the same words as")
        assert self.thumbnails
        pairs, flat = self.thumbnails.near_pairs()
        if flat.any():
            self.notes.append(
                f"{int(flat.sum()):,} images with too little detail for the near-duplicate check"
            )
        return near_duplicates(self.samples, pairs, "looking like")


def _only_long(inputs: Array, index: Array, content: list[str]) -> Array:
    """Of a text that was cut into blocks, short ones are no duplicates: a name, a blank line."""
    short = np.array([len(set(words_of(text))) < FEWEST for text in content])
    inputs = inputs.copy()
    inputs[short, 0], inputs[short, 1] = np.uint64(2**64 - 1), np.asarray(index)[short]
    return inputs
