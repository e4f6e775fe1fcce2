import io
import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from litlab.data.prepare.source_files import require_file, user_path
from litlab.data.raw import Raw
from litlab.data.spec import Array
from litlab.utils.errors import DataError

# The files of CIFAR-10 and CIFAR-100: plain bytes, and pickles, of which nothing is run.


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


class _Layout(NamedTuple):
    """One of the published archives, extracted; a binary one has a record of label kinds."""

    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    record: tuple[str, ...] = ()


TEN = (
    _Layout(
        "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        "batches.meta",
    ),
    _Layout(
        "cifar-10-batches-bin",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test_batch.bin",
        "batches.meta.txt",
        ("labels",),
    ),
)
HUNDRED = (
    _Layout("cifar-100-python", ("train",), "test", "meta"),
    _Layout(
        "cifar-100-binary",
        ("train.bin",),
        "test.bin",
        "{}_names.txt",
        ("coarse_labels", "fine_labels"),
    ),
)


class Cifar10:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 images, 3x32x32, 10 classes.

    Args:
        path: The extracted folder, cifar-10-batches-py or cifar-10-batches-bin, or the one that
            holds it; relative to the project's root.
    """

    def __init__(self, *, path: str) -> None:
        self.path = path

    def read(self) -> Raw:
        """Return the data.

        Raises:
            DataError: A file is missing, damaged, or no batch of CIFAR-10.
            EnvironmentFault: There is no such folder.
        """
        return _read(self.path, TEN, "labels", 10)


class Cifar100:
    """CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 images, 3x32x32, 100 classes in 20 groups.

    Args:
        path: The extracted folder, cifar-100-python or cifar-100-binary, or the one that holds it;
            relative to the project's root.
        labels: The 100 fine classes, or the 20 coarse ones.
    """

    def __init__(self, *, path: str, labels: Literal["fine", "coarse"] = "fine") -> None:
        self.path, self.labels = path, labels

    def read(self) -> Raw:
        """Return the data.

        Raises:
            DataError: A file is missing, damaged, or no batch of CIFAR-100.
            EnvironmentFault: There is no such folder.
        """
        number = 100 if self.labels == "fine" else 20
        return _read(self.path, HUNDRED, f"{self.labels}_labels", number)


def _read(path: str, layouts: tuple[_Layout, ...], kind: str, number: int) -> Raw:
    folder, layout = _find(path, layouts)
    names = folder / layout.names.format(kind.removesuffix("s"))
    files = {
        "train": [folder / name for name in layout.train],
        "test": [folder / layout.test],
    }
    read = partial(read_binary, kinds=layout.record) if layout.record else read_pickled
    return Raw(
        kind="image",
        task="classification",
        parts={part: _join([read(file) for file in of], of, kind) for part, of in files.items()},
        classes=_classes(names, kind, number),
        licence="not stated",
        origin="https://www.cs.toronto.edu/~kriz/cifar.html",
        files=[*files["train"], *files["test"], *([names] if names.is_file() else [])],
    )


def _find(path: str, layouts: tuple[_Layout, ...]) -> tuple[Path, _Layout]:
    """The folder that holds the batches, and how they are stored."""
    given = user_path(path)
    if not given.is_dir():
        fix = f"extract it (tar -xzf {given.name}) and name the folder"
        raise DataError("is a file, not the extracted folder", path, fix)
    for folder in (given, *(given / layout.folder for layout in layouts)):
        for layout in layouts:
            if (folder / layout.train[0]).is_file():
                return folder, layout
    names = " nor ".join(layout.train[0] for layout in layouts)
    known = " or ".join(layout.folder for layout in layouts)
    raise DataError(f"the folder has neither {names}", path, f"name the folder {known}")


def _join(batches: list[Batch], files: list[Path], kind: str) -> tuple[Array, Array]:
    for batch, file in zip(batches, files, strict=True):
        labels = batch.labels.get(kind)
        if labels is None or len(labels) != len(batch.images):
            count = "no" if labels is None else len(labels)
            what = f"{len(batch.images)} images and {count} {kind.replace('_', ' ')}"
            raise DataError(what, str(file), "extract the published archive again")
    images = [batch.images for batch in batches]
    together = images[0] if len(images) == 1 else np.concatenate(images)
    return together, np.concatenate([batch.labels[kind] for batch in batches])


def _classes(path: Path, kind: str, number: int) -> list[str]:
    """The classes' names; their numbers, where the file of names is missing."""
    if not path.is_file():
        return [str(label) for label in range(number)]
    if path.suffix == ".txt":
        found: object = path.read_text(encoding="utf-8", errors="replace").split("\n")
    else:
        found = read_pickle(path).get(f"{kind.removesuffix('s')}_names")
    names = [text(name).strip() for name in found] if isinstance(found, list) else []
    names = [name for name in names if name]
    if len(names) != number:
        what = f"{len(names)} names for {number} classes"
        raise DataError(what, str(path), "extract the published archive again")
    return names
