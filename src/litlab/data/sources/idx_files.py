import re
from pathlib import Path

from litlab.data.prepare.source_files import user_path
from litlab.data.raw import Raw
from litlab.data.sources.class_numbers import number_classes
from litlab.data.sources.idx import read_idx
from litlab.data.spec import Array
from litlab.utils.errors import DataError

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
