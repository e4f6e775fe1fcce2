"""Reads a user's new data, of the kind and shape a network was trained on."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from litlab.data.sources.idx import read_idx
from litlab.data.spec import Array, DataSpec
from litlab.errors import DataError, nearest

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")
TABLES = (".csv", ".tsv", ".parquet")


def read_input(path: Path, spec: DataSpec, *, resize: bool = False) -> tuple[list[str], Array]:
    """Return a name a sample, and stored values `(N, *spec.shape)` as `prepare` would write them.

    Images: a file, a folder of files, `.npy`/`.npz` of bytes, or IDX. Sequences: `.npy`/`.npz`,
    or a table with a row a sequence. Tables: `.csv`, `.tsv`, `.parquet` with the feature columns
    by name. Text: a line a sample.

    Raises:
        DataError: The input is missing, unreadable, or of another kind or shape.
    """
    if not path.exists():
        raise DataError("there is no such input", str(path), "name a file or a folder")
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        names, values = _numbered(path, _read_numpy(path))
    elif spec.kind == "image":
        names, values = _read_images(path, spec, resize)
    elif suffix in TABLES:
        read: Callable[[Path, DataSpec], Array] = (
            _read_features if spec.kind == "tabular" else _read_rows
        )
        names, values = _numbered(path, read(path, spec))
    elif spec.kind == "text":
        names, values = _numbered(path, _read_lines(path, spec))
    else:
        known = ", ".join((".npy", ".npz", *TABLES))
        raise DataError(f"cannot read {spec.kind} data from it", str(path), f"use {known}")
    values = _shaped(values, spec, path)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        rows = np.unique(np.argwhere(~np.isfinite(values))[:, 0])[:5]
        where = ", ".join(names[row] for row in rows)
        raise DataError(f"missing or infinite values ({where})", str(path), "fill or drop them")
    return names, values.astype(spec.dtype)


def _numbered(path: Path, values: Array) -> tuple[list[str], Array]:
    return [f"{path.name}:{row}" for row in range(len(values))], values


def _read_numpy(path: Path) -> Array:
    try:
        content = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", str(path), "save it with numpy.save") from None
    if isinstance(content, np.ndarray):
        return content
    key = "x" if "x" in content.files else content.files[0]
    array: Array = content[key]
    return array


def _read_images(path: Path, spec: DataSpec, resize: bool) -> tuple[list[str], Array]:
    if path.is_file() and path.suffix.lower() not in IMAGES:
        return _numbered(path, read_idx(path))
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if _is_image(f))
    if not files:
        raise DataError("there are no images in it", str(path), f"use {', '.join(IMAGES)}")
    root = path.parent if path.is_file() else path
    images = np.stack([_read_image(file, spec, resize) for file in files])
    return [str(file.relative_to(root)) for file in files], images


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGES


def _read_image(path: Path, spec: DataSpec, resize: bool) -> Array:
    from PIL import Image

    channels, height, width = spec.shape
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
    if mode is None:
        raise DataError(f"no picture has {channels} channels", str(path), "use .npy")
    try:
        with Image.open(path) as image:
            converted: Any = image.convert(mode)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"not a readable image: {error}", str(path), "mend or remove it") from None
    if converted.size != (width, height):
        if not resize:
            raise DataError(
                f"{converted.width}x{converted.height} pixels, not {width}x{height}",
                str(path),
                "pass --resize, or resize it yourself",
            )
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(converted, dtype=np.uint8)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _read_table(path: Path, *, header: int | None) -> Any:
    import pandas as pd

    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",", header=header)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read as a table: {error}", str(path), "mend the file") from None


def _read_features(path: Path, spec: DataSpec) -> Array:
    """The feature columns, found by name; other columns are left alone."""
    table = _read_table(path, header=0)
    columns = [str(name).strip() for name in table.columns]
    table.columns = columns
    missing = [name for name in spec.features if name not in columns]
    if missing:
        raise DataError(
            f"column '{missing[0]}' is missing ({len(missing)} of {len(spec.features)} are)",
            str(path),
            nearest(missing[0], columns),
        )
    return _numbers(table[list(spec.features)], path)


def _read_rows(path: Path, spec: DataSpec) -> Array:
    """A row a sequence; a first line that is not of numbers is a header."""
    table = _read_table(path, header=None)
    try:
        table.iloc[:1].astype(float)
    except ValueError:
        table = table.iloc[1:]
    return _numbers(table, path)


def _numbers(table: Any, path: Path) -> Array:
    try:
        values: Array = table.to_numpy(dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"not all numbers: {error}", str(path), "mend the cells") from None
    return values


def _read_lines(path: Path, spec: DataSpec) -> Array:
    known = {word: i for i, word in enumerate(spec.vocabulary)}
    length, pad = spec.shape[0], spec.pad_id or 0
    rows, cut = [], 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        unknown = [word for word in words if word not in known]
        if unknown:
            raise DataError(
                f"line {number}: '{unknown[0]}' is not in the vocabulary",
                str(path),
                nearest(unknown[0], known),
            )
        cut += len(words) > length
        ids = [known[word] for word in words[:length]]
        rows.append(ids + [pad] * (length - len(ids)))
    if cut:
        warnings.warn(f"{cut} lines are longer than {length} words and were cut", stacklevel=2)
    return np.array(rows, dtype=np.int64).reshape(-1, length)


def _shaped(values: Array, spec: DataSpec, path: Path) -> Array:
    """Accept the shapes people save; refuse the rest, and images that are not bytes."""
    if spec.kind == "image" and values.dtype != np.uint8:
        raise DataError(
            f"images of {values.dtype}", str(path), "give bytes from 0 to 255 (dtype uint8)"
        )
    if values.dtype.kind not in "iufb":
        raise DataError(f"values of type {values.dtype}", str(path), "give numbers")
    if spec.kind in ("image", "sequence") and values.ndim == len(spec.shape) and spec.shape[0] == 1:
        values = values[:, None]  # (N, H, W) or (N, L): the one channel is left out
    if spec.kind == "image" and values.ndim == 4 and values.shape[1:] != spec.shape:
        values = values.transpose(0, 3, 1, 2)  # (N, H, W, C)
    if values.shape[1:] != spec.shape or not len(values):
        raise DataError(
            f"samples of shape {values.shape[1:]}, {len(values)} of them",
            str(path),
            f"'{spec.name}' has samples of shape {spec.shape}",
        )
    return values
