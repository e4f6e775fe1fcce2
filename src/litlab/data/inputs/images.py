"""Pictures on disk -> arrays `(C, H, W)`: for the image folder, and for new images to predict."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from litlab.data.prepare.source_files import require_file
from litlab.data.spec import Array
from litlab.utils.errors import DataError

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm"),
)
# Folders that systems and programs leave behind; what begins with a dot is passed over as well.
LEFT_BEHIND = ("__MACOSX", "@eaDir", "__pycache__", "lost+found", "$RECYCLE.BIN")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's, by the number of channels
DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")  # of more than 8 bits, all of them grey
GREY_MODES = ("1", "L", "LA", "La", *DEEP_MODES)
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap the sides
MOST_THREADS = 32

T = TypeVar("T")
S = TypeVar("S")
Fit = Literal["resize", "crop"]


@dataclass(frozen=True)
class Form:
    """What every picture becomes.

    Attributes:
        channels: 1 grey, 3 colour, 4 colour and opacity.
        height: In pixels.
        width: In pixels.
        fit: resize: squashed to the size; crop: scaled to cover it, then cut around its centre;
            None: a picture of another size is refused.
        dtype: uint8: 16 bits are scaled to 8, floats are refused; float32: values stay as they are
            stored, whatever their range.
    """

    channels: int
    height: int
    width: int
    fit: Fit | None = None
    dtype: Literal["uint8", "float32"] = "uint8"


@dataclass(frozen=True)
class Header:
    """What a file says of its picture before it is decoded; sides in pixels, as it is seen."""

    mode: str
    height: int
    width: int
    pages: int = 1  # of a TIFF


def passed_over(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by a system or program."""
    return name.startswith(".") or name in LEFT_BEHIND


def is_image(path: Path) -> bool:
    """Whether it has a picture's suffix and is no folder."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def read_header(path: Path) -> Header:
    """Return a picture's mode and size; its pixels are not decoded.

    Raises:
        DataError: It is no picture.
    """
    with _opened(path) as image:
        # Pillow decodes a PNG whole in search of its EXIF data, unless they come first.
        turned = ("exif" in image.info or image.format != "PNG") and _orientation(image) in TURNED
        # Pillow itself turns a TIFF, in some versions when it opens it, in others when it decodes.
        tiff = image.format == "TIFF"
        sides = (image.tag_v2[256], image.tag_v2[257]) if tiff else image.size
        width, height = reversed(sides) if turned else sides
        return Header(_mode(image), height, width, image.n_frames if tiff else 1)


def decode(path: Path, form: Form, *, fix: str = "resize it") -> tuple[Array, str]:
    """Return a picture's pixels `(C, H, W)`, and the mode they were stored in.

    The camera's orientation is applied; of an animation the first frame is taken; opacity is
    dropped where the form has none.

    Raises:
        DataError: It cannot be decoded, or is of another size than the form, which has no fit.
    """
    from PIL import Image, ImageOps

    with _opened(path) as image:
        mode = _mode(image)
        if form.fit:  # a JPEG can be decoded at 1/2, 1/4 or 1/8: twice what is needed is enough
            image.draft(None, (2 * max(form.width, form.height),) * 2)
        if _orientation(image) != 1:
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "F" and form.dtype == "uint8":
            raise ValueError("its pixels are floats of an unknown range")
        if image.mode in DEEP_MODES and form.dtype == "float32":
            converted = Image.fromarray(np.asarray(image, dtype=np.float32))
        else:
            converted = _convert(image, MODES[form.channels])
    size = (form.width, form.height)
    if converted.size != size:
        if form.fit is None:
            raise DataError(
                f"{converted.width}x{converted.height} pixels, not {size[0]}x{size[1]}",
                str(path),
                fix,
            )
        if form.fit == "crop":
            converted = ImageOps.fit(converted, size, Image.Resampling.BILINEAR)
        else:
            converted = converted.resize(size, Image.Resampling.BILINEAR)
    array = np.asarray(converted, dtype=form.dtype)
    if array.ndim == 2:  # grey in colour: each channel the same
        return np.broadcast_to(array, (form.channels, *array.shape)), mode
    return array.transpose(2, 0, 1), mode


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a picture; whatever goes wrong with it inside the block is told in one way."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(path, Path):  # a cell of a data set stands for a path, too
        require_file(path)
    try:
        # Given a path, Pillow 13 maps uncompressed TIFFs and garbles those taken upright.
        with path.open("rb") as file, Image.open(file) as image:
            yield image
    except UnidentifiedImageError:
        if str(path).lower().endswith((".tif", ".tiff")):
            what = "of more than four bands, or an unknown kind of TIFF"
            fix = "save the images as arrays (N, bands, H, W) in an .npz file, for data=npz"
            raise DataError(f"not a readable image: {what}", str(path), fix) from None
        raise _unreadable("unknown format", path) from None
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise _unreadable(error, path) from None


def _unreadable(error: object, path: Path) -> DataError:
    return DataError(f"not a readable image: {error}", str(path), "repair or remove it")


def _orientation(image: Any) -> int:
    """How the camera was held, by its EXIF number; damaged EXIF data say nothing."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def _mode(image: Any) -> str:
    """Pillow's mode; colour of 16 bits, which it reads as 8, is told apart."""
    stored = str(image.tile[0].args) if image.mode in ("RGB", "RGBA") and image.tile else ""
    return f"{image.mode};16" if ";16" in stored else str(image.mode)


def _convert(image: Any, mode: str) -> Any:
    if image.mode.startswith("I"):
        image = _to_bytes(image)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of the direct way
    return image.convert(mode)


def _to_bytes(image: Any) -> Any:
    """16-bit grey in 8 bits; Pillow's own conversion cuts off at 255."""
    from PIL import Image

    values = np.asarray(image, dtype=np.float64) / 257
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def count_conversions(modes: Iterable[str], channels: int) -> str:
    """Say how many pictures are stored in another mode than they are used in; often nothing.

    Args:
        modes: Those of the pictures, but for those whose values stay as they are.
        channels: Of what each becomes.
    """
    wanted = MODES[channels]
    counts = Counter(mode for mode in modes if mode != wanted)
    listed = ", ".join(f"{count} {mode}" for mode, count in sorted(counts.items()))
    return f"images converted to {wanted}: {listed}" if listed else ""


def in_threads(function: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """Call a function on each item, on all the cores this process may use; results in order.

    Threads are enough where the function reads files and decodes: Pillow lets others run then.
    """
    with ThreadPoolExecutor(min(count_cores(), MOST_THREADS)) as pool:
        return list(pool.map(function, items))


def count_cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS, nor on Windows
        return os.cpu_count() or 1


class ImageFiles:
    """Pictures read by number: decoded in parallel when asked for, and not kept.

    Args:
        folder: What the names are relative to.
        names: Of the files.
        form: What each becomes.
    """

    def __init__(self, folder: Path, names: Sequence[str], form: Form) -> None:
        self.folder, self.names, self.form = folder, names, form
        self.dtype = np.dtype(form.dtype)
        self.shape = (len(names), form.channels, form.height, form.width)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: Array) -> Array:
        """Return the pictures of these row numbers `(n,)`, `(n, C, H, W)`."""
        images = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)

        def fill(place: int) -> None:
            try:
                images[place], _ = decode(self.folder / self.names[rows[place]], self.form)
            except DataError as error:
                fix = f"{error.fix}, or set data.source.on_error=skip"
                raise DataError(error.what, error.where, fix) from None

        in_threads(fill, range(len(rows)))
        return images
