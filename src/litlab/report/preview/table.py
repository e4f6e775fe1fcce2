"""Rows of a table before and after augmentation: the cells that differ are orange and bold."""

from collections.abc import Sequence

from litlab.report.canvas import (
    CHARACTER,
    INK,
    LINE,
    MARGIN,
    WIDTH,
    Canvas,
    Section,
    cut,
    fitting,
)
from litlab.report.panels import GREY, ORANGE
from litlab.report.preview.batch import PreviewSamples

ROWS = 16  # features that are shown
CHARACTERS = int((WIDTH - 2 * MARGIN) / CHARACTER)


def table(samples: PreviewSamples, features: Sequence[str]) -> Section:
    """Draw a few samples as columns of cells, a feature a line."""
    before, after = list(samples.before), samples.after
    names = [cut(name, 26) for name in features[:ROWS]]
    start = max(map(len, names)) + 2
    left = MARGIN + start * CHARACTER
    wide = (CHARACTERS - start) // len(before)  # characters of a sample
    half = wide // 2 if after is not None else wide
    top = 0.62 if after is not None else 0.32
    more = len(features) - len(names)

    def draw(canvas: Canvas) -> None:
        for i in range(len(before)):
            _heading(canvas, left + i * wide * CHARACTER, samples, i, half * CHARACTER)
        for row, name in enumerate(names):
            place = top + row * LINE
            old = [cells[row] for cells in before]
            new = None if after is None else [cells[row] for cells in after]
            plain, marked = _line(old, new, wide)
            canvas.cells(MARGIN, place, name, GREY)
            canvas.cells(left, place, plain, INK)
            canvas.cells(left, place, marked, ORANGE, bold=True)
        if more:
            note = f"and {more} more features"
            canvas.text(MARGIN, top + len(names) * LINE, note, fontsize=8, color=GREY)

    return Section(top + (len(names) + bool(more)) * LINE + 0.2, draw)


def _line(old: list[str], new: list[str] | None, wide: int) -> tuple[str, str]:
    """Return a feature's cells, of which the changed ones are blank, and these alone."""
    if new is None:
        return "".join(_cell(cell, wide) for cell in old), ""
    half = wide // 2
    plain, marked = "", ""
    for was, now in zip(old, new, strict=True):
        kept, blank = _cell(now, half), " " * half
        plain += _cell(was, half) + (kept if was == now else blank)
        marked += blank + (blank if was == now else kept)
        plain, marked = plain.ljust(len(plain) + wide % 2), marked.ljust(len(marked) + wide % 2)
    return plain, marked


def _cell(text: str, wide: int) -> str:
    return cut(text, wide - 1).ljust(wide)


def _heading(canvas: Canvas, left: float, samples: PreviewSamples, i: int, half: float) -> None:
    room = (2 * half if samples.after is not None else half) - 0.1
    label = fitting(samples.labels[i], room, 8.5, 0.62)
    canvas.text(left, 0.08, label, fontsize=8.5, fontweight="bold")
    if samples.after is None:
        return
    canvas.text(left, 0.42, "before", fontsize=8, color=GREY)
    canvas.text(left + half, 0.42, "after", fontsize=8, color=ORANGE)
    if samples.new_labels[i] != samples.labels[i]:
        new = fitting(f"→ {samples.new_labels[i]}", room, 8)
        canvas.text(left, 0.25, new, fontsize=8, color=ORANGE)
