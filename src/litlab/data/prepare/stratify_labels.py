"""Splits that keep the share of each of several labels: iterative stratification."""

import numpy as np

from litlab.data.spec import Array


def iterative_parts(labels: Array, shares: list[float], seed: int) -> Array:
    """Return which part each sample goes to, `(N,)`, so that each part has its share of each label.

    The rarest label that is left is handed out first, each of its samples to the part that lacks it
    most; of equal ones to the part that lacks samples most, then at random. Samples without a label
    fill up what the parts lack.

    Source: Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-label Data",
    ECML PKDD 2011, algorithm 1.

    Args:
        labels: 0 or 1, `(N, K)`.
        shares: Of each part; they add up to 1.
        seed: Of the order and of the ties.
    """
    rng = np.random.default_rng(seed)
    labels = labels.astype(np.int64)
    wanted = np.outer(shares, labels.sum(0))  # (parts, K) samples of each label
    room = len(labels) * np.asarray(shares)  # (parts,)
    parts = np.full(len(labels), -1, np.int64)
    open_rows = rng.permutation(len(labels))
    while len(open_rows):
        left = labels[open_rows].sum(0)
        if not left.any():
            break
        rarest = int(np.argmin(np.where(left > 0, left, len(labels) + 1)))
        has = labels[open_rows, rarest] == 1
        for row in open_rows[has].tolist():
            part = _neediest(wanted[:, rarest], room, rng)
            parts[row] = part
            wanted[part] -= labels[row]
            room[part] -= 1
        open_rows = open_rows[~has]
    for row in open_rows.tolist():
        part = _neediest(room, room, rng)
        parts[row] = part
        room[part] -= 1
    return parts


def _neediest(wanted: Array, room: Array, rng: np.random.Generator) -> int:
    most = np.flatnonzero(wanted >= wanted.max() - 1e-9)
    if len(most) > 1:
        most = most[room[most] >= room[most].max() - 1e-9]
    return int(most[0] if len(most) == 1 else rng.choice(most))


class LabelSplitter:
    """At random, each half keeping the share of each label; see `split.Splitter`.

    Args:
        labels: 0 or 1, `(N, K)`.
        seed: Of the cut.
    """

    def __init__(self, labels: Array, seed: int) -> None:
        self.labels, self.seed = labels, seed

    def cut(self, rows: Array, share: float, name: str) -> tuple[Array, Array]:
        """Return what is kept, and the share that is cut off."""
        off = iterative_parts(self.labels[rows], [1 - share, share], self.seed) == 1
        return rows[~off], rows[off]

    def fold(self, rows: Array, num_folds: int, fold: int) -> tuple[Array, Array]:
        """Return what is kept, and one of `num_folds` equal parts."""
        shares = [1 / num_folds] * num_folds
        off = iterative_parts(self.labels[rows], shares, self.seed) == fold
        return rows[~off], rows[off]
