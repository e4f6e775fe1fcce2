"""Samples that are equal or almost equal, as findings: across splits, and within."""

import tempfile
import weakref
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from litlab.data.leakage.report import KEPT, Finding, Pair, many
from litlab.data.leakage.samples import GrowingArray, SampleDigests
from litlab.data.spec import SPLITS, Array

# What is too large to remember of every sample waits in a temporary file.


class Spool:
    """An array that grows by chunks, in a file that has no name and goes with this object.

    Args:
        dtype: Of its values.
        folder: Where the file lies; the system's temporary folder if there is none.
    """

    def __init__(self, dtype: object, folder: Path | None = None) -> None:
        self.dtype = np.dtype(dtype)  # type: ignore[call-overload]
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self.size = 0

    def add(self, values: Array) -> None:
        """Append values of any shape, flat."""
        self._file.write(values.astype(self.dtype, copy=False).tobytes())
        self.size += values.size

    def whole(self) -> Array:
        """Return all values `(size,)`, mapped from the file."""
        if not self.size:
            return np.empty(0, self.dtype)
        self._file.flush()
        # As a plain array: a memmap's slices are slow to make.
        return np.asarray(np.memmap(self._file, self.dtype, "r", shape=(self.size,)))


# Groups of `data.group` that are in more than one split.


class Groups:
    """The groups of each split, and one sample of each."""

    def __init__(self) -> None:
        self._groups = GrowingArray(np.uint64)
        self._split = GrowingArray(np.uint8)
        self._index = GrowingArray(np.int64)

    def add(self, split: str, index: Array, group: Array) -> None:
        """Remember the groups `(n,)` of samples of these places in the source `(n,)`."""
        from pandas import factorize

        codes, names = factorize(group)
        _, first = np.unique(codes, return_index=True)
        digests = [
            blake2b(str(name).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            for name in np.asarray(names)[codes[first]]
        ]
        self._groups.add(np.frombuffer(b"".join(digests), np.uint64))
        self._split.add(np.full(len(first), SPLITS.index(split), np.uint8))
        self._index.add(np.asarray(index)[first])

    def shared(self) -> list[Finding]:
        """Return the groups that several splits share."""
        order = np.lexsort((self._index.whole(), self._split.whole(), self._groups.whole()))
        group, split = self._groups.whole()[order], self._split.whole()[order]
        index = self._index.whole()[order]
        again = np.flatnonzero((group[1:] == group[:-1]) & (split[1:] != split[:-1])) + 1
        if not len(again):
            return []
        number = len(np.unique(group[again]))
        shown = again[np.argsort(index[again], kind="stable")[:KEPT]]
        pairs: tuple[Pair, ...] = tuple(
            (_place(split[at - 1], index[at - 1]), _place(split[at], index[at])) for at in shown
        )
        return [
            Finding(
                check="group_leak",
                stops=True,
                count=number,
                message=f"{many(number, 'group', 'groups')} of data.group in more than one split",
                pairs=pairs,
                fix="let litlab make all splits (data.test_fraction), or drop these samples",
            )
        ]


def _place(split: Array, index: Array) -> tuple[str, int]:
    return SPLITS[int(split)], int(index)


# The same input twice: with the same target a duplicate, with another one perhaps noise.


BETWEEN = ((0, 1), (0, 2), (1, 2))  # train-val, train-test, val-test


class Runs:
    """Samples in an order that puts equal ones beside each other, and who leads each run.

    Attributes:
        order: Numbers of the samples, equal ones together, by split and place within `(N,)`.
        leads: For each place in that order, the place of its run's first sample `(N,)`.
        masks: For each place, which splits its run reaches: bit s for SPLITS[s] `(N,)`.
    """

    def __init__(
        self, samples: SampleDigests, keys: list[Array], rank: tuple[int, ...] = (0, 1, 2)
    ) -> None:
        ranks = np.array(rank, np.uint8)[samples.split]  # of the splits; the lowest one leads
        self.order = np.lexsort((samples.index, ranks, *keys))
        self.samples = samples
        number = len(self.order)
        new = np.zeros(number, bool)
        new[:1] = True
        for key in keys:
            ordered = key[self.order]
            new[1:] |= ordered[1:] != ordered[:-1]
        starts = np.flatnonzero(new)
        run = np.cumsum(new) - 1
        self.leads = starts[run] if number else starts
        self.split = samples.split[self.order]
        bits = (1 << self.split).astype(np.uint8)
        masks = np.bitwise_or.reduceat(bits, starts) if number else bits
        self.masks = masks[run] if number else masks

    def pairs(self, places: Array, leads: Array) -> tuple[Pair, ...]:
        """Return the first pairs of (leader, sample), by the sample's place in the source."""
        numbers = self.order[places]
        first = np.argsort(self.samples.index[numbers], kind="stable")[:KEPT]
        leaders = self.order[leads[first]]
        return tuple(
            (self.samples.place(int(a)), self.samples.place(int(b)))
            for a, b in zip(leaders, numbers[first], strict=True)
        )


def copies(samples: SampleDigests, kept_in: Sequence[str]) -> dict[str, Array]:
    """Return the samples that equal one of another split, by split, as places in the source.

    Args:
        samples: All of them.
        kept_in: The splits by precedence: of equal samples, those in the earliest split are kept.
    """
    rank = tuple(kept_in.index(split) for split in SPLITS)
    runs = Runs(samples, [samples.targets, *samples.inputs.T], rank)
    numbers = runs.order[runs.split != runs.split[runs.leads]]
    found = {
        s: np.sort(samples.index[numbers[samples.split[numbers] == i]])
        for i, s in enumerate(SPLITS)
    }
    return {split: index for split, index in found.items() if len(index)}


def exact_duplicates(samples: SampleDigests) -> list[Finding]:
    """Find samples whose input and target are another's: across splits (this stops) and within."""
    runs = Runs(samples, [samples.targets, *samples.inputs.T])
    findings = []
    across = np.flatnonzero(runs.split != runs.split[runs.leads])
    if len(across):
        counts = count_between(runs.split, runs.masks)
        findings.append(
            Finding(
                check="exact_duplicates",
                stops=True,
                count=len(across),
                counts=counts,
                message=f"{many(len(across), 'sample is', 'samples are')} in two splits:"
                f" {in_words(counts)}",
                pairs=runs.pairs(across, runs.leads[across]),
                fix="drop the copies from the source",
            )
        )
    same = np.zeros(len(runs.split), bool)
    same[1:] = (runs.split[1:] == runs.split[:-1]) & (runs.leads[1:] == runs.leads[:-1])
    within = np.flatnonzero(same)
    if len(within):
        found = np.bincount(runs.split[within], minlength=len(SPLITS))
        counts = {SPLITS[s]: int(n) for s, n in enumerate(found) if n}
        shown = ", ".join(f"{n} in {split}" for split, n in counts.items())
        findings.append(
            Finding(
                check="exact_duplicates",
                stops=False,
                count=len(within),
                counts=counts,
                message=f"{many(len(within), 'sample repeats', 'samples repeat')} another of the"
                f" same split: {shown}",
                pairs=runs.pairs(within, within - 1),
            )
        )
    return findings


def label_noise(samples: SampleDigests) -> list[Finding]:
    """Find samples whose input is another's, but whose target is not."""
    runs = Runs(samples, list(samples.inputs.T))
    targets = samples.targets[runs.order]
    other = targets != targets[runs.leads]
    places = np.flatnonzero(other)
    if not len(places):
        return []
    mixed = np.isin(runs.leads, runs.leads[places])
    found = np.bincount(runs.split[mixed], minlength=len(SPLITS))
    counts = {SPLITS[s]: int(n) for s, n in enumerate(found) if n}
    total = int(mixed.sum())
    shown = ", ".join(f"{n} in {split}" for split, n in counts.items())
    return [
        Finding(
            check="label_noise",
            stops=False,
            count=total,
            counts=counts,
            message=f"{total:,} samples have the input of another, but not its target: {shown}",
            pairs=runs.pairs(places, runs.leads[places]),
        )
    ]


def count_between(split: Array, masks: Array) -> dict[str, int]:
    """Count samples of the later split of each two that one of the earlier equals.

    Args:
        split: Numbers of the splits `(N,)`.
        masks: Bits of the splits where each sample has equals `(N,)`.
    """
    counts = {}
    for first, second in BETWEEN:
        found = int(((split == second) & ((masks >> first) & 1).astype(bool)).sum())
        if found:
            counts[f"{SPLITS[first]}-{SPLITS[second]}"] = found
    return counts


def in_words(counts: dict[str, int]) -> str:
    """`{"train-test": 3}` as `3 of test also in train`."""
    parts = []
    for name, count in counts.items():
        first, second = name.split("-")
        parts.append(f"{count} of {second} also in {first}")
    return ", ".join(parts)


def near_duplicates(samples: SampleDigests, pairs: Array, what: str) -> list[Finding]:
    """Report pairs `(P, 2)` of sample numbers; those with the very same input are left out.

    Args:
        samples: All of them.
        pairs: Numbers in the order that the samples were added.
        what: What makes them alike, in words.
    """
    inputs = samples.inputs
    pairs = pairs[(inputs[pairs[:, 0]] != inputs[pairs[:, 1]]).any(1)]
    # The earlier split first, the earlier place within one.
    keys = np.lexsort((samples.index[pairs], samples.split[pairs]), axis=1)
    pairs = np.take_along_axis(pairs, keys, 1)
    split = samples.split[pairs].astype(np.int64)
    across = split[:, 0] != split[:, 1]
    findings = []
    for stops, some in ((True, pairs[across]), (False, pairs[~across])):
        if not len(some):
            continue
        counts: dict[str, int] = {}
        for first, second in np.unique(samples.split[some], axis=0).tolist():
            here = (samples.split[some] == (first, second)).all(1)
            name = f"{SPLITS[first]}-{SPLITS[second]}" if stops else SPLITS[first]
            counts[name] = len(np.unique(some[here, 1]))
        total = len(np.unique(some[:, 1]))
        order = np.argsort(samples.index[some[:, 1]], kind="stable")[:KEPT]
        shown = in_words(counts) if stops else ", ".join(f"{n} in {s}" for s, n in counts.items())
        where = "another split" if stops else "the same split"
        findings.append(
            Finding(
                check="near_duplicates",
                stops=stops,
                count=total,
                counts=counts,
                message=f"{many(total, 'sample', 'samples')} {what} a sample of {where}: {shown}",
                pairs=tuple((samples.place(int(a)), samples.place(int(b))) for a, b in some[order]),
                fix="drop them from the source" if stops else "",
            )
        )
    return findings
