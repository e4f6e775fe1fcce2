"""Reads a user's new data, of the kind and shape a network was trained on."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from litlab.data.inputs.images import MODES, Form, count_conversions, decode, in_threads, is_image
from litlab.data.inputs.images import SUFFIXES as IMAGES
from litlab.data.inputs.read_text import read_texts, read_words
from litlab.data.prepare.source_files import require_file
from litlab.data.sources.idx import read_idx
from litlab.data.spec import Array, DataSpec
from litlab.utils.errors import DataError

TABLES = (".csv", ".tsv", ".parquet")


def read_input(
    path: Path, spec: DataSpec, *, resize: bool = False
) -> tuple[list[str], Array | list[Array]]:
    """Return a name a sample, and stored values `(N, *spec.shape)` as `prepare` would write them.

    Images: a file, a folder of files, `.npy`/`.npz` of bytes, or IDX. Sequences: `.npy`/`.npz`,
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
        from litlab.data.inputs import read_table

        by_name = spec.kind == "tabular" and spec.features
        if by_name:
            names, values = read_table.read_features(path, spec)
        else:
            names, values = read_table.read_rows(path)
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
    usual = 255 * sum(spec.mean) / len(spec.mean)
    if images.max() < usual:
        warnings.warn(
            f"the brightest value, {images.max()}, is below the mean of the training images, "
            f"{usual:.0f}: pixels go from 0 to 255",
            stacklevel=3,
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
            name = content.files[0] if len(content.files) == 1 else "x"
            if name in content.files:
                return np.atleast_1d(content[name])
    except Exception as error:  # a damaged header makes numpy and zipfile raise nearly anything
        raise DataError(f"cannot be read: {error}", str(path), fix) from None
    raise DataError(f"has the arrays {content.files}, but no x", str(path), fix)


def _read_images(path: Path, spec: DataSpec, resize: bool) -> tuple[list[str], Array]:
    if path.is_file() and path.suffix.lower() in (*TABLES, ".txt"):
        raise DataError("not an image", str(path), f"use {', '.join(IMAGES)}, .npy, .npz or IDX")
    if path.is_file() and path.suffix.lower() not in IMAGES:
        return _numbered(path, read_idx(path))
    files = [path] if path.is_file() else sorted(filter(is_image, _not_hidden(path)))
    if not files:
        raise DataError("the folder has no images", str(path), f"use {', '.join(IMAGES)}")
    root = path.parent if path.is_file() else path
    images = _decode(files, spec, resize)
    return [file.relative_to(root).as_posix() for file in files], images


def _not_hidden(folder: Path) -> Iterator[Path]:
    """What lies in a folder and below it; hidden files are passed over, as `prepare` does."""
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _decode(files: list[Path], spec: DataSpec, resize: bool) -> Array:
    """Bring pictures into the spec's shape, in the way the training images were."""
    channels, height, width = spec.shape
    if channels not in MODES:
        raise DataError(f"no image format has {channels} channels", str(files[0]), "use .npy")
    form = Form(channels, height, width, spec.image_fit or ("resize" if resize else None))
    decoded = in_threads(
        lambda file: decode(file, form, fix="pass --resize, or resize it yourself"), files
    )
    converted = count_conversions((mode for _, mode in decoded), channels)
    if converted:
        warnings.warn(converted, stacklevel=2)
    return np.stack([image for image, _ in decoded])


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
    if _channels_last(values, spec):
        values = values.transpose(0, 2, 1)
    if values.shape[1:] != spec.shape or not len(values):
        wanted = ", ".join(("N", *map(str, spec.shape)))
        raise DataError(
            f"an array of shape {values.shape}", str(path), f"'{spec.name}' needs ({wanted})"
        )
    return values


def _channels_last(values: Array, spec: DataSpec) -> bool:
    """Whether these are sequences `(N, L, C)`, as those that the network was trained on."""
    source: Any = spec.settings.get("source", {})
    last = spec.kind == "sequence" and source.get("channels") == "last"
    return last and values.shape[1:] == spec.shape[::-1]
