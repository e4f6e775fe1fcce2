"""Cuts the source into train, val and test, once, by a seed of its own."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from litlab.config.schema import DataConfig
from litlab.data.prepare.stratify_labels import LabelSplitter
from litlab.data.raw import Decision, Raw
from litlab.data.spec import SPLITS, Array
from litlab.utils.errors import ConfigError, DataError, nearest

SHOWN = 5  # names in a message

# Ways to take a share, or one fold, off a part of the source.


class Splitter(Protocol):
    """Takes rows apart; both halves come back ascending, for their order says nothing."""

    def cut(self, rows: Array, share: float, name: str) -> tuple[Array, Array]:
        """Return what is kept, and the share that is cut off for the split of this name."""

    def fold(self, rows: Array, num_folds: int, fold: int) -> tuple[Array, Array]:
        """Return what is kept, and fold number `fold`; all folds together are the rows."""


class RandomSplitter:
    """At random; with labels `(N,)`, each half keeps the shares of the classes of these names."""

    def __init__(self, labels: Array | None, seed: int, classes: Sequence[str] = ()) -> None:
        self.labels, self.seed, self.classes = labels, seed, classes

    def cut(self, rows: Array, share: float, name: str) -> tuple[Array, Array]:
        """As scikit-learn's train_test_split does."""
        from sklearn.model_selection import train_test_split

        self._refuse_single(rows, share, name)
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

    def _refuse_single(self, rows: Array, share: float, name: str) -> None:
        if self.labels is None:
            return
        labels, counts = np.unique(self.labels[rows], return_counts=True)
        single = [
            self.classes[label] if label < len(self.classes) else str(label)
            for label in labels[counts == 1].tolist()
        ]
        if single:
            shown = ", ".join(f"'{c}'" for c in single[:SHOWN]) + ", ..." * (len(single) > SHOWN)
            many = (
                "classes with a single sample left" if len(single) > 1 else "a single sample left"
            )
            raise DataError(
                f"cannot cut {share:g} of {len(rows)} samples for {name}: {many} ({shown}), "
                "which cannot be in both",
                f"data.{name}_fraction",
                "add samples of it, or remove it, or merge it with another class",
            )

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
        """Not available: `check_settings` refuses it."""
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


@dataclass(frozen=True)
class SplitRows:
    """Which samples of one part of the source make a split.

    Attributes:
        part: The part's name in `Raw.parts`.
        rows: Row numbers within the part, ascending `(n,)`.
        index: The same samples numbered over all parts, one after the other `(n,)`.
    """

    part: str
    rows: Array
    index: Array

    def without(self, index: Array) -> "SplitRows":
        """Return the split without the samples of these numbers over all parts."""
        kept = ~np.isin(self.index, index)
        return SplitRows(self.part, self.rows[kept], self.index[kept])


def cut(raw: Raw, config: DataConfig) -> dict[str, SplitRows]:
    """Say which rows are train, val and test.

    Splits that the publisher made are kept; the others are cut from what is there for training:
    at random, keeping class shares (`stratify`); whole groups (`group`); by age (`time`); and a
    stream of text by place. With `num_folds`, val is one fold of what is not test.

    Raises:
        ConfigError: A setting that is needed is missing, or one is set that would be ignored.
        DataError: There are too few samples or groups to cut, or the column is not fit for it.
    """
    check_settings(config)
    kept = _publishers_splits(raw, config)
    _warn_of_unused(kept, raw, config)
    name = "all" if "all" in raw.parts else "train"
    rest = np.arange(len(raw.parts[name][0]), dtype=np.int64)
    splitter = _splitter(raw, config, name)
    cut_off = {}
    if "test" not in kept and config.test_fraction is not None:
        rest, cut_off["test"] = splitter.cut(rest, config.test_fraction, "test")
    if "val" not in kept and config.num_folds is not None and config.fold is not None:
        rest, cut_off["val"] = splitter.fold(rest, config.num_folds, config.fold)
    elif "val" not in kept:
        rest, cut_off["val"] = splitter.cut(rest, config.val_fraction, "val")
    start = {part: begin for part, (begin, _) in _places(raw).items()}
    made = {split: SplitRows(name, rows, rows + start[name]) for split, rows in cut_off.items()}
    made["train"] = SplitRows(name, rest, rest + start[name])
    return {split: kept.get(split) or made[split] for split in SPLITS}


def own_test_split(raw: Raw, config: DataConfig) -> list[Decision]:
    """Return the decision to keep the source's own test split where another one was asked for."""
    if "test" not in raw.parts or config.test_fraction is None:
        return []
    why = f"the source has a test split of its own, of {len(raw.parts['test'][0]):,} samples"
    return [Decision(setting="data.test_fraction", value=None, why=why)]


def check_settings(config: DataConfig) -> None:
    """Refuse settings that contradict each other, whatever the data.

    Raises:
        ConfigError: They do.
    """
    for name in ("columns", "group_pattern"):  # of a source: what splits may go by
        if config.source.get(name) and config.group is None and config.time is None:
            setting = f"data.source.{name}"
            what = f"{setting} has no effect without a split by group or by time"
            raise ConfigError(what, setting, "set data.group or data.time, or leave it out")
    folds, fold = config.num_folds, config.fold
    if fold is not None and folds is None:
        raise ConfigError(
            f"data.fold={fold} is set, but the number of folds is not",
            "data.num_folds",
            "set it, e.g. 5",
        )
    if folds is not None and fold is None:
        what = f"data.num_folds={folds} is set, but the validation fold is not"
        raise ConfigError(what, "data.fold", f"set it, from 0 to {folds - 1}")
    if folds is not None and fold is not None and fold >= folds:
        what = f"data.fold={fold} is out of range: data.num_folds={folds}, counted from 0"
        raise ConfigError(what, "data.fold", f"set it from 0 to {folds - 1}")
    if config.time is not None and folds is not None:
        raise ConfigError(
            "k-fold would train on samples later than the validation samples",
            "data.time, data.num_folds",
            "set one of them to null",
        )
    if config.time is not None and config.group is not None:
        raise ConfigError(
            "a group may have samples on both sides of a split by time",
            "data.time, data.group",
            "set one of them to null",
        )


def _publishers_splits(raw: Raw, config: DataConfig) -> dict[str, SplitRows]:
    """The splits that the source brings, settings that they leave no work for being refused."""
    kept = {}
    for part, (start, number) in _places(raw).items():
        if part in ("val", "test"):
            rows = np.arange(number, dtype=np.int64)
            kept[part] = SplitRows(part, rows, rows + start)
    if (
        "test" in kept
        and "data.test_fraction" in config._typed
        and config.test_fraction is not None
    ):
        raise ConfigError(
            "this source comes with its own test split, which is kept",
            "data.test_fraction",
            "set data.test_fraction=null",
        )
    if "test" not in kept and config.test_fraction is None:
        raise ConfigError(
            "this source has no test split of its own", "data.test_fraction", "set it, e.g. 0.2"
        )
    if "val" in kept and config.num_folds is not None:
        raise ConfigError(
            "this source comes with its own val split, which is kept",
            "data.num_folds",
            "set data.num_folds=null data.fold=null",
        )
    if len(kept) == 2 and config.time is not None:
        raise ConfigError(
            "this source comes with its own val and test splits: there is nothing to split by time",
            "data.time",
            "set data.time=null",
        )
    return kept


def _warn_of_unused(kept: dict[str, SplitRows], raw: Raw, config: DataConfig) -> None:
    """Warn of settings that the user has typed and that say nothing about these splits."""
    reasons = {}
    if "val" in kept or config.num_folds is not None:
        whose = "this source comes with its own val split" if "val" in kept else "val is a fold"
        reasons["data.val_fraction"] = whose
    if len(kept) == 2:
        reasons["data.split_seed"] = "this source comes with its own val and test splits"
    elif config.time is not None or raw.task == "language_model":
        reasons["data.split_seed"] = "the split is by order, not random"
    for setting in sorted(config._typed & reasons.keys()):
        warnings.warn(f"{setting} has no effect: {reasons[setting]}", stacklevel=4)


def _places(raw: Raw) -> dict[str, tuple[int, int]]:
    """Where each part starts in the numbering of the source, and how many samples it has."""
    places, start = {}, 0
    for name, (x, _) in raw.parts.items():
        places[name] = (start, len(x))
        start += len(x)
    return places


def _splitter(raw: Raw, config: DataConfig, part: str) -> Splitter:
    y = raw.parts[part][1]
    stratify = config.stratify and raw.task in ("classification", "multi_label")
    reason = "" if stratify else "regression targets have no classes"
    if raw.task == "multi_label" and config.group is not None:
        reason = "whole groups cannot keep the shares of several labels"
    if raw.task == "language_model":
        reason = "a language model has no classes"
    if config.time is not None:
        reason = "a split by time cannot be stratified"
    if config.stratify and reason and "data.stratify" in config._typed:
        warnings.warn(
            f"data.stratify=true is ignored, because {reason}: set data.stratify=false",
            stacklevel=4,
        )
    labels = y if stratify and not reason else None
    if config.group is not None:
        for name in raw.parts:  # the leakage check looks for groups across the publisher's splits
            column_of(raw, name, config.group, "data.group")
        groups = column_of(raw, part, config.group, "data.group")
        return GroupSplitter(groups, labels, config.split_seed)
    if config.time is not None:
        return StreamSplitter(column_of(raw, part, config.time, "data.time"), "data.time")
    if raw.task == "language_model":
        if config.num_folds is not None:
            raise ConfigError(
                "k-fold would leak: folds cut from one text share context",
                "data.num_folds",
                "set data.num_folds=null data.fold=null",
            )
        return StreamSplitter(np.arange(len(raw.parts[part][0])), "data")
    if labels is not None and raw.task == "multi_label":
        return LabelSplitter(labels, config.split_seed)
    return RandomSplitter(labels, config.split_seed, raw.classes)


def column_of(raw: Raw, part: str, name: str, setting: str) -> Array:
    """Return a further column of a part `(N,)`.

    Raises:
        ConfigError: The source has no such columns at all.
        DataError: It has others, or this part lacks this one.
    """
    columns = raw.columns.get(part, {})
    if not any(raw.columns.values()):
        raise ConfigError(
            "this source has no columns to split by", f"{setting}={name}", f"set {setting}=null"
        )
    if name not in columns:
        raise DataError(f"part '{part}' has no column '{name}'", setting, nearest(name, columns))
    return columns[name]


def split_hash(indices: dict[str, Array]) -> str:
    """Return a SHA-256 of which samples are in which split, whatever their content."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(split.encode())
        digest.update(np.sort(indices[split]).astype("<i8").tobytes())
    return digest.hexdigest()
