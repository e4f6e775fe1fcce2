"""The picture of a preview: what is in it and where; no text overlaps another."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from litlab.data.spec import Column, DataSpec
from litlab.report import preview
from litlab.report.preview import (
    CAPTION,
    CHARACTER,
    CHARACTERS,
    FONT_SIZE,
    INK,
    LINE,
    LINES,
    TILE,
    BatchStatistics,
    Histogram,
    Lengths,
    PreviewSamples,
    Range,
    SplitStatistics,
    Statistics,
    changed,
    cut,
    draw,
    png,
    shown,
    wrapped,
)

RNG = np.random.default_rng(0)
LONG = "a class with rather a long name, 图 $x_1$ & more of it than fits"
LEAKAGE = (
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
        leakage=LEAKAGE,
    )
    return replace(made, **more)


def samples(spec: DataSpec, augmented: bool = True) -> PreviewSamples:
    """Made-up samples; of the augmented ones the first is unchanged."""
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


Text = tuple[float, float, str, str, bool, float]  # left, top, line, colour, bold, size


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Text]:
    """All lines that are written."""
    lines: list[Text] = []

    def text(
        self: object,
        left: float,
        top: float,
        text: str,
        colour: str = INK,
        *,
        bold: bool = False,
        size: float = FONT_SIZE,
    ) -> None:
        if text.strip():
            left += (len(text) - len(text.lstrip())) * CHARACTER
            lines.append((left, top, text.strip(), colour, bold, size))

    monkeypatch.setattr(preview.Page, "text", text)
    return lines


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize("name", SPECS)
def test_no_text_overlaps_another(name: str, augmented: bool, written: list[Text]) -> None:
    spec = SPECS[name]
    picture = draw(spec, samples(spec, augmented), statistics(spec, augmented))
    boxes = [
        (x, y, x + len(line) * CHARACTER * size / FONT_SIZE, y + LINE, line)
        for x, y, line, _, _, size in written
    ]
    for x, y, right, bottom, line in boxes:
        assert 0 <= x < right <= picture.width, line
        assert 0 <= y < bottom <= picture.height, line
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)


def test_every_character_is_as_wide() -> None:
    for bold in (False, True):
        assert preview._font(bold, FONT_SIZE).getlength("é" * 100) == 100 * CHARACTER
    assert preview._font(True, 16).getlength("é") <= 16 / FONT_SIZE * CHARACTER + 1


@pytest.mark.parametrize("name", ["image", "table", "text"])
def test_the_same_picture_each_time(name: str) -> None:
    spec, made = SPECS[name], samples(SPECS[name])
    one, two = (png(draw(spec, made, statistics(spec))) for _ in range(2))
    assert one == two
    assert one.startswith(b"\x89PNG")


def test_what_is_said_of_batch_and_data(written: list[Text]) -> None:
    spec = SPECS["image"]
    draw(spec, samples(spec), statistics(spec))
    lines = [line for _, _, line, *_ in written]
    assert "made: 12 of the first training batch of 64" in lines
    assert "seed 7, epoch 1; augmented by crop, flip: 11 of 12 changed" in lines
    assert {"train: 12,345,678", "test, not opened: 7,654,321 samples"} <= set(lines)
    assert "5   27.8%" in lines  # of 5 + 6 + 7 samples in the first class
    assert any(LEAKAGE[0].startswith(line) for line in lines)
    assert lines[-1] == "... and 5 more lines"
    written.clear()
    draw(spec, samples(spec, False), statistics(spec, False))
    lines = [line for _, _, line, *_ in written]
    assert "seed 7, epoch 1; no augmentation" in lines
    assert "after" not in lines


def test_labels_before_and_after(written: list[Text]) -> None:
    spec = make_spec("image", (1, 4, 4))
    made = samples(spec)
    made = replace(made, labels=["cat"] * 12, new_labels=["cat", *["cat 0.7 / dog 0.3"] * 11])
    draw(spec, made, statistics(spec))
    lines = [line for _, _, line, *_ in written]
    assert lines.count("cat") == 12
    assert lines.count("→ cat 0.7 / dog 0.3") == 11


def test_many_classes_are_the_most_and_the_least_frequent(written: list[Text]) -> None:
    spec = make_spec("image", (1, 8, 8), num_classes=40)
    draw(spec, samples(spec), statistics(spec))
    lines = [line for _, _, line, *_ in written]
    assert [line for line in lines if line.startswith(("39 ", "0 a class"))]
    assert not [line for line in lines if line.startswith("20 a class")]
    assert "the 8 most and the 8 least frequent of 40 classes" in lines


def test_a_table_marks_the_cells_that_changed(written: list[Text]) -> None:
    spec = SPECS["mixed"]
    made = PreviewSamples(
        [["39", "a"]] * 4, [["39", "b"], *[["39", "a"]] * 3], ["x"] * 4, ["x"] * 4
    )
    draw(spec, made, statistics(spec))
    cells = [(line.split(), bold) for _, _, line, _, bold, _ in written]
    assert [line for line, bold in cells if bold and line[0] in "ab"] == [["b"]]
    assert cells.count((["39", "39"], False)) == 4
    assert cells.count((["a", "a"], False)) == 3


def test_texts_mark_the_tokens_that_changed(written: list[Text]) -> None:
    spec = SPECS["text"]
    before = [["the", "film", "was", "good"], ["no", "change"]]
    made = PreviewSamples(
        before, [["the", "film", "<mask>", "good"], before[1]], ["x"] * 2, ["x"] * 2, joint=" "
    )
    draw(spec, made, statistics(spec))
    lines = [line for _, _, line, *_ in written]
    assert [line for _, _, line, _, bold, _ in written if bold and line in ("was", "<mask>")]
    assert lines.count("the film") == lines.count("good") == 2
    assert lines.count("no change") == 1  # the second is written once
    assert "same" in lines


def test_a_language_model_has_each_target_below_its_token(written: list[Text]) -> None:
    spec = SPECS["language"]
    for read, due in [(list("to be"), list("o be ")), (["to", " be"], [" be", "!"])]:
        written.clear()
        draw(spec, PreviewSamples([read], None, targets=[due]), statistics(spec, False))
        lines = [line for _, _, line, *_ in written]
        i, j = lines.index("reads"), lines.index("predicts")
        seen, predicted = lines[i + 1], lines[j + 1]
        expected = ("to be", "o be") if len(read) == 5 else ("to  ␣be", "␣be !")
        assert (seen, predicted) == expected


def colours(picture: Image.Image) -> dict[tuple[int, ...], int]:
    return {colour: number for number, colour in picture.getcolors(2**24)}


def test_images_are_drawn_as_they_are() -> None:
    spec = make_spec("image", (3, 2, 2))
    x = np.zeros((24, 3, 2, 2))
    x[:, 0, 0, 0], x[:, 1, 0, 1], x[:, 2, 1, 0], x[:, :, 1, 1] = 1, 1, 1, 0.5
    made = PreviewSamples(x, None, ["x"] * 24, ["x"] * 24)
    found = colours(draw(spec, made, statistics(spec, False)))
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)):
        assert found[colour] == 24 * (TILE // 2) ** 2


def test_values_out_of_range_are_cut_off_and_large_images_averaged() -> None:
    x = np.full((1, 600, 600), -4.0)
    x[..., ::2, :] = 7.0
    pixels = np.asarray(preview._pixels(x, TILE, TILE))
    assert 100 < pixels[5:-5].min() <= pixels[5:-5].max() < 155


TOKEN = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=200)


@given(st.lists(st.tuples(TOKEN, st.booleans()), max_size=60), st.sampled_from(["", " "]))
def test_wrapped_lines_fit_and_lose_nothing(tokens: list[tuple[str, bool]], joint: str) -> None:
    texts, marks = [t for t, _ in tokens], [m for _, m in tokens]
    lines = wrapped(texts, marks, joint)
    assert 1 <= len(lines) <= LINES
    width = CHARACTERS - CAPTION
    assert all(sum(len(text) for text, _ in line) <= width + len(joint) for line in lines)
    if sum(len(t) + 1 for t in texts) < width:
        kept = [(text, mark) for line in lines for text, mark in line]
        shown = ["␣" * len(t) if m and t.isspace() else t for t, m in tokens]
        assert kept == [(t + joint, m) for t, m in zip(shown, marks, strict=True)]


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

    monkeypatch.setattr(preview, "SequenceMatcher", Matcher)
    changed(["a"] * 10**5, ["b"] * 10**5)
    assert max(sizes) <= LINES * CHARACTERS


def test_cut() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"
