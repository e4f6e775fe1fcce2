"""A figure of sections one below the other, placed in inches: no layout to solve, quick to draw."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH, MARGIN = 9.6, 0.3  # inches
DPI = 110
INK = "#222222"
# A font size at which each character of DejaVu Sans Mono is a whole number of pixels wide, as
# drawing makes it anyway: what is written over one another, or below a heading, then fits.
MONO_SIZE, CHARACTER = 7.6, 7 / DPI  # points, inches
LINE, BASE = 0.155, 0.1  # of a line of them: its height, and where letters stand; inches


@dataclass(frozen=True)
class Canvas:
    """A section's place in a figure; lengths in inches, from its left and top."""

    figure: Figure
    top: float
    height: float

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

    def cells(self, left: float, top: float, line: str, **style: Any) -> None:
        """Write a line in characters of one width; blanks, slow to draw as any, are left out."""
        for run in re.finditer(r"\S+(?:\s{1,2}\S+)*", line):
            place = left + run.start() * CHARACTER
            own = {"va": "baseline", "family": "monospace", "fontsize": MONO_SIZE}
            self.text(place, top + BASE, run[0], **own, **style)

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
    figure = Figure(figsize=(WIDTH, total), facecolor="white")
    top = 0.0
    for section in sections:
        section.draw(Canvas(figure, top, section.height))
        top += section.height
    return figure


def fitting(text: str, inches: float, size: float, width: float = 0.56) -> str:
    """Return a text cut to the characters of a font size that fit; most are narrower."""
    return cut(text, int(inches * 72 / (size * width)))


def cut(text: str, number: int) -> str:
    """Return a text of at most so many characters, with an ellipsis if it had more."""
    return text if len(text) <= number else text[: number - 1] + "…"
