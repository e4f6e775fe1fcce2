"""Texts before and after augmentation: the tokens that differ are orange and bold."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from litlab.report.canvas import (
    CHARACTER,
    INK,
    LINE,
    MARGIN,
    WIDTH,
    Canvas,
    Section,
    fitting,
)
from litlab.report.panels import GREY, ORANGE
from litlab.report.preview.batch import PreviewSamples

LINES = 2  # of one text
LEFT = MARGIN + 0.65  # of the tokens, beside their caption
CHARACTERS = int((WIDTH - MARGIN - LEFT) / CHARACTER)  # in a line
COMPARED = LINES * CHARACTERS

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
        token = token[:CHARACTERS]
        plain, marked = lines[-1]
        if len(plain) + len(token) > CHARACTERS:
            if len(lines) == LINES:
                lines[-1] = (plain[: CHARACTERS - 1] + "…", marked[: CHARACTERS - 1])
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
