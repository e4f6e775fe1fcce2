"""Folders that are no classes: a publisher's splits, pictures beside their masks."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from litlab.errors import DataError

SPLIT = re.compile(
    r"(?:.*[\W_])?(?:(train|training)|(val|valid|validation|dev|eval)|(test|testing|pred))"
    r"(?:[\W_]?(?:set|data|images|imgs|split))?",
    re.IGNORECASE,
)
KINDS = ("train", "val", "test")
MASK = re.compile(r"(?:.*[\W_])?(masks?|annotations?|segmentations?|labels?|gt)", re.IGNORECASE)
ENDING = re.compile(r"[\W_]*(masks?|gt|label|seg(mentation)?)$", re.IGNORECASE)
ALIKE = 0.5  # of the pictures have a mask


def refuse_splits(names: Iterable[str], where: str) -> None:
    """Refuse class folders that are a publisher's splits, such as `training_set` and `test_set`.

    Raises:
        DataError: One is named like a train split and another one like val or test.
    """
    kinds: dict[str, list[str]] = {}
    for name in names:
        match = SPLIT.fullmatch(name)
        if match:
            kinds.setdefault(KINDS[(match.lastindex or 1) - 1], []).append(name)
    if "train" not in kinds or len(kinds) < 2:
        return
    shown = ", ".join(f"'{name}'" for found in kinds.values() for name in found)
    renamed = ", ".join(f"{found[0]} to {kind}" for kind, found in kinds.items())
    others = ", ".join(name for found in kinds.values() for name in found[1:])
    fix = f"rename {renamed}" + (f"; move {others} away" if others else "")
    raise DataError(f"folders named like splits would be classes: {shown}", where, fix)


def refuse_masks(names: Mapping[str, Sequence[str]], where: str) -> None:
    """Refuse pictures and their masks as two classes.

    Args:
        names: The files of each class folder.
        where: The folder that holds these.

    Raises:
        DataError: A folder named like masks has files named like those of another.
    """
    for mask in filter(MASK.fullmatch, names):
        masks = {_stem(name) for name in names[mask]}
        for other, files in names.items():
            same = masks & {_stem(name) for name in files}
            if other != mask and len(same) > ALIKE * len(masks):
                what = f"'{mask}' holds a file for each of '{other}', like masks of pictures"
                fix = "segmentation is not supported; name a folder that holds one folder per class"
                raise DataError(what, where, fix)


def _stem(name: str) -> str:
    return ENDING.sub("", PurePosixPath(name).stem)
