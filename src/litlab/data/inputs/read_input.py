"""Reads a user's new data, of the kind and shape a network was trained on."""

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from litlab.data.inputs.images import (
    DEEP_MODES,
    MODES,
    Form,
    count_conversions,
    decode,
    in_threads,
    is_image,
    passed_over,
)
from litlab.data.inputs.images import SUFFIXES as IMAGES
from litlab.data.inputs.tables import own_settings, read_features, read_rows
from litlab.data.inputs.texts import encode_texts, read_texts, read_words
from litlab.data.prepare.source_files import require_file
from litlab.data.sources.array_names import find_inputs
from litlab.data.sources.idx import is_idx, read_idx
from litlab.data.sources.npz import impute
from litlab.data.spec import Array, DataSpec
from litlab.utils.errors import DataError

# A mean so many deviations away, a deviation so many times smaller: another unit.
FAR, FLAT = 10, 50
TABLES = (".csv", ".tsv", ".parquet")


def read_input(
    path: Path, spec: DataSpec, *, resize: bool = False
) -> tuple[list[str], Array | list[Array]]:
    """Return a name a sample, and stored values `(N, *spec.shape)` as `prepare` would write them.

    Images: a file, a folder of files, `.npy`/`.npz`, or IDX. Sequences: `.npy`/`.npz`,
    or a table with a row a sequence. Tables: `.csv`, `.tsv`, `.parquet` with the feature columns
    by name. Text: see `read_texts`, which gives each text's ids as an array of its own; a line of
    words a sample where the data have a vocabulary and no tokenizer.

    Raises:
        DataError: The input is missing, unreadable, or of another kind or shape.
    """
    if not path.exists():
        raise DataError("there is no such input", str(path), "name a file or a folder")
    suffix = path.suffix.lower()
    if not path.is_dir() or suffix in (".npy", ".npz"):
        require_file(path)
    if suffix in (".npy", ".npz"):
        refuse_codes(path, spec)
        names, values = _numbered(path, _read_numpy(path))
    elif spec.tokenizer is not None:
        return read_texts(path, spec)
    elif spec.kind == "image":
        names, values = _read_images(path, spec, resize)
    elif spec.kind == "text" and path.is_file():
        names, values = _numbered(path, read_words(path, spec), first=1)
    elif spec.kind != "text" and _is_table(path, spec):
        by_name = spec.kind == "tabular" and spec.features
        if by_name:
            names, values = read_features(path, spec)
        else:
            names, values = read_rows(path)
    else:
        known = "a text file" if spec.kind == "text" else ", ".join((".npy", ".npz", *TABLES))
        raise DataError(f"cannot read {spec.kind} data from it", str(path), f"use {known}")
    return as_stored(names, values, spec, path)


def as_stored(
    names: list[str], values: Array, spec: DataSpec, path: Path
) -> tuple[list[str], Array]:
    """Return names and values as `prepare` would store them.

    Args:
        names: One a sample.
        values: `(N, *spec.shape)`, or another of the shapes that people save.
        spec: What the network was trained on.
        path: Where they are from, for messages.

    Raises:
        DataError: They are of another kind or shape, or not finite.
    """
    values = _shaped(values, spec, path)
    how = own_settings(spec).get("impute")
    if how and values.dtype.kind == "f":
        values = impute(values, how)
    if spec.kind == "text":
        _check_ids(values, spec, path)
    with np.errstate(over="ignore"):
        stored = values.astype(spec.dtype)
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        rows = np.unique(np.argwhere(~np.isfinite(stored))[:, 0])
        first = ", ".join(names[row] for row in rows[:5])
        raise DataError(
            f"missing or infinite values in {len(rows)} samples, first {first}",
            str(path),
            "fill or drop them",
        )
    if spec.kind == "image":
        _warn_of_scale(stored, spec)
    return names, stored


def _warn_of_scale(images: Array, spec: DataSpec) -> None:
    """Pixels from 0 to 1, or to 16 as scikit-learn's digits, look black to the network."""
    if spec.dtype != "uint8":
        _warn_of_unit(images, spec)
        return
    usual = 255 * sum(spec.mean) / len(spec.mean)
    if images.max() < usual:
        warnings.warn(
            f"the brightest value, {images.max()}, is below the mean of the training images, "
            f"{usual:.0f}: pixels go from 0 to 255",
            stacklevel=3,
        )


def _warn_of_unit(images: Array, spec: DataSpec) -> None:
    """Bytes for a network that was trained on values from 0 to 1, or the other way round."""
    mean, std = np.array(spec.mean), np.array(spec.std)
    found = images.mean((0, 2, 3), dtype=np.float64)
    spread = images.std((0, 2, 3), dtype=np.float64)
    far = np.abs(found - mean) > FAR * std
    flat = (spread > 0) & (spread * FLAT < std)  # one blank image says nothing
    if (far | flat).any():
        at = int(np.argmax(far | flat))
        warnings.warn(
            f"channel {at} has mean {found[at]:.4g} and deviation {spread[at]:.4g}, and in the "
            f"training images {mean[at]:.4g} and {std[at]:.4g}: give values in their unit",
            stacklevel=4,
        )


def _is_table(path: Path, spec: DataSpec) -> bool:
    """Whether it looks like a table; where the columns have names, any text file may be one."""
    suffix = path.suffix.lower()
    return suffix in TABLES or (bool(spec.columns) and path.is_file() and suffix not in IMAGES)


def refuse_codes(path: Path, spec: DataSpec) -> None:
    """Refuse an array where the columns of a table were fitted.

    Raises:
        DataError: They were.
    """
    if any(column.kind == "categorical" or column.quantiles for column in spec.columns):
        raise DataError(
            "an array cannot hold a table's categories and quantiles",
            str(path),
            f"give a table, {', '.join(TABLES)}, with the columns by name",
        )


def _numbered(path: Path, values: Array, first: int = 0) -> tuple[list[str], Array]:
    """Name samples by their place: rows of an array from 0, lines of a text from 1."""
    return [f"{path.name}:{first + row}" for row in range(len(values))], values


def _check_ids(values: Array, spec: DataSpec, path: Path) -> None:
    number = spec.vocab_size or 0
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= number:
        raise DataError(
            f"not token ids: {values.dtype} from {values.min()} to {values.max()}",
            str(path),
            f"give integers from 0 to {number - 1}",
        )


def _read_numpy(path: Path) -> Array:
    fix = "save it with numpy.save, or numpy.savez as x"
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return np.atleast_1d(content)
            name = find_inputs(content.files)
            if name is not None:
                return np.atleast_1d(content[name])
    except Exception as error:  # a damaged header makes numpy and zipfile raise nearly anything
        raise DataError(f"cannot be read: {error}", str(path), fix) from None
    raise DataError(f"has the arrays {content.files}, but no x", str(path), fix)


def _read_images(path: Path, spec: DataSpec, resize: bool) -> tuple[list[str], Array]:
    if path.is_file() and path.suffix.lower() in (*TABLES, ".txt"):
        raise DataError("not an image", str(path), f"use {', '.join(IMAGES)}, .npy, .npz or IDX")
    if path.is_file() and path.suffix.lower() not in IMAGES:
        if not is_idx(path):
            raise DataError("not an image", str(path), f"use {', '.join(IMAGES)}, .npy, .npz, IDX")
        return _numbered(path, read_idx(path))
    files = [path] if path.is_file() else sorted(filter(is_image, _not_hidden(path)))
    if not files:
        raise DataError("the folder has no images", str(path), f"use {', '.join(IMAGES)}")
    root = path.parent if path.is_file() else path
    images = _decode(files, spec, resize)
    return [file.relative_to(root).as_posix() for file in files], images


def _not_hidden(folder: Path) -> Iterator[Path]:
    """What lies in a folder and below it; what `prepare` passes over is passed over here too."""
    for path in folder.rglob("*"):
        if not any(map(passed_over, path.relative_to(folder).parts)):
            yield path


def _decode(files: list[Path], spec: DataSpec, resize: bool) -> Array:
    """Bring pictures into the spec's shape, in the way the training images were."""
    channels, height, width = spec.shape
    if channels not in MODES:
        raise DataError(f"no image format has {channels} channels", str(files[0]), "use .npy")
    fit = spec.image_fit or ("resize" if resize else None)
    form = Form(channels, height, width, fit, "uint8" if spec.dtype == "uint8" else "float32")
    decoded = in_threads(
        lambda file: decode(file, form, fix="pass --resize, or resize it yourself"), files
    )
    kept = DEEP_MODES if form.dtype == "float32" else ()
    converted = count_conversions((mode for _, mode in decoded if mode not in kept), channels)
    if converted:
        warnings.warn(converted, stacklevel=2)
    return np.stack([image for image, _ in decoded])


def _shaped(values: Array, spec: DataSpec, path: Path) -> Array:
    """Accept the shapes people save; refuse the rest, and numbers where bytes are needed."""
    if spec.kind == "image" and spec.dtype == "uint8" and not _are_bytes(values):
        raise DataError(
            f"images of {values.dtype}", str(path), "give bytes from 0 to 255 (dtype uint8)"
        )
    if values.dtype.kind not in "iufb":
        raise DataError(f"values of type {values.dtype}", str(path), "give numbers")
    given = values.shape
    if values.ndim and not len(values):
        raise DataError(f"there are no samples: shape {given}", str(path), "give at least one")
    if spec.kind in ("image", "sequence") and values.ndim == len(spec.shape) and spec.shape[0] == 1:
        values = values[:, None]  # (N, H, W) or (N, L): the one channel is left out
    if spec.kind == "image" and values.ndim == 4 and values.shape[1:] != spec.shape:
        values = values.transpose(0, 3, 1, 2)  # (N, H, W, C)
    if _channels_last(values, spec):
        values = values.transpose(0, 2, 1)
    if values.shape[1:] != spec.shape:
        wanted = ", ".join(("N", *map(str, spec.shape)))
        raise DataError(f"an array of shape {given}", str(path), f"'{spec.name}' needs ({wanted})")
    return values


def _are_bytes(values: Array) -> bool:
    """Whether these are whole numbers from 0 to 255, however they are stored."""
    if values.dtype == np.uint8:
        return True
    return (
        values.dtype.kind in "iu" and values.size > 0 and 0 <= values.min() <= values.max() <= 255
    )


def _channels_last(values: Array, spec: DataSpec) -> bool:
    """Whether these are sequences `(N, L, C)`, as those that the network was trained on."""
    source: Any = spec.settings.get("source", {})
    if spec.kind != "sequence" or values.shape[1:] != spec.shape[::-1]:
        return False
    return source.get("channels") == "last" or values.shape[1:] != spec.shape


# New data that are in memory: arrays, tables and texts, read as files of them are.


Samples = tuple[list[str], Array | list[Array]]


def read_values(values: Any, spec: DataSpec, *, resize: bool = False) -> Samples:
    """Return a name a sample, and stored values `(N, *spec.shape)` as `prepare` would write them.

    Args:
        values: An array or tensor `(N, *spec.shape)`, a pandas DataFrame with the feature columns
            (or the text column) by name, the path of a file or folder, or a list: of paths, of
            texts where the data are text, of arrays of one shape.
        spec: What the network was trained on.
        resize: Whether to resize images that differ; as `read_input` takes it.

    Raises:
        DataError: They are of another kind or shape.
    """
    import pandas as pd

    if isinstance(values, str | Path):
        return read_input(Path(values), spec, resize=resize)
    if isinstance(values, pd.DataFrame):
        return _of_frame(values, spec)
    if isinstance(values, torch.Tensor | np.ndarray):
        return _of_array(values, spec)
    if isinstance(values, Sequence) and len(values):
        if all(isinstance(value, str) for value in values) and spec.kind == "text":
            return _of_texts(values, spec)
        if all(isinstance(value, str | Path) for value in values):
            return _of_paths([Path(value) for value in values], spec, resize)
        if all(isinstance(value, torch.Tensor | np.ndarray) for value in values):
            shapes = sorted({tuple(value.shape) for value in values})
            if len(shapes) == 1:
                return _of_array(np.stack([np.asarray(value) for value in values]), spec)
            raise DataError(f"arrays of several shapes: {shapes[0]}, {shapes[1]}", "inputs", FIX)
    empty = isinstance(values, Sequence) and not len(values)
    what = "there are no samples" if empty else f"cannot read data from {type(values).__name__}"
    raise DataError(what, "inputs", FIX)


FIX = "give an array (N, ...), a DataFrame, a path, or a list of paths or texts"


def _of_array(values: torch.Tensor | Array, spec: DataSpec) -> Samples:
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    refuse_codes(Path("array"), spec)
    return as_stored([str(row) for row in range(len(array))], array, spec, Path("array"))


def _of_frame(frame: Any, spec: DataSpec) -> Samples:
    """Read a table through the format that keeps its types: the checks are those of files."""
    if spec.kind == "image":
        wanted = ", ".join(("N", *map(str, spec.shape)))
        fix = f"give an array ({wanted}) of bytes, or paths of images"
        raise DataError("a DataFrame holds no images", "DataFrame", fix)
    odd = [str(name) for name in frame.columns if not isinstance(name, str)]
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    if odd and not set(spec.features) <= set(frame.columns):
        shown, own = ", ".join(odd[:3]), ", ".join(spec.features[:3])
        what = f"its columns are not named as in training: {shown}, ... for {own}, ..."
        fix = f"name all {len(spec.features)} by frame.columns = [...]"
        fix += "" if spec.cardinalities else "; or give frame.to_numpy()"
        raise DataError(what, "DataFrame", fix)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "DataFrame.parquet"
        try:
            frame.to_parquet(path, index=False)
        except (pa.ArrowException, ValueError, TypeError) as error:
            what = f"a column holds more than one type: {error}"
            raise DataError(what, "DataFrame", "convert it to numbers or to text") from None
        try:
            _, values = read_input(path, spec)
        except DataError as error:
            where = error.where.replace(str(path), "DataFrame")
            raise DataError(error.what, where, error.fix) from None
    return [str(label) for label in frame.index], values


def _of_texts(texts: Sequence[str], spec: DataSpec) -> Samples:
    names = [str(row) for row in range(len(texts))]
    if spec.tokenizer is not None:
        return names, encode_texts(texts, spec)
    with tempfile.TemporaryDirectory() as folder:  # a line of known words a sample
        path = Path(folder) / "texts.txt"
        path.write_text("".join(" ".join(text.split()) + "\n" for text in texts), encoding="utf-8")
        try:
            return names, read_input(path, spec)[1]
        except DataError as error:
            raise DataError(error.what, "texts", error.fix) from None


def _of_paths(paths: Sequence[Path], spec: DataSpec, resize: bool) -> Samples:
    names: list[str] = []
    parts: list[Any] = []
    for path in paths:
        found, values = read_input(path, spec, resize=resize)
        names += found
        parts.append(values)
    if isinstance(parts[0], list):
        return names, [one for part in parts for one in part]
    return names, np.concatenate(parts)
