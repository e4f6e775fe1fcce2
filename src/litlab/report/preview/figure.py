"""The picture of a preview: samples before and after augmentation, above the data's statistics."""

import math
import textwrap
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from litlab.data.spec import DataSpec
from litlab.report import figures
from litlab.report.canvas import (
    CHARACTER,
    DPI,
    INK,
    LINE,
    MARGIN,
    WIDTH,
    Canvas,
    Section,
    cut,
    fitting,
    stack,
)
from litlab.report.figures import BLUE, GREY, ORANGE, tidy
from litlab.report.preview.batch import Histogram, PreviewSamples, Range, Statistics

# Images and sequences before and after augmentation.


TILE, GAP, SPACE = 1.04, 0.06, 0.1  # inches: of an image, within a pair, between pairs
CHANNELS = 4  # of a sequence that are drawn
FRAME = "#d5d8dd"
Array = NDArray[Any]


def images(samples: PreviewSamples) -> Section:
    """Draw images in pairs, before and after, or alone where nothing changes them."""
    before, after = np.asarray(samples.before), samples.after
    cell = 2 * TILE + GAP + SPACE if after is not None else TILE + SPACE
    columns = int((WIDTH - 2 * MARGIN + SPACE) / cell)
    header = 0.22 if after is not None else 0.05
    height, width = before.shape[2:]
    row = TILE * height / max(height, width) + (0.5 if _relabelled(samples) else 0.3)
    rows = math.ceil(len(before) / columns)

    def draw(canvas: Canvas) -> None:
        for i, image in enumerate(before):
            left, top = MARGIN + i % columns * cell, header + i // columns * row
            wide, high = _tile(canvas, image, left, top)
            _label(canvas, left, top + high + 0.05, samples.labels[i], cell - SPACE)
            if after is None:
                continue
            right = left + wide + GAP
            _tile(canvas, np.asarray(after[i]), right, top)
            if i < columns:
                _label(canvas, left, 0.05, "before", wide, GREY)
                _label(canvas, right, 0.05, "after", wide, ORANGE)
            if samples.new_labels[i] != samples.labels[i]:
                new = f"→ {samples.new_labels[i]}"
                _label(canvas, left, top + high + 0.22, new, cell - SPACE, ORANGE)

    return Section(header + rows * row + 0.1, draw)


def _relabelled(samples: PreviewSamples) -> bool:
    return samples.after is not None and samples.new_labels != samples.labels


def _tile(canvas: Canvas, image: Array, left: float, top: float) -> tuple[float, float]:
    """Place an image `(C, H, W)` in [0, 1] with its longer side TILE inches; return its size."""
    pixels = image[:3].transpose(1, 2, 0) if len(image) >= 3 else image[0]
    scale = TILE / max(pixels.shape[:2])
    size = pixels.shape[1] * scale, pixels.shape[0] * scale
    canvas.picture(left, top, size, pixels)
    return size


def _label(
    canvas: Canvas, left: float, top: float, text: str, room: float, colour: str = INK
) -> None:
    canvas.text(left, top, fitting(text, room, 8), fontsize=8, color=colour)


def sequences(samples: PreviewSamples) -> Section:
    """Draw sequences as lines, channels one above the other, the augmented over the prepared.

    All are drawn on one scale, in one pair of axes: that is quick, and shows which are large.
    """
    before = np.asarray(samples.before)
    after = None if samples.after is None else np.asarray(samples.after)
    channels, columns = min(before.shape[1], CHANNELS), 3
    width, high = (WIDTH - 2 * MARGIN - 2 * 0.3) / columns, 0.75 + 0.35 * (channels - 1)
    rows, row = math.ceil(len(before) / columns), high + 0.35
    low = min(float(x[:, :channels].min()) for x in (before, after) if x is not None)
    top = max(float(x[:, :channels].max()) for x in (before, after) if x is not None)
    scale = high / channels / ((top - low) or 1.0)

    def draw(canvas: Canvas) -> None:
        axes = canvas.sheet()
        _legend(canvas, before.shape, after is not None, (low, top))
        for i, values in enumerate(before):
            left, above = MARGIN + i % columns * (width + 0.3), 0.55 + i // columns * row
            _label(canvas, left, above - 0.17, samples.labels[i], width * 0.3)
            if samples.new_labels[i] != samples.labels[i]:
                new = f"→ {samples.new_labels[i]}"
                _label(canvas, left + width * 0.32, above - 0.17, new, width * 0.68, ORANGE)
            corner = (left, above)
            axes.add_patch(Rectangle(corner, width, high, fill=False, edgecolor=FRAME))
            x = left + np.linspace(0, width, before.shape[-1])
            for channel in range(channels):
                base = above + high * (channel + 1) / channels
                axes.plot(x, base - (values[channel] - low) * scale, color=GREY, linewidth=1.7)
                if after is not None:
                    y = base - (after[i, channel] - low) * scale
                    axes.plot(x, y, color=ORANGE, linewidth=0.9)

    return Section(0.5 + rows * row, draw)


def _legend(
    canvas: Canvas, shape: tuple[int, ...], augmented: bool, limits: tuple[float, float]
) -> None:
    _, channels, length = shape
    note = f"{length} steps, from {limits[0]:.3g} to {limits[1]:.3g}"
    if channels > 1:
        some = f"the first {CHANNELS} of {channels}" if channels > CHANNELS else f"{channels}"
        note += f"; {some} channels, one below the other"
    left = MARGIN
    if augmented:
        _label(canvas, left, 0.08, "before", 1, GREY)
        _label(canvas, left + 0.5, 0.08, "after", 1, ORANGE)
        left += 1.0
    _label(canvas, left, 0.08, note, WIDTH - left, GREY)


# Statistics of the data, train against validation: classes or targets, values, lengths.


SPLITS = (("train", "train", BLUE), ("val", "validation", ORANGE))  # key, name, colour
NAMED, DRAWN = 24, 40  # classes of which each is named; that are bars
TOKENS = 15
ROWS = 16  # channels or columns whose ranges are drawn
HEIGHT, TOP = 1.9, 0.62  # of a panel, inches


def statistics_panels(spec: DataSpec, statistics: Statistics) -> Section:
    """Draw two panels side by side: what is to be predicted, and what it is predicted from."""
    train = statistics.splits["train"]
    rows = list(train.values)[:ROWS]
    high = max(HEIGHT, 0.17 * len(rows) + 0.2)
    note = _explanation(spec, statistics)
    below = 0.35 + 0.14 * (1 + note.count("\n")) if rows else 0.55

    def draw(canvas: Canvas) -> None:
        _statistics_legend(canvas, statistics)
        left, last = MARGIN + 0.5, WIDTH - MARGIN
        if not rows and train.lengths is None:
            _bars(canvas.axes(left, TOP, last - left, HEIGHT), statistics)
            return
        axes = canvas.axes(left, TOP, 3.9, HEIGHT)
        if train.histogram:
            _histograms(axes, [statistics.splits[key].histogram for key, _, _ in SPLITS])
            _title(axes, next(iter(train.targets)))
        else:
            _bars(axes, statistics)
        left = 5.35 + (1.1 if spec.kind == "tabular" else 0.25 if rows else 0)
        axes = canvas.axes(left, TOP, last - left, high)
        if rows:
            _ranges(axes, spec, statistics, rows)
            axes.set_xlabel(note, fontsize=8, color=GREY)
        else:
            _lengths(axes, statistics, spec.shape[0])

    return Section(TOP + max(HEIGHT + _room(_names(statistics)), high + below), draw)


def _room(names: list[str]) -> float:
    """How many inches the names of bars take."""
    return (
        0.4
        if len(names) > NAMED
        else max(0.4, 0.12 + 0.065 * min(12, max(map(len, names), default=0)))
    )


def _statistics_legend(canvas: Canvas, statistics: Statistics) -> None:
    sizes = statistics.sizes
    what = "windows" if statistics.task == "language_model" else "samples"
    left = MARGIN
    notes = [(f"{name}: {sizes[key]:,}", colour) for key, name, colour in SPLITS]
    notes.append((f"test, not opened: {sizes['test']:,} {what}", GREY))
    for note, colour in notes:
        canvas.text(left, 0.08, note, fontsize=10, color=colour, fontweight="bold")
        left += 0.25 + 0.085 * len(note)


def _title(axes: Axes, title: str, note: str = "") -> None:
    style: dict[str, Any] = {"y": 1.0, "parse_math": False}  # a fixed y: none is looked for
    axes.set_title(fitting(title, 3.5, 10), loc="left", fontsize=10, fontweight="bold", **style)
    if note:
        axes.set_title(note, loc="right", fontsize=8, color=GREY, **style)


def _bars(axes: Axes, statistics: Statistics) -> None:
    """Draw how often each class, or each of the most frequent tokens, comes in each split."""
    tokens, names = statistics.task == "language_model", _names(statistics)
    for i, (key, _, colour) in enumerate(SPLITS):
        part = statistics.splits[key]
        counts = [(part.tokens if tokens else part.classes).get(name, 0) for name in names]
        shares = np.array(counts) / max(1, part.looked_at if tokens else sum(counts))
        places = np.arange(len(names))
        if len(names) <= DRAWN:
            left, right, low = places + 0.4 * i - 0.4, places + 0.4 * i, np.zeros(len(names))
            x, y = np.stack([left, left, right, right], 1), np.stack([low, shares, shares, low], 1)
            corners = list(np.stack([x, y], 2))
            axes.add_collection(PolyCollection(corners, facecolor=colour))  # one artist: quick
        else:
            axes.plot(places, shares, ".", markersize=4, alpha=0.6, color=colour)
    if len(names) <= NAMED:
        shown = [cut(name.replace(" ", "␣") if tokens else name, 12) for name in names]
        axes.set_xticks(range(len(names)), shown, fontsize=8, parse_math=False)
        if sum(map(len, shown)) + len(shown) > 55 * axes.bbox.width / axes.figure.dpi / 3.9:
            for label in axes.get_xticklabels():
                label.set(rotation=45, ha="right", va="top", rotation_mode="anchor")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("number of the class", fontsize=8)
    axes.autoscale_view()
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    tidy(axes)
    axes.grid(visible=False, axis="x")
    axes.tick_params(labelsize=8)
    title = "most frequent tokens" if tokens else "class balance"
    _title(axes, title, "share of the split")


def _names(statistics: Statistics) -> list[str]:
    train = statistics.splits["train"]
    return list(train.tokens)[:TOKENS] or list(train.classes)


def _histograms(axes: Axes, found: Sequence[Histogram | None]) -> None:
    for (_, _, colour), histogram in zip(SPLITS, found, strict=True):
        if histogram:
            density = np.array(histogram.counts) / max(1, sum(histogram.counts))
            density /= np.diff(histogram.edges)
            axes.stairs(density, histogram.edges, color=colour, linewidth=1.4)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    tidy(axes)
    axes.tick_params(labelsize=8)


def _lengths(axes: Axes, statistics: Statistics, limit: int) -> None:
    """Draw how long texts are."""
    found = [statistics.splits[key].lengths for key, _, _ in SPLITS]
    _histograms(axes, [lengths.histogram if lengths else None for lengths in found])
    train = found[0]
    assert train is not None
    axes.axvline(train.median, color=GREY, linestyle=":", linewidth=1.2)
    axes.axvline(train.p95, color=GREY, linestyle="--", linewidth=1.2)
    note = f"median {train.median:g}, 95 % up to {train.p95:.0f}, longest {train.maximum}"
    axes.set_xlabel(
        f"tokens per text in train: {note}\n{train.padding:.1%} of a batch is padding; "
        f"texts at the limit of {limit} tokens: {train.at_limit:,}",
        fontsize=8,
        color=GREY,
    )
    _title(axes, "text lengths")


def _ranges(axes: Axes, spec: DataSpec, statistics: Statistics, names: list[str]) -> None:
    """Draw smallest, mean and largest value of each channel or column."""
    parts = [(statistics.splits[key].values, colour) for key, _, colour in SPLITS]
    if statistics.augment:
        parts.append((statistics.batch.values, GREY))
    table = spec.kind == "tabular"
    centre = np.array(spec.mean[: len(names)]) if table else 0.0
    scale = np.array(spec.std[: len(names)]) if table else 1.0
    for i, (values, colour) in enumerate(parts):
        found = [values[name] for name in names]
        low, mean, high = ((np.array(part) - centre) / scale for part in _columns(found))
        y = np.arange(len(names)) + 0.22 * (i - (len(parts) - 1) / 2)
        axes.hlines(y, low, high, color=colour, linewidth=1.6)
        axes.plot(mean, y, "o", color=colour, markersize=3.2)
    size = 8 if len(names) <= 12 else 7
    axes.set_yticks(
        range(len(names)), [fitting(n, 1.3, size) for n in names], fontsize=size, parse_math=False
    )
    axes.set_ylim(len(names) - 0.5, -0.5)
    tidy(axes)
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="y", labelsize=size, length=0)
    left_out = len(statistics.splits["train"].values) - len(names)
    _title(axes, "values", f"{left_out} more columns" if left_out else "")


def _columns(found: list[Range]) -> list[list[float]]:
    return [[r.low for r in found], [r.mean for r in found], [r.high for r in found]]


def _explanation(spec: DataSpec, statistics: Statistics) -> str:
    units = {"uint8": "; 0 black, 1 white"}.get(spec.dtype, "")
    units = "\nin deviations from train's mean" if spec.kind == "tabular" else units
    lines = ["smallest, mean (dot), largest" + units]
    looked_at = statistics.splits["train"].looked_at
    if looked_at < statistics.splits["train"].size:
        lines.append(f"of at most {looked_at:,} samples per split")
    if statistics.augment:
        lines.append(f"grey: the {statistics.batch.shown} augmented samples")
    return "\n".join(lines)


# Rows of a table before and after augmentation: the cells that differ are orange and bold.


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


# Texts before and after augmentation: the tokens that differ are orange and bold.


LINES = 2  # of one text
LEFT = MARGIN + 0.65  # of the tokens, beside their caption
TEXT_CHARACTERS = int((WIDTH - MARGIN - LEFT) / CHARACTER)  # in a line
COMPARED = LINES * TEXT_CHARACTERS

Line = tuple[str, str]  # what is not marked, and what is; each with spaces where the other has ink
Block = tuple[str, str, list[Line]]  # caption, colour of what is not marked, lines
Entry = tuple[str, str, list[Block]]  # label, new label if there is one, blocks


def texts(samples: PreviewSamples) -> Section:
    """Draw texts below each other, each before and, if changed, after augmentation."""
    entries: list[Entry] = []
    for i, before in enumerate(samples.before):
        after = before if samples.after is None else list(samples.after[i])
        marks, new_marks = changed(before, after)
        blocks: list[Block] = [("before", GREY, wrapped(before, marks, samples.joint))]
        if samples.after is None:
            blocks = [("", INK, wrapped(before, marks, samples.joint))]
        elif list(before) != after:
            blocks.append(("after", INK, wrapped(after, new_marks, samples.joint)))
        else:
            blocks = [("same", INK, wrapped(after, new_marks, samples.joint))]
        new = samples.new_labels[i] if samples.new_labels[i] != samples.labels[i] else ""
        entries.append((samples.labels[i], new, blocks))
    return _section(entries)


def windows(samples: PreviewSamples) -> Section:
    """Draw what a language model reads, and below each token the one that it is to predict."""
    entries: list[Entry] = []
    for i, before in enumerate(samples.before):
        after = before if samples.after is None else list(samples.after[i])
        marks, targets = changed(before, after)[1], samples.targets[i]
        longest = max(map(len, (*after, *targets)))
        width = longest + (longest > 1)  # characters need no space between them
        seen, due = (
            [(t.replace(" ", "␣") if width > 1 else t).ljust(width) for t in row]
            for row in (after, targets)
        )
        pairs = zip(wrapped(seen, marks, ""), wrapped(due, [False] * len(due), ""), strict=True)
        blocks: list[Block] = []
        for read, predicted in pairs:
            blocks += [("reads", INK, [read]), ("predicts", GREY, [predicted])]
        entries.append((f"window {i + 1}", "", blocks))
    return _section(entries)


def changed(before: Sequence[str], after: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Return for each token, before and after, whether the other text lacks it at this place.

    Only of as many as can be shown: comparing takes a time that grows with the square of them.
    """
    marks, new = [False] * len(before), [False] * len(after)
    matcher = SequenceMatcher(None, before[:COMPARED], after[:COMPARED], autojunk=False)
    for what, start, end, new_start, new_end in matcher.get_opcodes():
        if what != "equal":
            marks[start:end] = [True] * (end - start)
            new[new_start:new_end] = [True] * (new_end - new_start)
    return marks, new


def wrapped(tokens: Sequence[str], marks: Sequence[bool], joint: str) -> list[Line]:
    """Break tokens into at most LINES lines; a truncated last line ends in an ellipsis."""
    lines: list[Line] = [("", "")]
    for token, mark in zip(tokens, marks, strict=True):
        token = "␣" * len(token) if mark and token.isspace() else token
        token = token[:TEXT_CHARACTERS]
        plain, marked = lines[-1]
        if len(plain) + len(token) > TEXT_CHARACTERS:
            if len(lines) == LINES:
                lines[-1] = (plain[: TEXT_CHARACTERS - 1] + "…", marked[: TEXT_CHARACTERS - 1])
                break
            lines.append(("", ""))
            plain, marked = "", ""
        blank = " " * len(token)
        shown = (blank, token) if mark else (token, blank)
        lines[-1] = (plain + shown[0] + joint, marked + shown[1] + joint)
    return lines


def _section(entries: Sequence[Entry]) -> Section:
    heights = [0.3 + LINE * sum(len(b[2]) for b in blocks) for _, _, blocks in entries]

    def draw(canvas: Canvas) -> None:
        top = 0.05
        for (label, new, blocks), height in zip(entries, heights, strict=True):
            shown = fitting(label, 4.0, 8.5)
            canvas.text(MARGIN, top, shown, fontsize=8.5, fontweight="bold")
            if new:
                style: dict[str, Any] = {"fontsize": 8.5, "color": ORANGE, "ha": "right"}
                canvas.text(WIDTH - MARGIN, top, fitting(f"→ {new}", 4.5, 8.5), **style)
            _draw_blocks(canvas, top + 0.18, blocks)
            top += height

    return Section(sum(heights) + 0.1, draw)


def _draw_blocks(canvas: Canvas, top: float, blocks: Sequence[Block]) -> None:
    for caption, colour, lines in blocks:
        left = LEFT if caption else MARGIN
        canvas.text(MARGIN, top, caption, fontsize=8, color=GREY)
        for plain, marked in lines:
            canvas.cells(left, top, plain, colour)
            canvas.cells(left, top, marked, ORANGE, bold=True)
            top += LINE


HEADING_LINE = 0.17  # inches
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
        _preview_title(samples, statistics),
        _samples(spec, samples),
        statistics_panels(spec, statistics),
        _guard(statistics),
    ]
    return stack(sections)


def png(figure: Figure) -> bytes:
    """Return the picture as PNG."""
    return figures.png(figure, DPI)


def _samples(spec: DataSpec, samples: PreviewSamples) -> Section:
    if spec.kind == "image":
        return images(samples)
    if spec.kind == "sequence":
        return sequences(samples)
    if spec.kind == "tabular":
        return table(samples, spec.feature_names)
    return windows(samples) if spec.task == "language_model" else texts(samples)


def _preview_title(samples: PreviewSamples, statistics: Statistics) -> Section:
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
            canvas.text(MARGIN, 0.05 + i * HEADING_LINE, line, fontsize=9, color=GREY)

    return Section(0.15 + HEADING_LINE * len(lines), write)
