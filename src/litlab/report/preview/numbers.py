"""Images and sequences before and after augmentation."""

import math
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from litlab.report.canvas import INK, MARGIN, WIDTH, Canvas, Section, fitting
from litlab.report.panels import GREY, ORANGE
from litlab.report.preview.batch import PreviewSamples

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
