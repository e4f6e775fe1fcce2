"""Folders that are no classes: a publisher's splits, pictures beside their masks."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from litlab.utils.errors import DataError

SPLIT = re.compile(
    r"(?P<prefix>.*[\W_])?(?:(?P<train>train|training)|(?P<val>val|valid|validation|dev|eval)"
    r"|(?P<test>test|testing|pred))(?:[\W_]?(?:set|data|images|imgs|split))?",
    re.IGNORECASE,
)
MASK = re.compile(r"(?:.*[\W_])?(masks?|annotations?|segmentations?|labels?|gt)", re.IGNORECASE)
ENDING = re.compile(r"[\W_]*(masks?|gt|label|seg(mentation)?)$", re.IGNORECASE)
ALIKE = 0.5  # of the pictures have a mask


def refuse_splits(names: Iterable[str], where: str) -> None:
    """Refuse class folders that are a publisher's splits, such as `training_set` and `test_set`.

    Raises:
        DataError: One is named like a train split and another one like val or test.
    """
    # What begins alike belongs together: seg_train, seg_test. seg_pred has no labels: last.
    found: dict[str, dict[str, list[str]]] = {}
    for name in sorted(names, key=lambda name: (name.lower().endswith("pred"), name)):
        match = SPLIT.fullmatch(name)
        if match:
            kind = next(kind for kind in ("train", "val", "test") if match[kind])
            found.setdefault(match["prefix"] or "", {}).setdefault(kind, []).append(name)
    for kinds in found.values():
        if "train" in kinds and len(kinds) > 1:
            raise _splits(kinds, where)


def _splits(kinds: Mapping[str, Sequence[str]], where: str) -> DataError:
    shown = ", ".join(f"'{name}'" for found in kinds.values() for name in found)
    renamed = ", ".join(f"{found[0]} to {kind}" for kind, found in kinds.items())
    others = ", ".join(name for found in kinds.values() for name in found[1:])
    fix = f"rename {renamed}" + (f"; move {others} away" if others else "")
    return DataError(f"folders named like splits would be read as classes: {shown}", where, fix)


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
            if not MASK.fullmatch(other) and len(same) > ALIKE * len(masks):
                what = f"'{mask}' has a file for each of '{other}', like masks of images"
                fix = f"segmentation is not supported; rename '{mask}' if it is a class"
                raise DataError(what, where, fix)


def _stem(name: str) -> str:
    return ENDING.sub("", PurePosixPath(name).stem)
