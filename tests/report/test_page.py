import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.metrics import classification_report

from litlab.data.spec import DataSpec
from litlab.report import page, tables, words
from litlab.report.figures import sample_uri
from litlab.report.page import Mistake, ReportRecord, WorstSamples, render

HOSTILE = "<script>alert('x')</script>"
VOID = {"meta", "img", "source", "br", "link"}


class Page(HTMLParser):
    """The page as a browser sees it: tags, attributes, the words between, balanced or not."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, *names: str) -> list[str]:
        return [value for _, name, value in self.attributes if name in names]


def spec(**changes: object) -> DataSpec:
    base = DataSpec(
        name="pets",
        source="folder",
        kind="image",
        task="classification",
        shape=(3, 6, 6),
        dtype="uint8",
        classes=("cat", "dog", HOSTILE),
        class_counts=(1001, 7, 5),
        sizes={"train": 1013, "val": 50, "test": 6},
        licence="CC0-1.0",
        origin="https://example.org/pets?a=1&b=2",
        checksums={"x": "sha256:" + "ab" * 32},
        split_hash="cd" * 32,
    )
    return base.model_copy(update=changes)


def classified(**changes: object) -> ReportRecord:
    record = ReportRecord(
        title="Cats & dogs",
        spec=spec(),
        model_name="cnn",
        num_parameters=61706,
        model_text="CNN(\n  (0): <Linear>\n)",
        config_yaml="model: cnn\nstore: postgresql://me:hunter2@db/runs\n",
        metrics={
            "val": {"accuracy": 0.8125, "loss": 0.4321},
            "test": {"accuracy": 5 / 6, "f1": 0.7654, "loss": 0.51239},
        },
        intervals={"accuracy": (0.4365, 0.9699)},
        history=[
            {"epoch": 0, "train/loss": 1.0, "val/loss": 1.1, "lr": 0.1},
            {"epoch": 1, "train/loss": 0.5, "val/loss": 0.6, "lr": 0.01},
        ],
        best_epoch=1,
        actual=["cat", "cat", "dog", "dog", HOSTILE, HOSTILE],
        predicted=["cat", "cat", "dog", "dog", HOSTILE, "dog"],
        confidence=np.array([0.9, 0.8, 0.7, 0.9, 0.6, 0.97]),
        run={"run_id": "r123", "git_dirty": "true", "duration_seconds": "83.2", "odd_key": "v"},
        repeat=["git checkout abc", "litlab train model=cnn 'x=<1>'"],
        mistakes=[Mistake(np.full((3, 6, 6), 7, np.uint8), HOSTILE, "dog", 0.97)],
    )
    return replace(record, **changes)


# Drawing takes most of the time; tests that are about words do without.
UNDRAWN = {"history": [], "actual": (), "predicted": (), "confidence": None}


def regressed(**changes: object) -> ReportRecord:
    rng = np.random.default_rng(0)
    actual = rng.normal(100, 20, (40, 1))
    data = spec(kind="tabular", task="regression", shape=(4,), dtype="float32", classes=())
    record = classified(
        spec=data.model_copy(update={"targets": ("price (EUR)",), "class_counts": ()}),
        metrics={"val": {"mae": 4.25}, "test": {"mae": 5.125, "r2": -0.25, "loss": math.nan}},
        intervals={"mae": (4.5, 6.75)},
        actual=actual,
        predicted=actual + rng.normal(0, 5, (40, 1)),
        confidence=None,
    )
    return replace(record, **changes)


def check_self_contained(html: str) -> Page:
    parsed = Page(html)
    for value in parsed.values("src", "href", "srcset", "action", "data", "poster"):
        assert value.startswith("data:image/png;base64,"), value[:80]
    assert not {"script", "link", "iframe", "object", "base"} & set(parsed.tags)
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on")]
    style = html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    policies = [v for v in parsed.values("content") if "default-src" in v]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert parsed.tags.count("h1") == 1
    alts = [v for tag, name, v in parsed.attributes if (tag, name) == ("img", "alt")]
    assert len(alts) == parsed.tags.count("img")
    assert all(alts)
    assert len(html) < 600_000
    return parsed


def test_classification_page() -> None:
    parsed = check_self_contained(render(classified()))
    assert (
        "The model cnn (61,706 parameters) was trained on 1,013 images of pets to tell 3 classes "
        "apart: it classifies 83.3 % of 6 test images correctly (95 % interval 43.6 to 97.0 %)."
    ) in parsed.text
    for number in ("0.8125", "0.4321", "0.8333", "0.7654", "0.5124", "0.4365 to 0.9699"):
        assert number in parsed.text
    for fact in ("at epoch 2", "CC0-1.0", "61,706", "3 × 6 × 6", "cat (1,001)", "sha256:abababab"):
        assert fact in parsed.text
    for fact in ("r123", "1 min 23 s", "Odd key", "uncommitted changes", "'x=<1>'", "97 % sure"):
        assert fact in parsed.text
    # matrix, curves, reliability and one mistake
    assert parsed.tags.count("img") == 4
    assert "(0): <Linear>" in parsed.text


def test_regression_page() -> None:
    parsed = check_self_contained(render(regressed()))
    assert (
        "was trained on 1,013 rows of pets to predict price (EUR): its mean absolute error on "
        "40 test rows is 5.125 (95 % interval 4.500 to 6.750)."
    ) in parsed.text
    for number in ("4.250", "5.125", "−0.2500", "NaN"):
        assert number in parsed.text
    assert "Classes on the test split" not in parsed.text
    assert "Most confident mistakes" not in parsed.text  # the samples are not images


def test_hostile_names_stay_words() -> None:
    record = classified(title=HOSTILE, model_name=HOSTILE, run={HOSTILE: HOSTILE}, confidence=None)
    record = replace(record, history=[{"epoch": 0, f"val/{HOSTILE}": 1.0}], intervals={})
    html = render(replace(record, repeat=[HOSTILE], config_yaml=HOSTILE, model_text="</pre>"))
    assert HOSTILE not in html
    assert HOSTILE in check_self_contained(html).text


def test_passwords_are_not_shown() -> None:
    run = {"tracking_uri": "https://bob:s3cret@mlflow.example/x"}
    html = render(classified(run=run, **UNDRAWN))
    assert "hunter2" not in html
    assert "s3cret" not in html
    assert "https://***@mlflow.example/x" in html
    assert words.hide_passwords("https://a.b:80/c ssh://git@h") == "https://a.b:80/c ssh://git@h"


def test_per_class_table_agrees_with_sklearn() -> None:
    record = classified()
    rows = tables.class_rows(record.actual, record.predicted, record.spec)
    trusted = classification_report(record.actual, record.predicted, output_dict=True)
    for row in rows:
        expected = trusted[row.name]
        found = (row.precision, row.recall, row.f1, row.support)
        assert found == pytest.approx(
            [expected[key] for key in ("precision", "recall", "f1-score", "support")]
        )


def test_a_class_never_predicted_has_no_precision() -> None:
    record = classified(
        actual=["cat", "dog"], predicted=["cat", "cat"], confidence=None, history=[]
    )
    cat, dog, unseen = tables.class_rows(record.actual, record.predicted, record.spec)
    assert (cat.precision, dog.recall, dog.support, unseen.support) == (0.5, 0.0, 1, 0)
    assert math.isnan(dog.precision)
    assert "NaN" in Page(render(record)).text


def test_bare_record_renders() -> None:
    record = classified(metrics={}, intervals={}, run={}, repeat=[], mistakes=[], **UNDRAWN)
    record = replace(record, best_epoch=None)
    parsed = check_self_contained(render(record))
    for said in ("not been evaluated", "recorded no metrics", "recorded no values by epoch"):
        assert said in parsed.text
    assert "img" not in parsed.tags
    without_test = render(regressed(metrics={"val": {"mae": 1.0}}, **UNDRAWN))
    assert "1.000" in Page(without_test).text


def test_hundred_classes_stay_small() -> None:
    names = tuple(f"kind {i}" for i in range(100))
    drawn = np.random.default_rng(0).choice(names, (2, 3000))
    many = classified(
        spec=spec(classes=names, class_counts=()),
        actual=drawn[0],
        predicted=drawn[1],
        confidence=None,
        history=[],
    )
    parsed = check_self_contained(render(many))
    assert "and 76 more" in parsed.text
    assert "kind 99" in parsed.text


def test_of_many_targets_the_first_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_TARGETS", 2)
    targets = tuple(f"t{i}" for i in range(8))
    values = np.random.default_rng(0).normal(size=(2, 30, len(targets)))
    record = regressed(actual=values[0], predicted=values[1])
    record = replace(record, spec=record.spec.model_copy(update={"targets": targets}))
    parsed = Page(render(replace(record, history=[])))
    assert "6 more targets are not drawn" in parsed.text
    assert "to predict 8 targets" in parsed.text
    assert parsed.tags.count("img") == 2


def test_predictions_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        render(classified(predicted=["cat"]))
    with pytest.raises(ValueError, match="differ in shape"):
        render(regressed(predicted=np.zeros(40)))  # (40,) against (40, 1) would broadcast


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.97, "0.9700"),
        (-0.25, "−0.2500"),
        (1234.4, "1,234"),
        (61706.4, "61,706"),
        (3.2e-7, "3.200e−07"),
        (math.nan, "NaN"),
        (-math.inf, "−∞"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [("0.44", "0.4 s"), ("59.8", "1 min 00 s"), ("7322", "2 h 02 min"), ("?", "?"), ("inf", "inf")],
)
def test_durations(seconds: str, text: str) -> None:
    assert tables.run_rows({"duration_seconds": seconds}) == [("Duration", text)]


def test_metric_splits_in_the_order_of_the_corridor() -> None:
    metrics = {"test": {"loss": 1.0, "f1": 0.5}, "other": {"f1": 0.1}, "val": {"f1": 0.2}}
    assert [split for split, _ in tables.metric_splits(metrics)] == ["val", "test", "other"]
    rows = tables.metric_rows(metrics, {})
    assert [(row.name, row.values) for row in rows] == [
        ("f1", ["0.2000", "0.5000", "0.1000"]),
        ("loss", ["", "1.000", ""]),
    ]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_gallery_takes_any_channels_and_shrinks(channels: int) -> None:
    small = sample_uri(np.zeros((channels, 8, 8), np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (channels, 900, 700), np.uint8)
    assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", small)
    assert len(sample_uri(noise)) < 100_000
    with pytest.raises(ValueError, match="uint8"):
        sample_uri(np.zeros((8, 8), np.uint8))


def test_confusion_in_words() -> None:
    assert words.confusion_text(["a"], ["a"]).endswith("1 test sample: all are correct.")
    assert words.confusion_text(["a", "b"], ["b", "a"]).endswith(
        "2 wrong, each in a different way."
    )
    text = words.confusion_text(["a", "a", "b"], ["b", "b", "a"])
    assert text.endswith("3 wrong; most often a is predicted as b (2 times).")


def test_a_language_model_s_page_says_what_it_predicts_and_shows_what_it_writes() -> None:
    data = spec(
        name="plays", kind="text", task="language_model", shape=(64,), dtype="int32", classes=(),
        class_counts=(), vocab_size=68, sizes={"train": 900, "val": 50, "test": 40},
    )  # fmt: skip
    record = classified(
        spec=data,
        metrics={"test": {"perplexity": 6.0, "loss": 1.79, "accuracy": 0.5}},
        intervals={"perplexity": (5.5, 6.5)},
        actual=(),
        predicted=(),
        confidence=None,
        mistakes=(),
        written=f"ROMEO:\n{HOSTILE}",
    )
    shown = Page(render(record))
    assert (
        "was trained on 900 windows of plays to predict the next token: its perplexity per token "
        "on 40 test windows is 6.000 (95 % interval 5.500 to 6.500)" in shown.text
    )
    assert "What it writes" in shown.text
    assert HOSTILE in shown.text
    assert "script" not in shown.tags
    assert "over the test windows" in shown.text
    assert "What it writes" not in Page(render(classified())).text


def test_several_targets_are_measured_each_in_its_own_unit() -> None:
    record = regressed(
        metrics={"test": {"mae": 500.0, "r2": 0.5, "loss": 1.0}},
        by_target={"km": {"mae": 1.25, "r2": 0.75}, "kg": {"mae": 998.75}},
        **UNDRAWN,
    )
    record = replace(record, spec=record.spec.model_copy(update={"targets": ("km", "kg")}))
    shown = check_self_contained(render(record)).text
    assert "its mean absolute error on 6 test rows is 1.250 for km and 998.8 for kg." in shown
    assert "mean absolute error, of all 2 targets" in shown
    assert (
        "Test metrics of each target in its own unit Target mae r2 km 1.250 0.7500 kg 998.8"
        in shown
    )


def test_worst_samples_are_words_and_lines() -> None:
    worst = WorstSamples(
        "Largest errors",
        "Far off.",
        ["Index", HOSTILE],
        [["7", HOSTILE], ["8", "b"]],
        ["1,2 3,4", "5,6"],
    )
    html = render(regressed(worst=worst, **UNDRAWN))
    assert HOSTILE not in html
    parsed = check_self_contained(html)
    assert f"Largest errors Far off. Index {HOSTILE} Sequence 7 {HOSTILE} 8 b" in parsed.text
    assert parsed.values("points") == ["1,2 3,4", "5,6"]


def test_an_interval_stands_in_the_cell_of_its_test_value() -> None:
    """A column of its own was cut off on a phone."""
    html = render(classified(**UNDRAWN))
    assert re.search(r"<td>0\.8333 <small>0\.4365 to 0\.9699</small></td>", html)
    assert "<td>0.8125</td>" in html
