"""The same input twice: with the same target a duplicate, with another one perhaps noise."""

import numpy as np

from litlab.data.leakage.report import KEPT, Finding, Pair, many
from litlab.data.leakage.samples import SampleDigests
from litlab.data.spec import SPLITS, Array

BETWEEN = ((0, 1), (0, 2), (1, 2))  # train-val, train-test, val-test


class Runs:
    """Samples in an order that puts equal ones beside each other, and who leads each run.

    Attributes:
        order: Numbers of the samples, equal ones together, by split and place within `(N,)`.
        leads: For each place in that order, the place of its run's first sample `(N,)`.
        masks: For each place, which splits its run reaches: bit s for SPLITS[s] `(N,)`.
    """

    def __init__(self, samples: SampleDigests, keys: list[Array]) -> None:
        self.order = np.lexsort((samples.index, samples.split, *keys))
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
