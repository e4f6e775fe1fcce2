"""Is this fit to train on? Looked at once, when the data are prepared."""

from collections import Counter
from hashlib import blake2b

import numpy as np

from litlab.data.raw import Raw
from litlab.data.spec import Array
from litlab.errors import DataError

DIMENSIONS = {"image": 4, "sequence": 3, "tabular": 2, "text": 2}
PARTS = tuple(map(set, (["all"], ["train", "val"], ["train", "test"], ["train", "val", "test"])))
ADVICE = "mend the data, or the source that reads them"


def check_raw(raw: Raw, source: str) -> None:
    """Check what a source handed over.

    Raises:
        DataError: Wrong shapes or types, non-finite values, or labels outside the classes.
    """
    _check_names(raw, source)
    for name, (x, y) in raw.parts.items():
        where = f"{source}, part '{name}'"
        _check_inputs(raw, x, where)
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
        else:
            _check_labels(y, len(raw.classes), where)
    shapes = {name: x.shape[1:] for name, (x, _) in raw.parts.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"parts of different shapes: {shapes}", source, ADVICE)


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
            raise DataError(f"'{twice[0]}' is twice in {what}", source, "give each its own name")
    if raw.task == "classification" and len(raw.classes) < 2:
        raise DataError(f"{len(raw.classes)} class", source, "give at least two to tell apart")


def _check_inputs(raw: Raw, x: Array, where: str) -> None:
    if x.ndim != DIMENSIONS[raw.kind]:
        raise DataError(f"{raw.kind} inputs of shape {x.shape}", where, ADVICE)
    if not x.size:
        raise DataError("there are no samples", where, ADVICE)
    if raw.kind == "image" and x.dtype != np.uint8:
        raise DataError(f"images of {x.dtype}, not uint8", where, ADVICE)
    if x.dtype.kind not in ("iu" if raw.kind == "text" else "iufb"):
        raise DataError(f"{raw.kind} inputs of {x.dtype}", where, ADVICE)
    if raw.kind == "text" and not 0 <= x.min() <= x.max() < len(raw.vocabulary):
        raise DataError(
            f"ids from {x.min()} to {x.max()}, and a vocabulary of {len(raw.vocabulary)}",
            where,
            ADVICE,
        )
    if raw.features and len(raw.features) != x.shape[1]:
        raise DataError(f"{x.shape[1]} features, {len(raw.features)} names", where, ADVICE)
    _check_finite(x, "inputs", where)


def _check_finite(values: Array, what: str, where: str) -> None:
    if values.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):  # what float32 cannot hold would be infinite on disk
        finite = np.isfinite(values.astype(np.float32))
    if not finite.all():
        rows = np.unique(np.argwhere(~finite)[:, 0])
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


def check_disjoint(splits: dict[str, tuple[Array, Array, Array]]) -> None:
    """Check that no sample, input and target alike, is in two splits: it would be learnt by heart.

    Raises:
        DataError: One is; names the first five pairs by their places in the source.
    """
    seen: dict[bytes, tuple[str, int]] = {}
    pairs = []
    for split, (x, y, index) in splits.items():
        for inputs, target, place in zip(x, y, index.tolist(), strict=True):
            key = blake2b(inputs.tobytes() + target.tobytes(), digest_size=16).digest()
            other, first = seen.setdefault(key, (split, place))
            if other != split:
                pairs.append(f"{other} {first} = {split} {place}")
    if pairs:
        raise DataError(
            f"{len(pairs)} samples are in two splits ({', '.join(pairs[:5])})",
            "data, by place in the source",
            "drop the copies from the source",
        )


def check_splits(raw: Raw, targets: dict[str, Array]) -> list[str]:
    """Return warnings about the splits' classes.

    Raises:
        DataError: A split is empty, train has a single class, or another split has a class that
            train lacks.
    """
    for split, y in targets.items():
        if not len(y):
            raise DataError(f"the {split} split is empty", f"data.{split}_fraction", "raise it")
    if raw.task == "regression":
        return []
    present = {split: set(np.unique(y).tolist()) for split, y in targets.items()}
    if len(present["train"]) < 2:
        raise DataError("train has a single class", "data", "change data.split_seed, or the data")
    for split in ("val", "test"):
        unseen = sorted(present[split] - present["train"])
        if unseen:
            names = ", ".join(raw.classes[label] for label in unseen)
            raise DataError(
                f"{split} has classes that train lacks: {names}", "data", "set data.stratify=true"
            )
    absent = sorted(present["train"] - present["val"])
    if absent:
        names = ", ".join(raw.classes[label] for label in absent)
        return [f"val lacks the classes {names}: its metrics say nothing of them"]
    return []
