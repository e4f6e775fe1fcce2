"""Cuts the source into train, val and test, once, by a seed of its own."""

import hashlib
import warnings

import numpy as np

from litlab.data.raw import Raw
from litlab.data.spec import SPLITS, Array
from litlab.errors import ConfigError, DataError
from litlab.schema import DataConfig


def cut(raw: Raw, config: DataConfig) -> dict[str, tuple[Array, Array, Array]]:
    """Return `(inputs, targets, index)` for each of train, val and test.

    A test split that the publisher made is kept; validation is cut from what is left for training.
    `index` numbers the samples of the source, its parts one after the other.

    Raises:
        ConfigError: A share that is needed is not set, or one is set that would be ignored.
        DataError: There are too few samples to cut.
    """
    parts, start = {}, 0
    for name, (x, y) in raw.parts.items():
        parts[name] = (x, y, np.arange(start, start + len(x), dtype=np.int64))
        start += len(x)
    rest = parts.pop("all", None) or parts.pop("train")
    stratify = config.stratify and raw.task == "classification"
    if config.stratify and not stratify:
        warnings.warn(
            "data.stratify=true is ignored, for numbers have no classes whose shares could be kept:"
            " set data.stratify=false",
            stacklevel=2,
        )
    if "test" not in parts:
        if config.test_fraction is None:
            raise ConfigError(
                "this source has no test split of its own", "data.test_fraction", "set it, e.g. 0.2"
            )
        rest, parts["test"] = _part(rest, config.test_fraction, config.split_seed, stratify, "test")
    elif config.test_fraction is not None:
        raise ConfigError(
            "this source comes with its own test split, which is kept",
            "data.test_fraction",
            "set data.test_fraction=null",
        )
    if "val" not in parts:
        rest, parts["val"] = _part(rest, config.val_fraction, config.split_seed, stratify, "val")
    parts["train"] = rest
    return {split: parts[split] for split in SPLITS}


Part = tuple[Array, Array, Array]


def _part(part: Part, share: float, seed: int, stratify: bool, name: str) -> tuple[Part, Part]:
    from sklearn.model_selection import train_test_split

    x, y, index = part
    places = np.arange(len(x))
    try:
        kept, cut_off = train_test_split(
            places, test_size=share, random_state=seed, stratify=y if stratify else None
        )
    except ValueError as error:
        raise DataError(
            f"cannot cut {share:g} of {len(x)} samples for {name}: {error}",
            f"data.{name}_fraction",
            "change it, or set data.stratify=false",
        ) from None
    kept, cut_off = np.sort(kept), np.sort(cut_off)  # the files' order says nothing of the seed
    return (x[kept], y[kept], index[kept]), (x[cut_off], y[cut_off], index[cut_off])


def split_hash(indices: dict[str, Array]) -> str:
    """Return a SHA-256 of which samples are in which split, whatever their content."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(split.encode())
        digest.update(np.sort(indices[split]).astype("<i8").tobytes())
    return digest.hexdigest()
