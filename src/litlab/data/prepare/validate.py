"""Is this fit to train on? Looked at once, when the data are prepared."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from litlab.data.raw import Raw
from litlab.data.spec import Array
from litlab.utils.errors import DataError

DIMENSIONS = {"image": 4, "sequence": 3, "tabular": 2, "text": 2}
PARTS = tuple(map(set, (["all"], ["train", "val"], ["train", "test"], ["train", "val", "test"])))
ADVICE = "correct the data, or the source that reads them"


def check_raw(raw: Raw, source: str) -> None:
    """Check what a source handed over.

    Raises:
        DataError: Wrong shapes or types, non-finite values, or labels outside the classes.
    """
    _check_names(raw, source)
    for name, (x, y) in raw.parts.items():
        where = f"{source}, part '{name}'"
        if not len(x):
            raise DataError("there are no samples", where, ADVICE)
        if raw.task == "language_model":
            continue  # the targets are the inputs, one place on
        if len(x) != len(y):
            raise DataError(f"{len(x)} inputs and {len(y)} targets", where, ADVICE)
        if raw.task == "regression":
            if y.dtype.kind not in "iuf" or y.shape[1:] != (len(raw.targets),):
                raise DataError(
                    f"targets of {y.dtype} and shape {y.shape} for {len(raw.targets)} named ones",
                    where,
                    "give numbers (N, T), and a name for each of the T",
                )
            _check_finite(y, "targets", where)
        elif raw.task == "multi_label":
            _check_several_labels(y, len(raw.classes), where)
        else:
            _check_labels(y, len(raw.classes), where)


def _check_names(raw: Raw, source: str) -> None:
    if set(raw.parts) not in PARTS:
        raise DataError(
            f"parts {sorted(raw.parts)}",
            source,
            "give 'all', or 'train' and 'val', 'test' or both",
        )
    for what in ("classes", "targets", "features", "vocabulary"):
        twice = [name for name, count in Counter(getattr(raw, what)).items() if count > 1]
        if twice:
            raise DataError(
                f"'{twice[0]}' appears twice in {what}", source, "give each its own name"
            )
    if raw.task == "classification" and len(raw.classes) < 2:
        raise DataError(f"{len(raw.classes)} class", source, "give at least two classes")
    if raw.task == "multi_label" and not raw.classes:
        raise DataError("there are no labels", source, "give the name of each")


def check_chunk(
    raw: Raw, x: Array | list[Array], rows: Array, where: str, shape: tuple[int, ...] = ()
) -> None:
    """Check stored values on their way to disk.

    Args:
        raw: What the source said of its data.
        x: The values, `(n, ...)`, or a list of n texts' ids.
        rows: Their places in the part, `(n,)`, for messages.
        where: The source and part, for messages.
        shape: Of earlier samples; empty for the first.

    Raises:
        DataError: Wrong shapes or types, ids outside the vocabulary, or non-finite values.
    """
    if isinstance(x, list):
        if raw.vocabulary:
            _check_ids(np.concatenate(x), len(raw.vocabulary), where)
        return
    if x.ndim != DIMENSIONS[raw.kind] or not x[0].size:
        raise DataError(f"{raw.kind} inputs of shape {x.shape}", where, ADVICE)
    if shape and x.shape[1:] != shape:
        raise DataError(f"samples of different shapes: {x.shape[1:]} and {shape}", where, ADVICE)
    if x.dtype.kind not in "iufb":
        raise DataError(f"{raw.kind} inputs of {x.dtype}", where, ADVICE)
    if raw.features and raw.encoder is None and len(raw.features) != x.shape[1]:
        raise DataError(f"{x.shape[1]} features, {len(raw.features)} names", where, ADVICE)
    _check_finite(x, "inputs", where, rows)


def _check_ids(ids: Array, number: int, where: str) -> None:
    if ids.dtype.kind not in "iu":
        raise DataError(f"text inputs of {ids.dtype}", where, ADVICE)
    if not 0 <= ids.min() <= ids.max() < number:
        what = f"ids from {ids.min()} to {ids.max()}, and a vocabulary of {number}"
        raise DataError(what, where, ADVICE)


def _check_finite(values: Array, what: str, where: str, places: Array | None = None) -> None:
    if values.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):  # what float32 cannot hold would be infinite on disk
        finite = np.isfinite(values.astype(np.float32, copy=False))
    if not finite.all():
        rows = np.unique(np.argwhere(~finite)[:, 0])
        rows = np.sort(rows if places is None else places[rows])
        raise DataError(
            f"missing or infinite {what} in {len(rows)} rows, first {rows[:5].tolist()}",
            where,
            ADVICE,
        )


def _check_labels(y: Array, num_classes: int, where: str) -> None:
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise DataError(
            f"labels of {y.dtype} and shape {y.shape}", where, "give class numbers (N,), integers"
        )
    wrong = np.flatnonzero((y < 0) | (y >= num_classes))
    if len(wrong):
        shown = ", ".join(f"row {row}: {y[row]}" for row in wrong[:5])
        raise DataError(
            f"{len(wrong)} labels outside 0..{num_classes - 1} ({shown})", where, ADVICE
        )


def _check_several_labels(y: Array, number: int, where: str) -> None:
    if y.shape[1:] != (number,) or y.dtype.kind not in "iufb" or not np.isin(y, (0, 1)).all():
        what = f"targets of {y.dtype} and shape {y.shape} for {number} labels"
        raise DataError(what, where, f"give 0 or 1 for each label, (N, {number})")


def check_splits(raw: Raw, targets: dict[str, Array], allow: Sequence[str] = ()) -> list[str]:
    """Return warnings about the splits' classes.

    Args:
        raw: What the source handed over.
        targets: Of each split.
        allow: Findings that do not stop, as in `data.allow`: `single_class` is the one known here.

    Raises:
        DataError: A split is empty, train has a single class, or another split has a class that
            train lacks.
    """
    for split, y in targets.items():
        if not len(y):
            raise DataError(f"the {split} split is empty", f"data.{split}_fraction", "raise it")
    if raw.task == "multi_label":
        return _check_labels_of_splits(raw, targets)
    if raw.task != "classification":
        return []
    present = {split: set(np.unique(y).tolist()) for split, y in targets.items()}
    single = len(present["train"]) < 2
    if single and "single_class" not in allow:
        raise DataError(
            "train has a single class",
            "data",
            "change data.split_seed, or the data; or set data.allow=[single_class]",
        )
    for split in ("val", "test"):
        unseen = sorted(present[split] - present["train"])
        if unseen:
            names = ", ".join(raw.classes[label] for label in unseen)
            fix = "set data.stratify=true"
            if split in raw.parts:
                fix = "use the same class names in both, or remove these samples"
            elif all(
                sum(int((y == label).sum()) for y in targets.values()) == 1 for label in unseen
            ):
                fix = "they have a single sample each: add some, or remove them"
            raise DataError(f"{split} has classes that are not in train: {names}", "data", fix)
    messages = ["train has a single class: there is nothing to learn"] if single else []
    absent = sorted(present["train"] - present["val"])
    if absent:
        names = ", ".join(raw.classes[label] for label in absent)
        messages.append(f"val has no samples of the classes {names}: its metrics do not cover them")
    return messages


def _check_labels_of_splits(raw: Raw, targets: dict[str, Array]) -> list[str]:
    """Return warnings about labels that a split has no sample of, or only samples of.

    Raises:
        DataError: No label differs between the samples of train.
    """
    shares = {split: y.mean(0) for split, y in targets.items()}
    same = (shares["train"] == 0) | (shares["train"] == 1)
    if same.all():
        what, fix = (
            "all samples of train have the same labels",
            "change data.split_seed, or the data",
        )
        raise DataError(what, "data", fix)
    messages = []
    if same.any():
        names = _named(raw, same)
        messages.append(
            f"nothing can be learnt of the labels {names}: all of train has it, or none"
        )
    for split in ("val", "test"):
        absent = (shares[split] == 0) & ~same
        if absent.any():
            names = _named(raw, absent)
            messages.append(
                f"{split} has no samples with the labels {names}: they are not measured"
            )
    return messages


def _named(raw: Raw, chosen: Array) -> str:
    names = [raw.classes[place] for place in np.flatnonzero(chosen).tolist()]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
