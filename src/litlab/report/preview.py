"""The picture of a preview: samples before and after augmentation, above the data's statistics.

Pillow draws it, in pixels and in one font of one width: a training draws it at its start, where
matplotlib's texts would take a third of a second.
"""

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from litlab.data.spec import DataSpec
from litlab.report.figures import BLUE, GREY, ORANGE

Array = NDArray[Any]


@dataclass(frozen=True)
class Range:
    """Smallest value, mean and largest value."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, of which there is one more."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Lengths:
    """How many tokens the texts of a split have.

    Attributes:
        at_limit: Texts as long as the longest that is kept: at most so many were cut.
        padding: Share of the positions in this run's batches that are padding.
    """

    minimum: int
    median: float
    p95: float
    maximum: int
    at_limit: int
    padding: float
    histogram: Histogram


@dataclass(frozen=True)
class SplitStatistics:
    """One split.

    Attributes:
        size: Samples; windows of a language model.
        looked_at: How many samples `values` (or `tokens`) are computed from.
        classes: Samples per class.
        targets: Of a regression, by target.
        histogram: Of a regression's first target.
        values: By channel or numeric column, in the units that augmentation sees: images of bytes
            in [0, 1].
        lengths: Of texts.
        tokens: How often the most frequent ones occur, in a language model's text.
    """

    size: int
    looked_at: int
    classes: dict[str, int] = field(default_factory=dict)
    targets: dict[str, Range] = field(default_factory=dict)
    histogram: Histogram | None = None
    values: dict[str, Range] = field(default_factory=dict)
    lengths: Lengths | None = None
    tokens: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchStatistics:
    """The samples that are shown: the first of a batch.

    Attributes:
        shown: How many.
        size: Of the batch.
        changed: How many of them augmentation changed, label or input.
        values: As in `SplitStatistics`, after augmentation.
        model_input: All values after normalization: what the model sees; None of texts.
    """

    shown: int
    size: int
    changed: int
    values: dict[str, Range] = field(default_factory=dict)
    model_input: Range | None = None


@dataclass(frozen=True)
class Statistics:
    """All that is written as JSON.

    `sizes` are of all three splits, as prepared; of the test split nothing else is known here, for
    only an evaluation opens it. `leakage` has the lines of the leakage check.
    """

    data: str
    kind: str
    task: str
    shape: tuple[int, ...]
    seed: int
    epoch: int
    augment: tuple[str, ...]
    sizes: dict[str, int]
    splits: dict[str, SplitStatistics]
    batch: BatchStatistics
    leakage: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreviewSamples:
    """n samples of a training batch.

    Images `(n, C, H, W)` in [0, 1] and sequences `(n, C, L)` in their unit are arrays; of tables
    and texts there is a list of cells or tokens per sample.

    Attributes:
        before: As prepared.
        after: Augmented; None where nothing is configured that would change them.
        labels: In words.
        new_labels: After augmentation, which may mix them.
        targets: Of a language model: the token that follows each of `after`.
        joint: What is between two tokens.
    """

    before: Any
    after: Any = None
    labels: list[str] = field(default_factory=list)
    new_labels: list[str] = field(default_factory=list)
    targets: Sequence[Sequence[str]] = field(default_factory=list)
    joint: str = ""

    def new_label(self, i: int) -> str:
        """Return what augmentation made of a label; empty if it is the same."""
        return f"→ {self.new_labels[i]}" if self.new_labels[i] != self.labels[i] else ""


INK, PALE = "#222222", "#d5d8dd"
WIDTH, MARGIN, LINE = 1056, 32, 17  # pixels
CHARACTER, FONT_SIZE = 7, 11.6  # the width of each character in pixels, of the size in points
CHARACTERS = (WIDTH - 2 * MARGIN) // CHARACTER  # characters in a line
SHOWN = {  # samples: not augmented, augmented
    "image": (24, 12),
    "sequence": (9, 9),
    "tabular": (8, 4),
    "text": (8, 6),
    "windows": (4, 4),
}
TILE, GAP = 114, 8  # of an image, between images
CHANNELS = 4  # of a sequence that are drawn
ROWS = 16  # classes, tokens, channels, columns or lines of the leakage check
LINES = 2  # of a text
SPLITS = (("train", "train", BLUE), ("val", "validation", ORANGE))  # key, name, colour
CAPTION = 10  # characters beside the lines of a text
HALF = (WIDTH - 2 * MARGIN) // 2 - 12  # width of a panel
NAME, BAR = 20 * CHARACTER, HALF - 38 * CHARACTER  # of a row of a panel

Pieces = list[tuple[str, bool]]  # of a line: text, and whether it is marked as changed


def shown(spec: DataSpec, augmented: bool) -> int:
    """Return how many samples of a batch are shown."""
    return SHOWN["windows" if spec.task == "language_model" else spec.kind][augmented]


def draw(spec: DataSpec, samples: PreviewSamples, statistics: Statistics) -> Image.Image:
    """Draw samples before and after augmentation, above statistics of the data."""
    page = Page()
    _title(page, samples, statistics)
    if spec.kind == "image":
        _images(page, samples)
    elif spec.kind == "sequence":
        _sequences(page, samples)
    elif spec.kind == "tabular":
        _table(page, samples, spec.feature_names)
    else:
        _texts(page, _windows(samples) if spec.task == "language_model" else _pairs(samples))
    _statistics(page, spec, statistics)
    _leakage(page, statistics)
    return page.image.crop((0, 0, WIDTH, round(page.top) + 12))


def png(image: Image.Image) -> bytes:
    """Return the picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def cut(text: str, number: int) -> str:
    """Return a text of at most so many characters, with an ellipsis if it had more."""
    return text if len(text) <= number else text[: max(0, number - 1)] + "…"


@cache
def _font(bold: bool, size: float) -> ImageFont.FreeTypeFont:
    """A font that comes with matplotlib, laid out so that every character is as wide."""
    name = "DejaVuSansMono-Bold.ttf" if bold else "DejaVuSansMono.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


class Page:
    """White paper, higher than any picture, of which what is above `top` is written."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH, 2500), "white")
        self.pen = ImageDraw.Draw(self.image)
        self.top = 14.0

    def text(
        self,
        left: float,
        top: float,
        text: str,
        colour: str = INK,
        *,
        bold: bool = False,
        size: float = FONT_SIZE,
    ) -> None:
        """Write one line."""
        line = text.replace("\n", "⏎")
        self.pen.text((round(left), round(top)), line, fill=colour, font=_font(bold, size))

    def pieces(self, left: float, top: float, pieces: Pieces, colour: str = INK) -> None:
        """Write one line; what is marked is orange and bold."""
        for marked, group in groupby(pieces, key=lambda piece: piece[1]):
            text = "".join(part for part, _ in group)
            self.text(left, top, text, ORANGE if marked else colour, bold=marked)
            left += CHARACTER * len(text)

    def line(self, x: Array, y: Array, colour: str, width: int = 1) -> None:
        """Draw a line through points."""
        points = np.stack([x, y], 1).round().ravel().tolist()
        self.pen.line(points, fill=colour, width=width)


def _title(page: Page, samples: PreviewSamples, statistics: Statistics) -> None:
    batch = statistics.batch
    title = f"{statistics.data}: {batch.shown} of the first training batch of {batch.size}"
    what = "no augmentation"
    if samples.after is not None:
        names = ", ".join(statistics.augment)
        what = f"augmented by {names}: {batch.changed} of {batch.shown} changed"
    note = f"seed {statistics.seed}, epoch {statistics.epoch + 1}; {what}"
    if len(statistics.splits["train"].targets) == 1:
        note += f"; numbers are {next(iter(statistics.splits['train'].targets))}"
    size = 16
    line = cut(title, round(CHARACTERS * FONT_SIZE / size))
    page.text(MARGIN, page.top, line, bold=True, size=size)
    page.text(MARGIN, page.top + 24, cut(note, CHARACTERS), GREY)
    page.top += 48


def _captions(page: Page, left: float, top: float, apart: float) -> None:
    page.text(left, top, "before", GREY)
    page.text(left + apart, top, "after", ORANGE)


def _images(page: Page, samples: PreviewSamples) -> None:
    """Draw images in pairs, before and after, or alone where nothing changes them."""
    before, after = np.asarray(samples.before), samples.after
    high, wide = before.shape[2:]
    wide, high = (max(1, round(TILE * side / max(high, wide))) for side in (wide, high))
    cell = (1 if after is None else 2) * (TILE + GAP)
    columns = (WIDTH - 2 * MARGIN + GAP) // cell
    start, row = page.top + (0 if after is None else LINE + 4), high + 2 * LINE + 8
    most = cell // CHARACTER - 2
    for i, image in enumerate(before):
        x, y = MARGIN + i % columns * cell, round(start + i // columns * row)
        page.image.paste(_pixels(image, wide, high), (x, y))
        page.text(x, y + high + 2, cut(samples.labels[i], most))
        if after is not None:
            page.image.paste(_pixels(np.asarray(after[i]), wide, high), (x + wide + GAP, y))
            page.text(x, y + high + 2 + LINE, cut(samples.new_label(i), most), ORANGE)
            if i < columns:
                _captions(page, x, page.top, wide + GAP)
    page.top = start + math.ceil(len(before) / columns) * row


def _pixels(image: Array, wide: int, high: int) -> Image.Image:
    """An image `(C, H, W)` in [0, 1] at the size of a tile; large ones are averaged."""
    pixels = image[:3].transpose(1, 2, 0) if len(image) >= 3 else image[0]
    made = Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)).convert("RGB")
    smaller = made.width > wide or made.height > high
    how = Image.Resampling.BOX if smaller else Image.Resampling.NEAREST
    return made.resize((wide, high), how)


def _sequences(page: Page, samples: PreviewSamples) -> None:
    """Draw sequences on one scale, channels below each other, before and after together."""
    both = [(np.asarray(samples.before), GREY, 2)]
    left = MARGIN
    if samples.after is not None:
        both.append((np.asarray(samples.after), ORANGE, 1))
        _captions(page, left, page.top, 70)
        left += 140
    number, found, length = both[0][0].shape
    channels, columns, space = min(found, CHANNELS), 3, 32
    low = min(float(x[:, :channels].min()) for x, *_ in both)
    high = max(float(x[:, :channels].max()) for x, *_ in both)
    some = f"the first {channels} of {found}" if found > channels else f"{found}"
    note = f"{length} steps, {some} channel{'s' * (found > 1)}, from {low:.3g} to {high:.3g}"
    page.text(left, page.top, note, GREY)
    wide, tall = (WIDTH - 2 * MARGIN + space) // columns - space, 80 + 38 * (channels - 1)
    scale, row = (tall - 2) / channels / ((high - low) or 1.0), tall + 2 * LINE + 4
    for i in range(number):
        x, y = MARGIN + i % columns * (wide + space), page.top + 24 + i // columns * row
        label = cut(samples.labels[i], 16)
        page.text(x, y, label)
        new = cut(samples.new_label(i), wide // CHARACTER - len(label) - 2)
        page.text(x + (len(label) + 2) * CHARACTER, y, new, ORANGE)
        page.pen.rectangle((x, y + LINE, x + wide, y + LINE + tall), outline=PALE)
        for channel in range(channels):
            base = y + LINE + tall * (channel + 1) / channels - 1
            for values, colour, width in both:
                heights = base - (values[i, channel] - low) * scale
                page.line(x + np.linspace(0, wide, length), heights, colour, width)
    page.top += 24 + math.ceil(number / columns) * row


def _table(page: Page, samples: PreviewSamples, features: Sequence[str]) -> None:
    """Draw samples as columns of cells, a feature per line; changed cells are marked."""
    before, after = list(samples.before), samples.after
    names = [cut(name, 26) for name in features[:ROWS]]
    start = max(map(len, names)) + 2
    wide = (CHARACTERS - start) // len(before)  # characters of a sample
    half = wide if after is None else wide // 2
    top = page.top + LINE * (1 if after is None else 3)
    for i, cells in enumerate(before):
        left = MARGIN + (start + i * wide) * CHARACTER
        page.text(left, page.top, cut(samples.labels[i], wide - 2), bold=True)
        if after is not None:
            page.text(left, page.top + LINE, cut(samples.new_label(i), wide - 2), ORANGE)
            _captions(page, left, page.top + 2 * LINE, half * CHARACTER)
        for row in range(len(names)):
            pieces = [(cut(cells[row], half - 1).ljust(half), False)]
            if after is not None:
                pieces.append((cut(after[i][row], half - 1), cells[row] != after[i][row]))
            page.pieces(left, top + row * LINE, pieces)
    more = len(features) - len(names)
    names += [f"and {more} more features"] if more else []
    for name in names:
        page.text(MARGIN, top, name, GREY)
        top += LINE
    page.top = top + 8


Entry = tuple[str, str, list[tuple[str, str, list[Pieces]]]]  # labels; captions, colours, lines


def _texts(page: Page, entries: Sequence[Entry]) -> None:
    for label, new, blocks in entries:
        label = cut(label, CHARACTERS // 2)
        place, most = MARGIN + (len(label) + 2) * CHARACTER, CHARACTERS - len(label) - 2
        page.text(MARGIN, page.top, label, bold=True)
        page.text(place, page.top, cut(new, most), ORANGE)
        page.top += LINE
        for caption, colour, lines in blocks:
            page.text(MARGIN, page.top, caption, GREY)
            for pieces in lines:
                page.pieces(MARGIN + CAPTION * CHARACTER, page.top, pieces, colour)
                page.top += LINE
        page.top += LINE / 2


def _pairs(samples: PreviewSamples) -> list[Entry]:
    """Texts, each before and, if changed, after augmentation; changed tokens are marked."""
    entries: list[Entry] = []
    for i, before in enumerate(samples.before):
        after = before if samples.after is None else list(samples.after[i])
        marks, new = changed(before, after)
        same = list(before) == list(after)
        caption = ("same" if same else "after") if samples.after is not None else ""
        blocks = [(caption, INK, wrapped(after, new, samples.joint))]
        if not same:
            blocks.insert(0, ("before", GREY, wrapped(before, marks, samples.joint)))
        entries.append((samples.labels[i], samples.new_label(i), blocks))
    return entries


def _windows(samples: PreviewSamples) -> list[Entry]:
    """What a language model reads, and below each token the one that it is to predict."""
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
        blocks = []
        for read, predicted in zip(wrapped(seen, marks), wrapped(due), strict=True):
            blocks += [("reads", INK, [read]), ("predicts", GREY, [predicted])]
        entries.append((f"window {i + 1}", "", blocks))
    return entries


def changed(before: Sequence[str], after: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Return for each token, before and after, whether the other text lacks it at this place.

    Only of as many as can be shown: comparing takes a time that grows with the square of them.
    """
    marks, new = [False] * len(before), [False] * len(after)
    most = LINES * CHARACTERS
    matcher = SequenceMatcher(None, before[:most], after[:most], autojunk=False)
    for what, start, end, new_start, new_end in matcher.get_opcodes():
        if what != "equal":
            marks[start:end] = [True] * (end - start)
            new[new_start:new_end] = [True] * (new_end - new_start)
    return marks, new


def wrapped(
    tokens: Sequence[str], marks: Sequence[bool] | None = None, joint: str = ""
) -> list[Pieces]:
    """Break tokens into at most LINES lines; a truncated last line ends in an ellipsis."""
    width = CHARACTERS - CAPTION - 1
    lines: list[Pieces] = [[]]
    used = 0
    for token, mark in zip(tokens, marks or [False] * len(tokens), strict=True):
        text = cut("␣" * len(token) if mark and token.isspace() else token, width)
        if used + len(text) > width:
            if len(lines) == LINES:
                lines[-1].append(("…", False))
                break
            lines.append([])
            used = 0
        lines[-1].append((text + joint, mark))
        used += len(text + joint)
    return lines


def _statistics(page: Page, spec: DataSpec, statistics: Statistics) -> None:
    """Draw two panels side by side: what is to be predicted, and what it is predicted from."""
    train = statistics.splits["train"]
    what = "windows" if statistics.task == "language_model" else "samples"
    notes = [(f"{name}: {statistics.sizes[key]:,}", colour) for key, name, colour in SPLITS]
    notes.append((f"test, not opened: {statistics.sizes['test']:,} {what}", GREY))
    left = MARGIN
    for note, colour in notes:
        page.text(left, page.top + LINE, note, colour, bold=True)
        left += (len(note) + 4) * CHARACTER
    top, middle = page.top + 3 * LINE, MARGIN + HALF + 24
    if train.histogram is not None:
        found = [(statistics.splits[key].histogram, colour) for key, _, colour in SPLITS]
        ends = [_histogram(page, MARGIN, top, next(iter(train.targets)), found)]
    else:
        ends = [_bars(page, top, statistics)]
    if (lengths := train.lengths) is not None:
        parts = [(statistics.splits[key].lengths, colour) for key, _, colour in SPLITS]
        found = [(part.histogram if part else None, colour) for part, colour in parts]
        notes_of_lengths = [
            f"train: median {lengths.median:g}, 95 % up to {lengths.p95:.0f}, "
            f"longest {lengths.maximum}",
            f"{lengths.padding:.1%} of a batch is padding",
            f"texts at the limit of {spec.shape[0]} tokens: {lengths.at_limit:,}",
        ]
        ends.append(_histogram(page, middle, top, "tokens per text", found, notes_of_lengths))
    elif train.values:
        ends.append(_ranges(page, middle, top, spec, statistics))
    page.top = max(ends) + 12


def _heading(page: Page, left: float, top: float, title: str, note: str = "") -> float:
    title = cut(title, HALF // CHARACTER - len(note) - 2)
    page.text(left, top, title, bold=True)
    page.text(left + (len(title) + 2) * CHARACTER, top, note, GREY)
    return top + LINE + 4


def _notes(page: Page, left: float, top: float, notes: Sequence[str]) -> float:
    for i, note in enumerate(notes):
        page.text(left, top + i * LINE, cut(note, HALF // CHARACTER), GREY)
    return top + LINE * len(notes)


def _bars(page: Page, top: float, statistics: Statistics) -> float:
    """Draw how often each class, or each of the most frequent tokens, occurs in each split."""
    tokens = statistics.task == "language_model"
    labels = statistics.task == "multi_label"  # of which a sample has several, or none
    parts = [
        (part.tokens if tokens else part.classes, part.size if labels else part.looked_at, colour)
        for part, colour in ((statistics.splits[key], colour) for key, _, colour in SPLITS)
    ]
    train = parts[0][0]
    names, notes = list(train)[: ROWS if tokens else None], []
    if len(names) > ROWS:
        names = sorted(names, key=lambda name: -train[name])
        names = [*names[: ROWS // 2], *names[-ROWS // 2 :]]
        notes = [f"the {ROWS // 2} most and the {ROWS // 2} least frequent of {len(train)} classes"]
    shares = [
        [
            counts.get(name, 0) / max(1, number if tokens or labels else sum(counts.values()))
            for name in names
        ]
        for counts, number, _ in parts
    ]
    scale = BAR / (max(map(max, shares), default=0) or 1)
    title = "most frequent tokens" if tokens else "labels" if labels else "classes"
    top = _heading(page, MARGIN, top, title, "number and share in train")
    for row, name in enumerate(names):
        page.text(MARGIN, top, cut(name.replace(" ", "␣") if tokens else name, 18))
        x = MARGIN + NAME
        for place, (_, _, colour) in enumerate(parts):
            if share := shares[place][row]:
                y = top + 2 + 6 * place
                page.pen.rectangle((x, y, x + round(share * scale), y + 5), fill=colour)
        number = f"{train[name]:>9,} {shares[0][row]:>7.1%}"
        page.text(x + BAR + CHARACTER, top, number, GREY)
        top += LINE
    return _notes(page, MARGIN, top + 4, notes)


def _histogram(
    page: Page,
    left: float,
    top: float,
    title: str,
    found: Sequence[tuple[Histogram | None, str]],
    notes: Sequence[str] = (),
) -> float:
    high = 130
    top = _heading(page, left, top, title)
    parts = [(np.array(h.edges), np.array(h.counts), colour) for h, colour in found if h]
    low, last = min(e[0] for e, *_ in parts), max(e[-1] for e, *_ in parts)
    densities = [counts / max(1, counts.sum()) / np.diff(edges) for edges, counts, _ in parts]
    most = max(float(density.max()) for density in densities)
    for (edges, _, colour), density in zip(parts, densities, strict=True):
        x = np.repeat(left + (edges - low) / (last - low) * HALF, 2)
        y = np.repeat(top + high - np.array([0, *density, 0]) / most * high, 2)[1:-1]
        page.line(x, y, colour, 2)
    page.line(np.array([left, left + HALF]), np.full(2, top + high), GREY)
    right = f"{last:.4g}"
    page.text(left, top + high + 4, f"{low:.4g}", GREY)
    page.text(left + HALF - len(right) * CHARACTER, top + high + 4, right, GREY)
    return _notes(page, left, top + high + 4 + LINE, notes)


def _ranges(page: Page, left: float, top: float, spec: DataSpec, statistics: Statistics) -> float:
    """Draw smallest, mean and largest value of each channel or column."""
    train = statistics.splits["train"]
    names = list(train.values)[:ROWS]
    parts = [(statistics.splits[key].values, colour) for key, _, colour in SPLITS]
    notes = {
        "image": ["0 is black, 1 is white"],
        "tabular": ["lines: standard deviations from train's mean"],
    }
    lines = list(notes.get(spec.kind, []))
    if statistics.augment:
        parts.append((statistics.batch.values, GREY))
        lines.append(f"grey: the {statistics.batch.shown} augmented samples")
    if train.looked_at < train.size:
        lines.append(f"of at most {train.looked_at:,} samples per split")
    if len(train.values) > len(names):
        lines.append(f"{len(train.values) - len(names)} more columns")
    x = np.array([[[p[n].low, p[n].mean, p[n].high] for n in names] for p, _ in parts])
    if spec.kind == "tabular":  # columns have units of their own
        x -= np.array(spec.mean[: len(names)])[:, None]
        x /= np.array(spec.std[: len(names)])[:, None]
    x = left + NAME + (x - x.min()) / ((x.max() - x.min()) or 1.0) * BAR
    top = _heading(page, left, top, "values", "smallest, mean, largest")
    for row, name in enumerate(names):
        page.text(left, top, cut(name, 18))
        for place, (_, colour) in enumerate(parts):
            y, (low, mean, high) = top + 4 + 4 * place, x[place, row]
            page.pen.line((low, y, high, y), fill=colour, width=2)
            page.pen.ellipse((mean - 2, y - 2, mean + 2, y + 2), fill=colour)
        found = f"{train.values[name].low:.4g} to {train.values[name].high:.4g}"
        page.text(left + NAME + BAR + 2 * CHARACTER, top, cut(found, 16), GREY)
        top += LINE
    return _notes(page, left, top + 4, lines)


def _leakage(page: Page, statistics: Statistics) -> None:
    lines = [line for text in statistics.leakage for line in textwrap.wrap(text, CHARACTERS)]
    if len(lines) > ROWS:
        lines = [*lines[: ROWS - 1], f"... and {len(lines) - ROWS + 1} more lines"]
    for line in lines:
        page.text(MARGIN, page.top, line, GREY)
        page.top += LINE
