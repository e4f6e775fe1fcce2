"""Images and sequences before and after augmentation."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from litlab.report.batch import Samples
from litlab.report.canvas import INK, MARGIN, WIDTH, Canvas, Section, fitting
from litlab.report.panels import GREY, ORANGE

TILE, GAP = 1.04, 0.06  # inches
CHANNELS = 4  # of a sequence that are drawn
FRAME = "#d5d8dd"
Array = NDArray[Any]


def images(samples: Samples) -> Section:
    """Draw images in pairs, before and after, or alone where nothing changes them."""
    before, after = np.asarray(samples.before), samples.after
    new = after is not None and samples.new_labels != samples.labels
    cell = 2 * TILE + GAP + 0.12 if after is not None else TILE + 0.085
    columns = int((WIDTH - 2 * MARGIN + 0.12) / cell)
    text = 0.5 if new else 0.3
    rows = math.ceil(len(before) / columns)
    header = 0.22 if after is not None else 0.05

    def draw(canvas: Canvas) -> None:
        axes = canvas.sheet()
        for i, image in enumerate(before):
            left = MARGIN + i % columns * cell
            top = header + i // columns * (TILE + text)
            _tile(axes, image, left, top)
            below, room = top + TILE + 0.05, cell - 0.12
            _label(axes, left, below, samples.labels[i], room)
            if after is None:
                continue
            right = left + TILE + GAP
            _tile(axes, np.asarray(after[i]), right, top)
            if i < columns:
                _label(axes, left, 0.05, "before", TILE, GREY)
                _label(axes, right, 0.05, "after", TILE, ORANGE)
            if samples.new_labels[i] != samples.labels[i]:
                _label(axes, left, below + 0.17, f"→ {samples.new_labels[i]}", room, ORANGE)
        axes.set(xlim=(0, WIDTH), ylim=(canvas.height, 0), aspect="auto")

    return Section(header + rows * (TILE + text) + 0.1, draw)


def _tile(axes: Axes, image: Array, left: float, top: float) -> None:
    """Place an image `(C, H, W)` in [0, 1] in a square of TILE inches."""
    pixels = image[:3].transpose(1, 2, 0) if len(image) >= 3 else image[0]
    height, width = image.shape[1:]
    scale = TILE / max(height, width)
    high, wide = height * scale, width * scale
    left, top = left + (TILE - wide) / 2, top + (TILE - high) / 2
    axes.imshow(
        np.clip(pixels, 0, 1),
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=(left, left + wide, top + high, top),
        interpolation="nearest" if max(height, width) < 96 else "antialiased",
        aspect="auto",
    )


def _label(axes: Axes, left: float, top: float, text: str, room: float, colour: str = INK) -> None:
    axes.text(
        left, top, fitting(text, room, 8), fontsize=8, va="top", color=colour, parse_math=False
    )


def sequences(samples: Samples) -> Section:
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
        _legend(axes, before.shape, after is not None, (low, top))
        for i, values in enumerate(before):
            left, above = MARGIN + i % columns * (width + 0.3), 0.55 + i // columns * row
            _label(axes, left, above - 0.17, samples.labels[i], width * 0.3)
            if samples.new_labels[i] != samples.labels[i]:
                new = f"→ {samples.new_labels[i]}"
                _label(axes, left + width * 0.32, above - 0.17, new, width * 0.68, ORANGE)
            corner = (left, above)
            axes.add_patch(Rectangle(corner, width, high, fill=False, edgecolor=FRAME))
            x = left + np.linspace(0, width, before.shape[-1])
            for channel in range(channels):
                base = above + high * (channel + 1) / channels
                axes.plot(x, base - (values[channel] - low) * scale, color=GREY, linewidth=1.4)
                if after is not None:
                    y = base - (after[i, channel] - low) * scale
                    axes.plot(x, y, color=ORANGE, linewidth=1.1)

    return Section(0.5 + rows * row, draw)


def _legend(
    axes: Axes, shape: tuple[int, ...], augmented: bool, limits: tuple[float, float]
) -> None:
    _, channels, length = shape
    note = f"{length} steps, from {limits[0]:.3g} to {limits[1]:.3g}"
    if channels > 1:
        some = f"the first {CHANNELS} of {channels}" if channels > CHANNELS else f"{channels}"
        note += f"; {some} channels, one below the other"
    left = MARGIN
    if augmented:
        _label(axes, left, 0.08, "before", 1, GREY)
        _label(axes, left + 0.5, 0.08, "after", 1, ORANGE)
        left += 1.0
    _label(axes, left, 0.08, note, WIDTH - left, GREY)
