"""The IDX format of MNIST and its kin: big-endian arrays behind a short header."""

import gzip
import hashlib
import math
import os
import re
import struct
import tempfile
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from litlab.data.prepare.source_files import require_file, user_path
from litlab.data.raw import Raw, number_classes
from litlab.data.spec import Array
from litlab.utils.errors import DataError, EnvironmentFault

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_UNPACKED = 2**30  # bytes of a gzipped file that are taken into memory


def read_idx(path: Path, dimensions: int | None = None) -> Array:
    """Return the array in an IDX file, nearly always of bytes, of as many dimensions.

    It is memory-mapped, and read-only; one that is gzipped is unpacked into memory.

    Raises:
        DataError: The file is not an IDX file, its length is not what it announces, or it
            holds labels in the place of images.
    """
    require_file(path)
    zipped = path.suffix == ".gz"
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            shape, dtype, start = _read_header(file, path)
            size = math.prod(shape) * dtype.itemsize
            if not zipped:
                held = path.stat().st_size - start
            else:
                content = file.read(min(size, MOST_UNPACKED) + 1)  # never more, whatever is in it
                held = len(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read: {error}", str(path), "download the file again") from None
    if min(held, size) > MOST_UNPACKED:
        raise DataError(f"unpacks to {size} bytes", str(path), f"gunzip {path.name} first")
    if held != size:
        more = " or more" if zipped and held > size else ""
        raise DataError(
            f"its header states {'x'.join(map(str, shape))} {_unit(dtype)}, it holds {held}{more}",
            str(path),
            "download the file again",
        )
    if dimensions not in (None, len(shape)):
        what = f"an array of {len(shape)} dimensions, not {dimensions}"
        raise DataError(what, str(path), "check the file's name")
    if zipped or not size:
        return np.frombuffer(content if zipped else b"", dtype).reshape(shape)
    return np.memmap(path, dtype, mode="r", offset=start, shape=shape)


def is_idx(path: Path) -> bool:
    """Whether a file is meant as IDX, by its name or its first bytes; it may be damaged."""
    if path.suffix in (".gz", "") or "idx" in path.name or path.name.endswith("ubyte"):
        return True
    with path.open("rb") as file:
        magic = file.read(3)
    return magic[:2] == bytes(2) and magic[2:] != b"" and magic[2] in TYPES


def _unit(dtype: "np.dtype[Any]") -> str:
    return "bytes" if dtype.itemsize == 1 else f"values of {dtype.itemsize} bytes"


def _read_header(file: Any, path: Path) -> tuple[tuple[int, ...], "np.dtype[Any]", int]:
    """Return the shape and type that the file announces, and where the array starts."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != bytes(2) or magic[2] not in TYPES or not magic[3]:
        raise DataError("not an IDX file", str(path), "check that it is the raw file")
    sides = file.read(4 * magic[3])
    if len(sides) < 4 * magic[3]:
        raise DataError("its header is truncated", str(path), "download the file again")
    return struct.unpack(f">{magic[3]}I", sides), np.dtype(TYPES[magic[2]]), 4 + len(sides)


def find_idx(folder: Path, stem: str) -> Path | None:
    """Return `<folder>/<stem>` or its gzipped form, whichever is there."""
    for name in (
        stem,
        f"{stem}.gz",
        stem.replace("-idx", ".idx"),
        f"{stem.replace('-idx', '.idx')}.gz",
    ):
        if (folder / name).is_file():
            return folder / name
    return None


# train-images-idx3-ubyte, t10k-labels.idx1-ubyte.gz, emnist-letters-test-images-idx3-ubyte, ...
NAME = re.compile(r"(.*?)(train|t10k|test)[-.](images|labels)[-.]idx[13][-.]ubyte(?:\.gz)?")
PARTS = {"train": "train", "t10k": "test", "test": "test"}
DIMENSIONS = {"images": 3, "labels": 1}

Files = dict[tuple[str, str], Path]


class Idx:
    """A folder of IDX files, as MNIST, EMNIST, Fashion-MNIST and others are published.

    Args:
        path: The folder; relative to the project's root.
        prefix: Of the files' names, where the folder holds several sets: emnist-letters-
        transpose: Exchange rows and columns: EMNIST's images are stored on their side.
        licence: Of the data, for the records.
        origin: Where they come from, for the records; null: the path.
    """

    def __init__(
        self,
        *,
        path: str,
        prefix: str | None = None,
        transpose: bool = False,
        licence: str = "not stated",
        origin: str | None = None,
    ) -> None:
        self.path, self.prefix, self.transpose = path, prefix, transpose
        self.licence, self.origin = licence, origin or path

    def read(self) -> Raw:
        """Return the data; files that are not gzipped are memory-mapped.

        Raises:
            DataError: Files are missing, damaged, or of several sets.
            EnvironmentFault: There is no such folder.
        """
        folder = user_path(self.path)
        if not folder.is_dir():
            raise DataError("is a file", self.path, "name the folder that holds the IDX files")
        prefix, files = self._choose(folder)
        arrays = {key: read_idx(path, DIMENSIONS[key[1]]) for key, path in files.items()}
        parts = ("train", "test") if ("test", "images") in arrays else ("train",)
        classes, labels = number_classes({part: arrays[part, "labels"] for part in parts})
        images = {part: self._shaped(arrays[part, "images"]) for part in parts}
        mapping = folder / f"{prefix.rstrip('-.')}-mapping.txt"
        return Raw(
            kind="image",
            task="classification",
            parts={
                part if len(parts) > 1 else "all": (images[part], labels[part]) for part in parts
            },
            classes=_characters(mapping, classes) if mapping.is_file() else classes,
            licence=self.licence,
            origin=self.origin,
            files=list(files.values()),
        )

    def _shaped(self, images: Array) -> Array:
        return (images.transpose(0, 2, 1) if self.transpose else images)[:, None]

    def _choose(self, folder: Path) -> tuple[str, Files]:
        """The files of one set, by part and content."""
        sets: dict[str, Files] = {}
        for path in sorted(folder.iterdir()):  # a plain file comes before its gzipped form
            match = NAME.fullmatch(path.name)
            if match:
                prefix, part, content = match.groups()
                sets.setdefault(prefix, {}).setdefault((PARTS[part], content), path)
        if self.prefix is None and len(sets) > 1:
            known = ", ".join(f"'{prefix}'" for prefix in sets)
            fix = f"set data.source.prefix to one of {known}"
            raise DataError(f"files of {len(sets)} sets", self.path, fix)
        prefix = next(iter(sets), "") if self.prefix is None else self.prefix
        files = sets.get(prefix, {})
        parts = {"train", *(part for part, _ in files)}
        wanted = {(part, content) for part in parts for content in DIMENSIONS}
        missing = sorted(wanted - files.keys(), reverse=True)
        if missing:
            part, content = missing[0]
            name = f"{prefix}{part}-{content}-idx{DIMENSIONS[content]}-ubyte"
            raise DataError(f"there is no {name} (or .gz)", self.path, "put the file there")
        return prefix, files


def _characters(mapping: Path, labels: list[str]) -> list[str]:
    """The characters that EMNIST's labels stand for: lines of a label and its ASCII codes."""
    names = {}
    try:
        for line in mapping.read_text(encoding="utf-8").splitlines():
            label, *codes = line.split()
            names[label] = "".join(chr(int(code)) for code in codes)
        return [names[label] for label in labels]
    except (KeyError, ValueError, OverflowError):  # it is of something else
        return labels


DEBIAN = Path("/usr/share/datasets/fashion-mnist")
DOWNLOAD = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
ELSEWHERE = "apt-get install dataset-fashion-mnist, or set data.source.folder"
# SHA-256 of each array's bytes (no header): that what was fetched is what was published.
FILES = {
    "train-images-idx3-ubyte": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


class FashionMNIST:
    """Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): 60,000 + 10,000 images, 28x28, 10 classes.

    Looked for in `folder`, else where Debian's package dataset-fashion-mnist puts it, else in the
    cache, else downloaded into it.
    """

    def __init__(self, *, folder: str | None = None) -> None:
        self.folder = Path(folder).expanduser() if folder else None

    def read(self) -> Raw:
        """Return the data.

        Raises:
            DataError: A file is missing or damaged.
            EnvironmentFault: The files are on no disk, and there is no network.
        """
        arrays = {stem: self._array(stem) for stem in FILES}
        return Raw(
            kind="image",
            task="classification",
            parts={
                "train": _pair(arrays, "train"),
                "test": _pair(arrays, "t10k"),
            },
            classes=CLASSES,
            licence="MIT",
            origin="https://github.com/zalandoresearch/fashion-mnist",
        )

    def _array(self, stem: str) -> Array:
        if self.folder is None:
            cache = cache_folder() / "fashion-mnist"
            found = find_idx(DEBIAN, stem) or find_idx(cache, stem)
            return _read_published(found, stem) if found else _download(stem, cache)
        found = find_idx(self.folder, stem)
        if found is None:
            raise DataError(
                f"there is no {stem} (or .gz)",
                f"data.source.folder={self.folder}",
                "name the folder that holds the four IDX files",
            )
        return _read(found, stem)


def cache_folder() -> Path:
    """Return where downloads are kept: $XDG_CACHE_HOME/litlab."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litlab"


def _read(path: Path, stem: str) -> Array:
    return read_idx(path, dimensions=3 if "images" in stem else 1)


def _read_published(path: Path, stem: str) -> Array:
    array = _read(path, stem)
    if hashlib.sha256(array.tobytes()).hexdigest() != FILES[stem]:
        raise DataError("not the published file", str(path), "delete it and download it again")
    return array


def _download(stem: str, folder: Path) -> Array:
    """Fetch one file; it reaches the cache only when it is what was published."""
    name = f"{stem}.gz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            fetched = Path(temporary) / name
            with urllib.request.urlopen(DOWNLOAD + name, timeout=20) as answer:
                fetched.write_bytes(answer.read())
            array = _read_published(fetched, stem)
            fetched.replace(folder / name)
    except (OSError, HTTPException) as error:
        raise EnvironmentFault(
            f"Fashion-MNIST is not on this machine and cannot be downloaded ({error})",
            DOWNLOAD + name,
            ELSEWHERE,
        ) from None
    except DataError as error:
        raise DataError(f"downloaded, but {error.what}", DOWNLOAD + name, ELSEWHERE) from None
    return array


def _pair(arrays: dict[str, Array], part: str) -> tuple[Array, Array]:
    images, labels = arrays[f"{part}-images-idx3-ubyte"], arrays[f"{part}-labels-idx1-ubyte"]
    return images[:, None], labels.astype("int64")
