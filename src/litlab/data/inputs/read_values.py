"""New data that are in memory: arrays, tables and texts, read as files of them are."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from litlab.data.inputs.read_input import as_stored, read_input, refuse_codes
from litlab.data.inputs.read_text import encode_texts
from litlab.data.spec import Array, DataSpec
from litlab.utils.errors import DataError

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
    import pyarrow as pa

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
