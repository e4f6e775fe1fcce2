"""The files of CIFAR-10 and CIFAR-100: plain bytes, and pickles, of which nothing is run."""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from litlab.data.prepare.source_files import require_file
from litlab.data.spec import Array
from litlab.utils.errors import DataError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
AGAIN = "extract the published archive again"


class Batch(NamedTuple):
    """Images uint8 `(N, 3, 32, 32)`, and labels `(N,)` by the name of their kind."""

    images: Array
    labels: dict[str, Array]


def read_binary(path: Path, kinds: Sequence[str]) -> Batch:
    """Read a binary batch: records of a byte for each kind of label, then the pixels.

    Raises:
        DataError: It is missing or cut short.
    """
    require_file(path)
    record = np.dtype([*((kind, "u1") for kind in kinds), ("image", "u1", SHAPE)])
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _missing(path, error) from None
    if not size or size % record.itemsize:
        what = f"has {size} bytes, which is not a multiple of {record.itemsize}"
        raise DataError(what, str(path), AGAIN)
    records = np.memmap(path, record, mode="r")
    return Batch(records["image"], {kind: records[kind].astype(np.int64) for kind in kinds})


def read_pickled(path: Path) -> Batch:
    """Read a batch of the Python version.

    Raises:
        DataError: It is missing, damaged, or holds something else.
    """
    content = read_pickle(path)
    data = content.pop("data", None)
    if not isinstance(data, _Array) or not isinstance(data.content, bytes):
        raise DataError("holds no images", str(path), AGAIN)
    if len(data.content) % PIXELS or data.shape != (len(data.content) // PIXELS, PIXELS):
        raise DataError(f"images of shape {data.shape}, not (N, {PIXELS})", str(path), AGAIN)
    images = np.frombuffer(data.content, np.uint8).reshape(-1, *SHAPE)
    labels = {
        name: np.array(value, dtype=np.int64)
        for name, value in content.items()
        if isinstance(value, list) and all(type(label) is int for label in value)
    }
    return Batch(images, labels)


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the dictionary in a pickle; nothing of it is run.

    Raises:
        DataError: It is missing or damaged, holds something else, or wants to call anything.
    """
    try:
        content = _Unpickler(io.BytesIO(_content(path)), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"not a pickle of CIFAR's: {error}", str(path), AGAIN) from None
    if not isinstance(content, dict):
        raise DataError(f"holds a {type(content).__name__}", str(path), AGAIN)
    return {text(key): value for key, value in content.items()}


def text(value: object) -> str:
    """Return text that Python 2 has pickled as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _content(path: Path) -> bytes:
    require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _missing(path, error) from None


def _missing(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot be read: {error.strerror}", str(path), AGAIN)


class _Array:
    """What stands for an array that is unpickled: its state is noted, NumPy never sees it."""

    shape: object = None
    content: object = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[int, object, object, bool, object]) -> None:
        _, self.shape, _, _, self.content = state


class _DType:
    """What stands for its type: the pixels' length tells that they are bytes."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Knows the few names that these files need; any other is refused before it is imported."""

    known = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _DType,
        ("_codecs", "encode"): str.encode,  # how Python 3 writes bytes for Python 2
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it tries to call {module}.{name}")
        return self.known[module, name]
