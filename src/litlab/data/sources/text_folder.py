from collections.abc import Iterator, Sequence
from pathlib import Path

from litlab.data.sources.folder_names import refuse_splits
from litlab.data.sources.text_files import read_whole
from litlab.data.sources.text_rows import Row
from litlab.utils.errors import DataError, nearest

SPLITS = ("train", "val", "test")


def folders_of(root: Path) -> dict[str, Path]:
    """Return the folder of each part: `root/train` and so on where they are there, else the root.

    Raises:
        DataError: There is a test or val split without one for training, or folders named like
            splits in another way.
    """
    parts = {name: root / name for name in SPLITS if (root / name).is_dir()}
    if not parts:
        refuse_splits((entry.name for entry in root.iterdir() if entry.is_dir()), str(root))
        return {"all": root}
    if "train" not in parts:
        raise DataError("the folder has no folder 'train'", str(root), "add it, or name its parent")
    return parts


def read_folder(root: Path, encoding: str, names: Sequence[str] | None) -> Iterator[Row]:
    """Give the text and the class of each file `root/class/*.txt`, in the order of their names.

    Args:
        root: The folder.
        encoding: Of the files.
        names: The only folders to read; None: all.

    Raises:
        DataError: There are none, or a file is in another encoding.
    """
    found = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    for name in names or ():
        if name not in found:
            raise DataError(f"the folder has no folder '{name}'", str(root), nearest(name, found))
    files = [file for name in names or found for file in sorted((root / name).glob("*.txt"))]
    if not files:
        raise DataError("the folder has no texts", str(root), "put them in class/*.txt")
    for file in files:
        yield file, 1, [read_whole(file, encoding), file.parent.name]
