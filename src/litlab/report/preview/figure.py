"""The picture of a preview: samples before and after augmentation, above the data's statistics."""

import textwrap

from matplotlib.figure import Figure

from litlab.data.spec import DataSpec
from litlab.report import panels
from litlab.report.canvas import DPI, MARGIN, WIDTH, Canvas, Section, fitting, stack
from litlab.report.panels import GREY
from litlab.report.preview.batch import PreviewSamples, Statistics
from litlab.report.preview.numbers import images, sequences
from litlab.report.preview.statistics import statistics_panels
from litlab.report.preview.table import table
from litlab.report.preview.texts import texts, windows

LINE = 0.17  # inches
GUARD_LINES = 12
ROOM = {  # samples there is room for, as they are and in pairs
    "image": (24, 12),
    "sequence": (9, 9),
    "tabular": (8, 4),
    "text": (8, 6),
    "windows": (4, 4),
}


def shown(spec: DataSpec, augmented: bool) -> int:
    """Return how many samples of a batch there is room for."""
    return ROOM["windows" if spec.task == "language_model" else spec.kind][augmented]


def draw(spec: DataSpec, samples: PreviewSamples, statistics: Statistics) -> Figure:
    """Draw samples before and after augmentation, above statistics of the data."""
    sections = [
        _title(samples, statistics),
        _samples(spec, samples),
        statistics_panels(spec, statistics),
        _guard(statistics),
    ]
    return stack(sections)


def png(figure: Figure) -> bytes:
    """Return the picture as PNG."""
    return panels.png(figure, DPI)


def _samples(spec: DataSpec, samples: PreviewSamples) -> Section:
    if spec.kind == "image":
        return images(samples)
    if spec.kind == "sequence":
        return sequences(samples)
    if spec.kind == "tabular":
        return table(samples, spec.feature_names)
    return windows(samples) if spec.task == "language_model" else texts(samples)


def _title(samples: PreviewSamples, statistics: Statistics) -> Section:
    batch = statistics.batch
    title = f"{statistics.data}: {batch.shown} of the first training batch of {batch.size}"
    if samples.after is None:
        what = "no augmentation"
    else:
        names = ", ".join(statistics.augment)
        what = f"augmented by {names}: {batch.changed} of {batch.shown} changed"
    note = f"seed {statistics.seed}, epoch {statistics.epoch + 1}; {what}"
    if len(statistics.splits["train"].targets) == 1:
        note += f"; numbers are {next(iter(statistics.splits['train'].targets))}"

    def write(canvas: Canvas) -> None:
        room = WIDTH - 2 * MARGIN
        canvas.text(MARGIN, 0.15, fitting(title, room, 12), fontsize=12, fontweight="bold")
        canvas.text(MARGIN, 0.4, fitting(note, room, 9.5), fontsize=9.5, color=GREY)

    return Section(0.7, write)


def _guard(statistics: Statistics) -> Section:
    lines = [line for text in statistics.guard for line in textwrap.wrap(text, 125)]
    if len(lines) > GUARD_LINES:
        lines = [*lines[: GUARD_LINES - 1], f"... and {len(lines) - GUARD_LINES + 1} more lines"]

    def write(canvas: Canvas) -> None:
        for i, line in enumerate(lines):
            canvas.text(MARGIN, 0.05 + i * LINE, line, fontsize=9, color=GREY)

    return Section(0.15 + LINE * len(lines), write)
