from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from litlab.data.prepare.source_files import user_path
from litlab.data.raw import Raw
from litlab.data.sources.cifar_batches import Batch, read_binary, read_pickle, read_pickled, text
from litlab.data.spec import Array
from litlab.utils.errors import DataError


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
