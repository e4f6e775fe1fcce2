"""Ways to take a share, or one fold, off a part of the source."""

import warnings
from typing import Protocol

import numpy as np

from litlab.data.spec import Array
from litlab.utils.errors import DataError


class Splitter(Protocol):
    """Takes rows apart; both halves come back ascending, for their order says nothing."""

    def cut(self, rows: Array, share: float, name: str) -> tuple[Array, Array]:
        """Return what is kept, and the share that is cut off for the split of this name."""

    def fold(self, rows: Array, num_folds: int, fold: int) -> tuple[Array, Array]:
        """Return what is kept, and fold number `fold`; all folds together are the rows."""


class RandomSplitter:
    """At random; with labels `(N,)`, each half keeps the classes' shares."""

    def __init__(self, labels: Array | None, seed: int) -> None:
        self.labels, self.seed = labels, seed

    def cut(self, rows: Array, share: float, name: str) -> tuple[Array, Array]:
        """As scikit-learn's train_test_split does."""
        from sklearn.model_selection import train_test_split

        try:
            kept, off = train_test_split(
                np.arange(len(rows)),
                test_size=share,
                random_state=self.seed,
                stratify=None if self.labels is None else self.labels[rows],
            )
        except ValueError as error:
            raise DataError(
                f"cannot cut {share:g} of {len(rows)} samples for {name}: {error}",
                f"data.{name}_fraction",
                "change it, or set data.stratify=false",
            ) from None
        return rows[np.sort(kept)], rows[np.sort(off)]

    def fold(self, rows: Array, num_folds: int, fold: int) -> tuple[Array, Array]:
        """As its KFold and StratifiedKFold do, shuffled."""
        from sklearn.model_selection import KFold, StratifiedKFold

        kind = KFold if self.labels is None else StratifiedKFold
        labels = None if self.labels is None else self.labels[rows]
        folds = kind(num_folds, shuffle=True, random_state=self.seed)
        return _one_fold(folds.split(rows, labels), rows, num_folds, fold)


class GroupSplitter:
    """Whole groups, so that none is in two splits.

    Folds are scikit-learn's StratifiedGroupKFold. It and GroupShuffleSplit only cut a share of the
    groups, or a fold of 1/k, so a share of the samples is cut here: groups in random order are
    taken while that brings the number cut off (of every class, with labels) nearer to the share.
    """

    def __init__(self, groups: Array, labels: Array | None, seed: int) -> None:
        self.codes = _codes(groups)
        self.labels, self.seed = labels, seed

    def cut(self, rows: Array, share: float, name: str) -> tuple[Array, Array]:
        """Cut off groups, taken in random order while that helps."""
        groups, inverse = np.unique(self.codes[rows], return_inverse=True)
        if len(groups) < 2:
            raise DataError(
                f"cannot cut {share:g} of {len(rows)} samples for {name}: they are one group",
                "data.group",
                "group by a column with more values",
            )
        labels = np.zeros(len(rows), np.int64) if self.labels is None else self.labels[rows]
        classes, labels = np.unique(labels, return_inverse=True)
        counts = np.bincount(inverse * len(classes) + labels, minlength=len(groups) * len(classes))
        shares = counts.reshape(len(groups), -1) / np.bincount(labels)  # each column adds up to 1
        order = np.random.default_rng(self.seed).permutation(len(groups))
        leave = 2 if name == "test" and len(groups) > 2 else 1  # val needs one too
        off = np.isin(inverse, _nearest_share(shares, order, share, leave))
        return rows[~off], rows[off]

    def fold(self, rows: Array, num_folds: int, fold: int) -> tuple[Array, Array]:
        """As StratifiedGroupKFold does, shuffled; without labels it evens out the sizes."""
        from sklearn.model_selection import StratifiedGroupKFold

        groups = self.codes[rows]
        number = len(np.unique(groups))
        if number < num_folds:
            raise DataError(
                f"{number} groups are too few for {num_folds} folds",
                "data.num_folds",
                f"set it to at most {number}",
            )
        labels = np.zeros(len(rows), np.int64) if self.labels is None else self.labels[rows]
        folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=self.seed)
        return _one_fold(folds.split(rows, labels, groups), rows, num_folds, fold)


class StreamSplitter:
    """By a sorted quantity: the greatest values are cut off, and equal ones stay together."""

    def __init__(self, times: Array, setting: str) -> None:
        self.times, self.setting = _times(times, setting), setting

    def cut(self, rows: Array, share: float, name: str) -> tuple[Array, Array]:
        """Cut where the values change that is nearest to the share."""
        order = np.argsort(self.times[rows], kind="stable")
        times = self.times[rows][order]
        changes = np.flatnonzero(times[1:] != times[:-1]) + 1
        if not len(changes):
            raise DataError(
                f"cannot cut {share:g} of {len(rows)} samples for {name}: all have the same time",
                self.setting,
                "give samples of different times",
            )
        wanted = len(rows) - int(np.ceil(share * len(rows)))
        if name == "test" and len(changes) > 1:
            changes = changes[1:]  # so that two times are left, one of them for val
        place = changes[np.argmin(np.abs(changes - wanted))]
        return rows[np.sort(order[:place])], rows[np.sort(order[place:])]

    def fold(self, rows: Array, num_folds: int, fold: int) -> tuple[Array, Array]:
        """Not to be had: `check_settings` refuses it."""
        raise NotImplementedError


def _one_fold(folds: object, rows: Array, num_folds: int, fold: int) -> tuple[Array, Array]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rare classes: check_splits speaks of them
        try:
            kept, off = list(folds)[fold]  # type: ignore[call-overload]
        except ValueError as error:
            raise DataError(
                f"cannot make {num_folds} folds of {len(rows)} samples: {error}",
                "data.num_folds",
                "lower it, or set data.stratify=false",
            ) from None
    return rows[kept], rows[off]


def _nearest_share(shares: Array, order: Array, share: float, leave: int) -> Array:
    """Choose groups whose shares `(groups, classes)` add up to about `share` for each class.

    At least one group is chosen, and `leave` are left.
    """
    missing = np.full(shares.shape[1], share)
    chosen: list[int] = []
    for group in order.tolist():
        if len(chosen) == len(order) - leave:
            break
        after = missing - shares[group]
        if after @ after < missing @ missing:
            chosen.append(group)
            missing = after
    if not chosen:  # each is larger than twice the share
        chosen = [int(np.argmin(((share - shares) ** 2).sum(1)))]
    return np.array(chosen)


def _codes(groups: Array) -> Array:
    """Number the groups by where they first appear."""
    from pandas import factorize

    codes, _ = factorize(groups)
    missing = np.flatnonzero(codes < 0)
    if len(missing):
        raise DataError(
            f"{len(missing)} samples without a group, first rows {missing[:5].tolist()}",
            "data.group",
            "fill the column, or drop these rows",
        )
    numbers: Array = codes
    return numbers


def _times(values: Array, setting: str) -> Array:
    """Return something sortable of numbers, dates, or ISO 8601 text."""
    import pandas as pd

    if values.dtype.kind in "iufM":
        times = values
    else:
        numbers = pd.to_numeric(pd.Series(values), errors="coerce")
        if numbers.isna().any():
            dates = pd.to_datetime(pd.Series(values), format="ISO8601", utc=True, errors="coerce")
            numbers = dates
        times = numbers.to_numpy()
    unknown = np.flatnonzero(pd.isna(times))
    if len(unknown):
        shown = [str(values[row]) for row in unknown[:5]]
        raise DataError(
            f"{len(unknown)} samples without a readable time, first {shown}",
            setting,
            "give numbers, or dates such as 2024-12-31",
        )
    return times
