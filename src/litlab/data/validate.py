"""Is this fit to train on? Looked at once, when the data are prepared."""

import numpy as np

from litlab.data.spec import Array, Raw
from litlab.errors import DataError

DIMENSIONS = {"image": 4, "sequence": 3, "tabular": 2, "text": 2}
ADVICE = "mend the data, or the source that reads them"


def check_raw(raw: Raw, source: str) -> None:
    """Check what a source handed over.

    Raises:
        DataError: Wrong shapes, non-finite values, or labels outside the classes.
    """
    for name, (x, y) in raw.parts.items():
        where = f"{source}, part '{name}'"
        if x.ndim != DIMENSIONS[raw.kind]:
            raise DataError(f"{raw.kind} inputs of shape {x.shape}", where, ADVICE)
        if raw.kind == "image" and x.dtype != np.uint8:
            raise DataError(f"images of {x.dtype}, not uint8", where, ADVICE)
        if len(x) != len(y):
            raise DataError(f"{len(x)} inputs and {len(y)} targets", where, ADVICE)
        if not len(x):
            raise DataError("there are no samples", where, ADVICE)
        _check_finite(x, "inputs", where)
        if raw.task == "regression":
            _check_finite(y, "targets", where)
        else:
            _check_labels(y, len(raw.classes), where)
    if raw.task == "classification" and len(raw.classes) < 2:
        raise DataError(f"{len(raw.classes)} class", source, "give at least two to tell apart")


def _check_finite(values: Array, what: str, where: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        rows = np.unique(np.argwhere(~np.isfinite(values))[:, 0])
        raise DataError(
            f"missing or infinite {what} in {len(rows)} rows, first {rows[:5].tolist()}",
            where,
            ADVICE,
        )


def _check_labels(y: Array, num_classes: int, where: str) -> None:
    wrong = np.flatnonzero((y < 0) | (y >= num_classes))
    if len(wrong):
        shown = ", ".join(f"row {row}: {y[row]}" for row in wrong[:5])
        raise DataError(
            f"{len(wrong)} labels outside 0..{num_classes - 1} ({shown})", where, ADVICE
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
