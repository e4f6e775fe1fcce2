"""Groups of `data.group` that are in more than one split."""

from hashlib import blake2b

import numpy as np

from litlab.data.leakage.report import KEPT, Finding, Pair, many
from litlab.data.leakage.samples import GrowingArray
from litlab.data.spec import SPLITS, Array


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
