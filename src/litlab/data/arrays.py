"""Prepared arrays on disk: safetensors, memory-mapped, known by their SHA-256."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from litlab.data.spec import Array, DataSpec
from litlab.errors import DataError


class Split(NamedTuple):
    """One split's arrays.

    `x`: inputs `(N, *shape)`; `y`: class numbers `(N,)` int64 or targets `(N, T)` float32;
    `source_index`: each sample's place in the source, `(N,)` int64.
    """

    x: torch.Tensor
    y: torch.Tensor
    source_index: torch.Tensor


def file_of(folder: Path, split: str) -> Path:
    """Return the path of one split's file."""
    return folder / f"{split}.safetensors"


def write_split(folder: Path, split: str, x: Array, y: Array, index: Array) -> str:
    """Write one split and return the SHA-256 of its file."""
    from safetensors.numpy import save_file

    path = file_of(folder, split)
    arrays = {"x": x, "y": y, "source_index": index}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return sha256(path)


def open_split(folder: Path, spec: DataSpec, split: str) -> Split:
    """Map one split into memory, after comparing its checksum with the spec's.

    Pages are shared between processes and read on first use.

    Raises:
        DataError: The file is missing or is not the one that `prepare` wrote.
    """
    from safetensors import safe_open

    path = file_of(folder, split)
    fix = f"run `litlab prepare data={spec.name}` (or `dvc repro --force prepare`) again"
    if not path.is_file():
        raise DataError("a prepared file is missing", str(path), fix)
    if sha256(path) != spec.checksums.get(path.name):
        raise DataError("altered since it was prepared: its checksum differs", str(path), fix)
    with safe_open(path, framework="pt") as file:
        return Split(*(file.get_tensor(name) for name in Split._fields))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
