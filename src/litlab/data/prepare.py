"""Source -> checked, split, checksummed arrays with their DataSpec."""

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from litlab.data.arrays import write_split
from litlab.data.spec import Array, DataSpec, Raw
from litlab.data.split import Part, cut, split_hash
from litlab.data.validate import check_raw, check_splits
from litlab.schema import DataConfig
from litlab.targets import build


def prepare(config: DataConfig, folder: Path, trust: list[str] | None = None) -> DataSpec:
    """Read a source and write its prepared arrays, all or nothing, into a folder.

    Raises:
        ConfigError: The settings do not fit the source.
        DataError: The data are not fit to train on.
        EnvironmentFault: The data are neither on disk nor to be had from the network.
    """
    source = build(config.source, where="data.source", trust=trust or ())
    raw: Raw = source.read()
    check_raw(raw, str(config.source["_target_"]))
    splits = cut(raw, config)
    for message in check_splits(raw, {name: y for name, (_, y, _) in splits.items()}):
        warnings.warn(message, stacklevel=2)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        staged.chmod(0o755)
        spec = _write(raw, splits, config, staged)
        _replace(folder, staged)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return spec


def _replace(folder: Path, staged: Path) -> None:
    """Put the finished folder in its place; a reader sees the old one or the new one."""
    old = staged.with_name(staged.name + ".old")
    if folder.exists():
        folder.rename(old)
    staged.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _write(raw: Raw, splits: dict[str, Part], config: DataConfig, folder: Path) -> DataSpec:
    x, y, _ = splits["train"]
    dtype = _dtype(raw)
    target_type = np.int64 if raw.task == "classification" else np.float32
    checksums = {
        f"{name}.safetensors": write_split(
            folder, name, inputs.astype(dtype), targets.astype(target_type), index
        )
        for name, (inputs, targets, index) in splits.items()
    }
    mean, std = _statistics(raw, x)
    regression = raw.task == "regression"
    spec = DataSpec(
        name=config.name,
        source=str(config.source["_target_"]),
        kind=raw.kind,
        task=raw.task,
        shape=tuple(x.shape[1:]),
        dtype=dtype,
        classes=tuple(raw.classes),
        targets=tuple(raw.targets),
        features=tuple(raw.features),
        mean=mean,
        std=std,
        target_mean=_floats(y.mean(0, dtype=np.float64)) if regression else (),
        target_std=_floats(_nonzero(y.std(0, dtype=np.float64))) if regression else (),
        class_counts=() if regression else _ints(np.bincount(y, minlength=len(raw.classes))),
        vocabulary=tuple(raw.vocabulary),
        vocab_size=len(raw.vocabulary) or None,
        pad_id=raw.pad_id,
        sizes={name: len(part[0]) for name, part in splits.items()},
        licence=raw.licence,
        origin=raw.origin,
        settings=config.model_dump(mode="json"),
        checksums=checksums,
        split_hash=split_hash({name: part[2] for name, part in splits.items()}),
    )
    spec.save(folder)
    return spec


def _dtype(raw: Raw) -> Literal["uint8", "float32", "int32"]:
    names = {"image": "uint8", "text": "int32"}
    return cast(Literal["uint8", "float32", "int32"], names.get(raw.kind, "float32"))


def _statistics(raw: Raw, x: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the train split alone: a channel's, or a feature's."""
    if raw.kind == "text":
        return (), ()
    axes = (0, *range(2, x.ndim))
    scale = 255.0 if raw.kind == "image" else 1.0
    mean, std = x.mean(axes, dtype=np.float64), x.std(axes, dtype=np.float64)
    return _floats(mean / scale), _floats(_nonzero(std) / scale)


def _nonzero(std: Any) -> Any:
    """A constant column has nothing to divide by; it becomes zeros, not NaN."""
    return np.where(std > 0, std, 1.0)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
