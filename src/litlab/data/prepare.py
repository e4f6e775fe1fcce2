"""Source -> checked, split, checksummed arrays with their DataSpec."""

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from safetensors import SafetensorError

from litlab.data.arrays import write_split
from litlab.data.raw import Raw
from litlab.data.spec import Array, DataSpec
from litlab.data.split import Part, cut, split_hash
from litlab.data.validate import check_disjoint, check_raw, check_splits
from litlab.errors import ConfigError, EnvironmentFault
from litlab.schema import DataConfig
from litlab.targets import build


def prepare(config: DataConfig, folder: Path, trust: list[str] | None = None) -> DataSpec:
    """Read a source and write its prepared arrays, all or nothing, into a folder.

    Raises:
        ConfigError: The settings do not fit the source.
        DataError: The data are not fit to train on.
        EnvironmentFault: The data are neither on disk nor to be had from the network, or the
            folder cannot be written.
    """
    source = build(config.source, where="data.source", trust=trust or ())
    raw = source.read()
    if not isinstance(raw, Raw):
        raise ConfigError(
            f"its read() gives {type(raw).__name__}, not litlab.data.raw.Raw",
            "data.source._target_",
            "return a Raw",
        )
    check_raw(raw, str(config.source["_target_"]))
    splits = cut(raw, config)
    for message in check_splits(raw, {name: y for name, (_, y, _) in splits.items()}):
        warnings.warn(message, stacklevel=2)
    check_disjoint(splits)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            staged.chmod(0o755)
            spec = _write(raw, splits, config, staged)
            _replace(folder, staged)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise EnvironmentFault(
            f"cannot write: {error}", str(folder), "free some space, or mend its permissions"
        ) from None
    return spec


def _replace(folder: Path, staged: Path) -> None:
    """Put the finished folder in its place; should that fail, the old one is put back."""
    old = staged.with_name(staged.name + ".old")
    if folder.exists():
        folder.rename(old)
    try:
        staged.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
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
    mean, std = _statistics(raw, x.astype(dtype))  # of what is stored, not of finer floats
    regression = raw.task == "regression"
    target_mean, target_std = _moments(y.astype(target_type), (0,)) if regression else ((), ())
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
        target_mean=target_mean,
        target_std=target_std,
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
    return _moments(x, (0, *range(2, x.ndim)), 255.0 if raw.kind == "image" else 1.0)


def _moments(
    x: Array, axes: tuple[int, ...], scale: float = 1.0
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation in units of `scale`.

    A constant column has nothing to divide by; its deviation becomes 1, so that it turns into
    zeros, not NaN. So does one that varies so little that 1/std overflows float32.
    """
    mean, std = x.mean(axes, dtype=np.float64), x.std(axes, dtype=np.float64)
    std = np.where(std > np.finfo(np.float32).tiny, std, scale)
    return _floats(mean / scale), _floats(std / scale)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
