import hashlib
import os
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

from litlab.data.raw import Raw
from litlab.data.sources.idx import find_idx, read_idx
from litlab.data.spec import Array
from litlab.utils.errors import DataError, EnvironmentFault

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
