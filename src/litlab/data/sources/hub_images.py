"""Images in the cells of a data set: encoded bytes, or files beside it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from litlab.data.inputs.images import (
    GREY_MODES,
    Fit,
    Form,
    Header,
    count_conversions,
    decode,
    in_threads,
    read_header,
)
from litlab.data.sources.hub_columns import Cells
from litlab.data.spec import Array
from litlab.utils.errors import DataError

AT_ONCE = 256  # images whose files are in memory


class _Encoded:
    """A file in memory; of a path it has what decoding uses: `open`, and a name for messages."""

    def __init__(self, content: bytes, name: str) -> None:
        self.content, self.name = content, name

    def __str__(self) -> str:
        return self.name

    def open(self, mode: str) -> BytesIO:
        """Give the content as a file."""
        return BytesIO(self.content)


class Images:
    """A column of images: decoded in parallel when they are asked for, and not kept.

    Args:
        dataset: One split.
        column: The images' column.
        where: The data set, for messages.
        roots: Folders that files named in the cells must lie in; links followed.

    Attributes:
        form: What each becomes; None until all were looked at.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, dataset: Any, column: str, where: str, roots: Sequence[Path]) -> None:
        from datasets import Image

        self.cells = Cells(dataset.cast_column(column, Image(decode=False)), column)
        self.where, self.roots = f"{where}, column '{column}'", roots
        self.form: Form | None = None

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them, `(N, C, H, W)`."""
        assert self.form is not None
        return (len(self), self.form.channels, self.form.height, self.form.width)

    def __getitem__(self, rows: Array) -> Array:
        """Return the images of these row numbers `(n,)`, uint8 `(n, C, H, W)`."""
        form = self.form
        assert form is not None
        images = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for start in range(0, len(rows), AT_ONCE):
            numbers = rows[start : start + AT_ONCE]
            files = self._files(numbers)

            def fill(place: int, start: int = start, files: list[Any] = files) -> None:
                fix = "set data.source.size"
                images[start + place], _ = decode(files[place], form, fix=fix)

            in_threads(fill, range(len(numbers)))
        return images

    def headers(self) -> list[Header]:
        """Look at every image's header."""
        found: list[Header] = []
        for start in range(0, len(self), AT_ONCE):
            rows = np.arange(start, min(start + AT_ONCE, len(self)))
            found += in_threads(read_header, self._files(rows))
        return found

    def _files(self, rows: Array) -> list[Path]:
        pairs = zip(self.cells[rows], np.asarray(rows).tolist(), strict=True)
        return [cast(Path, self._file(cell, row)) for cell, row in pairs]

    def _file(self, cell: Mapping[str, Any] | None, row: int) -> Path | _Encoded:
        """An image's file; what a data set says lies elsewhere on this machine is not opened."""
        where = f"{self.where}, row {row}"
        if cell is None or not (cell["bytes"] or cell["path"]):
            raise DataError("there is no image", where, "remove the row")
        if cell["bytes"]:
            return _Encoded(cell["bytes"], where)
        path = Path(cell["path"])
        if not any(path.resolve().is_relative_to(root) for root in self.roots):
            fix = "store the images in it"
            raise DataError(f"the image is outside the data set ({path})", where, fix)
        return path


def shape_images(
    parts: Mapping[str, Images],
    size: tuple[int, int] | None,
    fit: Fit,
    color: Literal["rgb", "gray", "auto"],
) -> list[str]:
    """Decide what every image becomes; return what the user should know of it.

    Raises:
        DataError: An image cannot be read, or they differ in size and none is given.
    """
    headers = [header for images in parts.values() for header in images.headers()]
    modes = [header.mode for header in headers]
    gray = color == "gray" or (color == "auto" and all(mode in GREY_MODES for mode in modes))
    channels = 1 if gray else 3
    sizes = Counter((header.height, header.width) for header in headers)
    if size is None and len(sizes) > 1:
        where = next(iter(parts.values())).where
        shown = ", ".join(f"{n} of {w}x{h}" for (h, w), n in sizes.most_common(5))
        fix = "set data.source.size: one number, or [height, width]"
        raise DataError(f"images of {len(sizes)} sizes: {shown}", where, fix)
    height, width = size or next(iter(sizes))
    for images in parts.values():
        images.form = Form(channels, height, width, fit if size else None)
    said = count_conversions(modes, channels)
    return [said] if said else []
