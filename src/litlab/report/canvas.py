"""A figure of sections one below the other, placed in inches: no layout to solve, quick to draw.

Lines of many characters, and images, are drawn by Pillow: matplotlib takes about as long for three
characters as Pillow for a line.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[Any]
WIDTH, MARGIN = 9.6, 0.3  # inches
DPI = 110
INK = "#222222"
# Of DejaVu Sans Mono: pixels; inches of a character, a whole number of pixels; of a line.
MONO_SIZE, CHARACTER, LINE = 11.6, 7 / DPI, 0.155


class Canvas:
    """A section's place in a figure; lengths in inches, from its left and top."""

    def __init__(self, figure: Figure, top: float, height: float) -> None:
        self.figure, self.top, self.height = figure, top, height
        self.pixels: Image.Image | None = None

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return axes of that size."""
        total_width, total = self.figure.get_size_inches()
        bottom = total - self.top - top - height
        box = (left / total_width, bottom / total, width / total_width, height / total)
        return self.figure.add_axes(box)

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        """Write text whose first line begins there."""
        total_width, total = self.figure.get_size_inches()
        place = left / total_width, 1 - (self.top + top) / total
        self.figure.text(*place, text, **{"va": "top", "parse_math": False, **style})

    def cells(self, left: float, top: float, line: str, colour: str, bold: bool = False) -> None:
        """Write a line in characters of one width, leaving what is below its blanks as it is."""
        place = left * DPI, top * DPI
        line = line.replace("\n", "⏎")
        ImageDraw.Draw(self._image()).text(place, line, fill=colour, font=_mono(bold))

    def picture(self, left: float, top: float, size: tuple[float, float], pixels: Array) -> None:
        """Place pixels `(H, W)` or `(H, W, 3)` in [0, 1], scaled to a size: width, height."""
        image = Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))
        wide, high = (max(1, round(length * DPI)) for length in size)
        smooth = image.width > wide or image.height > high
        how = Image.Resampling.BOX if smooth else Image.Resampling.NEAREST
        scaled = image.convert("RGB").resize((wide, high), how)
        self._image().paste(scaled, (round(left * DPI), round(top * DPI)))

    def _image(self) -> Image.Image:
        if self.pixels is None:
            size = round(WIDTH * DPI), round(self.height * DPI)
            self.pixels = Image.new("RGB", size, "white")
        return self.pixels

    def finish(self) -> None:
        """Put what Pillow drew into the figure."""
        if self.pixels is not None:
            total = self.figure.get_size_inches()[1]
            below = round((total - self.top) * DPI) - self.pixels.height
            self.figure.figimage(np.asarray(self.pixels), 0, below, origin="upper")

    def sheet(self) -> Axes:
        """Return bare axes over the whole section, whose units are inches."""
        axes = self.axes(0, 0, WIDTH, self.height)
        axes.set_axis_off()
        axes.set(xlim=(0, WIDTH), ylim=(self.height, 0))
        axes.set_autoscale_on(False)
        return axes


@dataclass(frozen=True)
class Section:
    """Something to draw that is `height` inches high."""

    height: float
    draw: Callable[[Canvas], None]


def stack(sections: Sequence[Section]) -> Figure:
    """Draw sections one below the other."""
    total = sum(section.height for section in sections)
    figure = Figure(figsize=(WIDTH, total), dpi=DPI, facecolor="white")
    top = 0.0
    for section in sections:
        canvas = Canvas(figure, top, section.height)
        section.draw(canvas)
        canvas.finish()
        top += section.height
    return figure


@cache
def _mono(bold: bool) -> ImageFont.FreeTypeFont:
    """The font of matplotlib's own, laid out so simply that every character is as wide."""
    name = "DejaVuSansMono-Bold.ttf" if bold else "DejaVuSansMono.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(path, MONO_SIZE, layout_engine=ImageFont.Layout.BASIC)


def fitting(text: str, inches: float, size: float, width: float = 0.56) -> str:
    """Return a text cut to the characters of a font size that fit; most are narrower."""
    return cut(text, int(inches * 72 / (size * width)))


def cut(text: str, number: int) -> str:
    """Return a text of at most so many characters, with an ellipsis if it had more."""
    return text if len(text) <= number else text[: number - 1] + "…"
