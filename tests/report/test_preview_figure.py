"""The picture of a preview: what is in it, where, and that nothing lies upon anything else."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from litlab.data.spec import Column, DataSpec
from litlab.report import canvas
from litlab.report.canvas import DPI, WIDTH, cut
from litlab.report.preview import figure as preview_texts
from litlab.report.preview.batch import (
    BatchStatistics,
    Histogram,
    Lengths,
    PreviewSamples,
    Range,
    SplitStatistics,
    Statistics,
)
from litlab.report.preview.figure import LINES, changed, draw, png, shown, wrapped
from litlab.report.preview.figure import TEXT_CHARACTERS as CHARACTERS

RNG = np.random.default_rng(0)
LONG = "a class with rather a long name, 图 $x_1$ & more of it than fits"
GUARD = (
    "leakage check: 24 samples are in two splits: 14 of val also in train, " + "7 of test " * 5,
) * 20


def make_spec(kind: str, shape: tuple[int, ...], num_classes: int = 3, **more: Any) -> DataSpec:
    number = 0 if kind == "text" else shape[0]
    settings: dict[str, Any] = {
        "name": "made",
        "source": "here",
        "kind": kind,
        "task": "classification",
        "shape": shape,
        "dtype": {"image": "uint8", "text": "int32"}.get(kind, "float32"),
        "classes": tuple(f"{i} {LONG}" for i in range(num_classes)),
        "features": tuple(f"a feature named {i}" for i in range(number)),
        "mean": (0.5,) * number,
        "std": (2.0,) * number,
        "vocab_size": 50,
        "sizes": {"train": 12_345_678, "val": 1_234_567, "test": 7_654_321},
        "licence": "CC0",
        "origin": "here",
    }
    return DataSpec(**settings | more)


def statistics(spec: DataSpec, augmented: bool = True, **more: Any) -> Statistics:
    """Made-up numbers of everything that the kind of data has."""
    ranges: dict[str, Range] = {}
    if spec.kind != "text":
        names = [c.name for c in spec.columns if c.kind == "numeric"] or spec.features
        ranges = {name: Range(-3.0, 0.25 * i, 4.0) for i, name in enumerate(names)}
    histogram = Histogram([0.0, 1e5, 2e5, 3e5], [3, 0, 5])
    classes = {name: 5 + i for i, name in enumerate(spec.classes)}
    of_text = spec.kind == "text" and spec.task == "classification"
    tokens = {f"token {i}": 100 - i for i in range(30)} if spec.task == "language_model" else {}
    split = SplitStatistics(
        size=1000,
        looked_at=900,
        classes=classes,
        targets={name: Range(0, 1, 2) for name in spec.targets},
        histogram=histogram if spec.targets else None,
        values=ranges,
        lengths=Lengths(1, 20.5, 100.0, 256, 17, 0.0312, histogram) if of_text else None,
        tokens=tokens,
    )
    number = shown(spec, augmented)
    made = Statistics(
        data=spec.name,
        kind=spec.kind,
        task=spec.task,
        shape=spec.shape,
        seed=7,
        epoch=0,
        augment=("crop", "flip") if augmented else (),
        sizes=spec.sizes,
        splits={"train": split, "val": split},
        batch=BatchStatistics(number, 64, number - 1, ranges, None),
        guard=GUARD,
    )
    return replace(made, **more)


def samples(spec: DataSpec, augmented: bool = True) -> PreviewSamples:
    """Made-up samples; of the augmented ones the first is as it was."""
    number = shown(spec, augmented)
    labels = [f"{i} {LONG}" for i in range(number)]
    new = [labels[0], *(f"{i} 0.7 / {i + 1} {LONG} 0.3" for i in range(1, number))]
    if spec.kind in ("image", "sequence"):
        x = RNG.random((number, *spec.shape))
        after = np.concatenate([x[:1], 1 - x[1:]])
        return PreviewSamples(x, after if augmented else None, labels, new if augmented else labels)
    length = spec.shape[0]
    before = [[f"token{i}{j}" for j in range(length)] for i in range(number)]
    changed = [before[0], *([*(t[:3] for t in row[:2]), *row[2:]] for row in before[1:])]
    if spec.task == "language_model":
        return PreviewSamples(before, changed if augmented else None, targets=before, joint="")
    return PreviewSamples(
        before, changed if augmented else None, labels, new if augmented else labels
    )


COLUMNS = (
    Column(name="age", kind="numeric"),
    Column(name="work", kind="categorical", categories=("a", "b")),
)
REGRESSION: dict[str, Any] = {"task": "regression", "classes": (), "targets": ("price", "rent")}
SPECS = {
    "image": make_spec("image", (1, 8, 8)),
    "colour": make_spec("image", (3, 300, 200), num_classes=60),
    "five channels": make_spec("image", (5, 20, 70)),
    "sequence": make_spec("sequence", (1, 40), num_classes=24),
    "channels": make_spec("sequence", (6, 10)),
    "table": make_spec("tabular", (30,)),
    "one feature": make_spec("tabular", (1,), **REGRESSION),
    "mixed": make_spec("tabular", (2,), columns=COLUMNS, features=("age", "work")),
    "categories": make_spec("tabular", (1,), columns=COLUMNS[1:], features=("work",)),
    "text": make_spec("text", (300,), classes=("a", "b")),
    "language": make_spec("text", (64,), task="language_model", classes=(), tokenizer="{}"),
}


def drawn(figure: Figure) -> Iterator[Text]:
    """Texts that can be seen; of an axis, matplotlib has labels beyond its ends too."""
    FigureCanvasAgg(figure).draw()
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        beyond |= {t.label1 for t in axis.get_major_ticks() if not low <= t.get_loc() <= high}
    for text in figure.findobj(Text):
        seen = text.get_visible() and text.get_text().strip() and text not in beyond
        if seen and text.get_rotation() == 0:
            yield text


@pytest.mark.filterwarnings("ignore:Glyph .* missing from")
@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize("name", SPECS)
def test_nothing_lies_upon_anything_else(name: str, augmented: bool) -> None:
    spec = SPECS[name]
    figure = draw(spec, samples(spec, augmented), statistics(spec, augmented))
    boxes = {text: text.get_window_extent() for text in drawn(figure)}
    width, height = figure.get_size_inches() * DPI
    for text, box in boxes.items():
        assert box.x0 >= 0, text
        assert box.x1 <= width, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text
    for one, other in combinations(boxes, 2):
        a, b = boxes[one], boxes[other]
        apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
        assert apart, (one, other)


@pytest.mark.parametrize("name", ["image", "table", "text"])
def test_the_same_picture_each_time(name: str) -> None:
    spec, made = SPECS[name], samples(SPECS[name])
    one, two = (png(draw(spec, made, statistics(spec))) for _ in range(2))
    assert one == two
    assert one.startswith(b"\x89PNG")


def texts_of(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_title_says_what_was_done() -> None:
    spec = SPECS["image"]
    text = texts_of(draw(spec, samples(spec), statistics(spec)))
    assert "made: 12 of the first training batch of 64" in text
    assert "seed 7, epoch 1; augmented by crop, flip: 11 of 12 changed" in text
    assert "train: 12,345,678" in text
    assert "test, not opened: 7,654,321 samples" in text
    assert GUARD[0].strip() in text
    assert "... and 9 more lines" in text
    text = texts_of(draw(spec, samples(spec, False), statistics(spec, False)))
    assert "no augmentation" in text
    assert "after" not in text


def test_labels_before_and_after() -> None:
    spec = make_spec("image", (1, 4, 4))
    made = samples(spec)
    made = replace(made, labels=["cat"] * 12, new_labels=["cat", *["cat 0.7 / dog 0.3"] * 11])
    text = texts_of(draw(spec, made, statistics(spec)))
    assert text.split("\n").count("cat") == 12
    assert text.split("\n").count("→ cat 0.7 / dog 0.3") == 11


def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    """What is written in characters of one width: lines, colours, whether bold."""
    lines: list[tuple[str, str, bool]] = []

    def cells(
        self: object, left: float, top: float, line: str, colour: str, bold: bool = False
    ) -> None:
        lines.append((line.strip(), colour, bold))

    monkeypatch.setattr(canvas.Canvas, "cells", cells)
    return lines


def test_a_table_marks_the_cells_that_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written(monkeypatch)
    spec = SPECS["mixed"]
    made = PreviewSamples(
        [["39", "a"]] * 4, [["39", "b"], *[["39", "a"]] * 3], ["x"] * 4, ["x"] * 4
    )
    draw(spec, made, statistics(spec))
    marked = [line.split() for line, _, bold in lines if bold and line]
    assert marked == [["b"]]
    plain = [line.split() for line, colour, bold in lines if colour == canvas.INK and not bold]
    assert plain == [["39"] * 8, ["a"] * 7]
    assert [line for line, *_ in lines if line in spec.features] == ["age", "work"]


def test_texts_mark_the_tokens_that_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written(monkeypatch)
    spec = SPECS["text"]
    before = [["the", "film", "was", "good"], ["no", "change"]]
    made = PreviewSamples(
        before, [["the", "film", "<mask>", "good"], before[1]], ["x"] * 2, ["x"] * 2
    )
    draw(spec, made, statistics(spec))
    assert [line for line, _, bold in lines if bold and line] == ["was", "<mask>"]
    assert [line for line, _, bold in lines if not bold][-1] == "no change"
    assert len([line for line, *_ in lines if line]) == 5  # the second is written once


def test_a_language_model_has_each_target_below_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written(monkeypatch)
    spec = SPECS["language"]
    made = PreviewSamples([list("to be")], None, targets=[list("o be ")], joint="")
    draw(spec, made, statistics(spec, False))
    assert [line for line, *_ in lines if line] == ["to be", "o be"]
    lines.clear()
    made = PreviewSamples([["to", " be"]], None, targets=[[" be", "!"]], joint="")
    draw(spec, made, statistics(spec, False))
    assert [line.split() for line, *_ in lines if line] == [["to", "␣be"], ["␣be", "!"]]


def pixels(figure: Figure) -> np.ndarray:
    """What Pillow drew."""
    return np.asarray(figure.images[0].get_array())


def test_images_are_drawn_as_they_are() -> None:
    spec = make_spec("image", (3, 2, 2))
    x = np.zeros((24, 3, 2, 2))
    x[:, 0, 0, 0], x[:, 1, 0, 1], x[:, 2, 1, 0], x[:, :, 1, 1] = 1, 1, 1, 0.5
    made = PreviewSamples(x, None, ["x"] * 24, ["x"] * 24)
    painted = pixels(draw(spec, made, statistics(spec, False)))
    colours, counts = np.unique(painted.reshape(-1, 3), axis=0, return_counts=True)
    found = {tuple(c): n for c, n in zip(colours.tolist(), counts.tolist(), strict=True)}
    area = 24 * 57**2  # 1.04 inches at 110 dots are 114 pixels, of 2 x 2 colours
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)):
        assert found[colour] == area
    assert set(found) == {(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128), (255, 255, 255)}


def test_values_out_of_range_are_cut_off_and_large_images_averaged() -> None:
    spec = make_spec("image", (1, 600, 600))
    x = np.full((12, 1, 600, 600), -4.0)
    x[..., ::2, :] = 7.0
    made = PreviewSamples(x, x, ["x"] * 12, ["x"] * 12)
    painted = pixels(draw(spec, made, statistics(spec)))
    middle = painted[60:100, 60:100]
    assert middle.min() > 100
    assert middle.max() < 155


TOKEN = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=200)


@given(st.lists(st.tuples(TOKEN, st.booleans()), max_size=60), st.sampled_from(["", " "]))
def test_wrapped_lines_fit_and_lose_nothing(tokens: list[tuple[str, bool]], joint: str) -> None:
    texts, marks = [t for t, _ in tokens], [m for _, m in tokens]
    lines = wrapped(texts, marks, joint)
    assert 1 <= len(lines) <= LINES
    kept = ""
    for plain, marked in lines:
        assert len(plain) <= CHARACTERS + len(joint)
        pairs = zip(plain.ljust(CHARACTERS + 1), marked.ljust(CHARACTERS + 1), strict=True)
        assert all(a.isspace() or b.isspace() for a, b in pairs)  # none upon another
        kept += plain + marked
    if sum(len(t) + 1 for t in texts) <= CHARACTERS:
        for text, mark in tokens:
            assert text in kept or (mark and text.isspace())


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_what_is_not_marked_is_the_same(before: list[str], after: list[str]) -> None:
    marks, new = changed(before, after)
    kept = [t for t, mark in zip(before, marks, strict=True) if not mark]
    assert kept == [t for t, mark in zip(after, new, strict=True) if not mark]
    if before == after:
        assert not any(marks)


def test_a_long_text_is_compared_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Matcher:
        def __init__(self, _: None, one: list[str], two: list[str], *, autojunk: bool) -> None:
            sizes.extend([len(one), len(two)])

        def get_opcodes(self) -> list[Any]:
            return []

    monkeypatch.setattr(preview_texts, "SequenceMatcher", Matcher)
    changed(["a"] * 10**5, ["b"] * 10**5)
    assert max(sizes) <= LINES * CHARACTERS


def test_cut() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"


def test_every_line_of_one_width_fits_the_page() -> None:
    font = canvas._mono(False)
    assert font.getlength("a" * 100) == 100 * canvas.CHARACTER * DPI
    assert canvas._mono(True).getlength("é" * 100) == 100 * canvas.CHARACTER * DPI
    assert canvas.CHARACTER * CHARACTERS < WIDTH
