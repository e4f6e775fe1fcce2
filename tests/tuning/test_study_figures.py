"""The pictures and the page of a study."""

import dataclasses
import re
from datetime import timedelta
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState
from PIL import Image

from litlab.tuning.report import figures, page
from litlab.tuning.report.figures import drawings, long_pauses, worst_shown
from litlab.tuning.results.outcome import Outcome
from litlab.tuning.study.settings import Objective
from litlab.tuning.study.space import Space
from made_studies import (
    LOSS,
    SIZE,
    SPACE,
    START,
    by_rate,
    draw,
    finalist,
    mixed,
    random_study,
    study,
    trial,
)

ONE, TWO = [LOSS], [LOSS, SIZE]
EVERY = ["history", "importances", "slices"]


def finals():
    return [finalist(4, 0.1, 0.2, 0.15), finalist(0, 0.3, 0.35, 0.36)]


def names(made, folder: Path, objectives=ONE, finalists=()) -> list[str]:
    """Write a study's figures, and return the names of the files."""
    paths = figures.write(made, objectives, list(finalists), folder)
    assert sorted(paths) == sorted(folder.glob("*.png"))
    return [path.stem for path in paths]


@pytest.mark.draws
def test_all_that_there_is(tmp_path: Path) -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()  # of other tests
    folder = tmp_path / "new" / "figures"
    assert names(mixed(), folder, finalists=finals()) == ["finalists", *EVERY]
    assert pyplot.get_fignums() == before
    for path in folder.iterdir():
        with Image.open(path) as image:
            assert min(image.size) > 150
            assert len(image.convert("RGB").resize((64, 64)).getcolors(64 * 64) or []) > 5


def test_several_objectives(tmp_path: Path) -> None:
    both = finals()
    for one in both:
        one.values["parameters"] = (100.0, 100.0, 100.0)
    found = names(mixed(several=True), tmp_path, TWO, both)
    second = [f"{name}-2" for name in EVERY]
    assert found == ["finalists", *EVERY, *second, "pareto"]
    three = [*TWO, Objective("latency", "minimize")]
    rng = np.random.default_rng(0)
    trials = [trial(SPACE, draw(SPACE, rng), list(map(float, rng.random(3)))) for _ in range(12)]
    assert "pareto" in names(study(trials, *["minimize"] * 3), tmp_path, three)


def failed(n: int):
    rng = np.random.default_rng(0)
    return [trial(SPACE, draw(SPACE, rng), None, TrialState.FAIL, "x") for _ in range(n)]


CHOICES = Space({"model": ["mlp", "cnn"], "model.hidden": [[8], [8, 8]], "x": [None, True]})


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (study([]), []),
        (study(failed(1)), []),
        (study(failed(3)), []),
        (random_study(1, by_rate(1e-2)), ["history", "slices"]),
        (random_study(2, by_rate(1e-2)), ["history", "slices"]),
        (random_study(9, lambda _: 1.0), ["history", "slices"]),
        (random_study(9, lambda p: 1.0 * (p["model"] == "mlp"), space=CHOICES), EVERY),
        (
            random_study(9, lambda p: p["a"], space=Space({"a": {"low": 0, "high": 9.5}})),
            ["history", "slices"],
        ),
        (
            random_study(9, lambda p: float(len(p)), space=Space({"a": ["only"]})),
            ["history"],
        ),
    ],
)
def test_what_there_is_not_is_left_out(made, found: list[str], tmp_path: Path) -> None:
    (tmp_path / "pareto.png").write_bytes(b"of an earlier command")
    assert names(made, tmp_path) == found
    # The page is written all the same.
    if any(t.state == TrialState.COMPLETE for t in made.trials):
        assert page.write(made, ONE, outcome(made), tmp_path).is_file()


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [0.3, float("inf"), 0.2, 0.4, float("-inf"), 0.5]
    made = study([trial(SPACE, draw(SPACE, rng), v) for v in values])
    assert "history" in names(made, tmp_path)
    assert page.write(made, ONE, outcome(made), tmp_path).is_file()


def figures_of(made, title: str, objectives=ONE):
    return next(d.figures for d in drawings(made, objectives) if d.title.startswith(title))


def test_the_best_so_far() -> None:
    made = random_study(12, by_rate(1e-2))
    (figure,) = figures_of(made, "History")
    best = next(trace for trace in figure.data if trace.name == "best so far")
    values = [t.value for t in made.trials]
    assert list(best.y) == [*np.minimum.accumulate(values), min(values)]
    (line,) = figure.layout.shapes
    assert line.y0 == line.y1 == values[0]


def test_learning_rates_are_on_a_log_scale() -> None:
    panels = figures_of(random_study(12, by_rate(1e-2)), "val/loss by each setting")
    kinds = {panel.layout.xaxis.title.text: panel.layout.xaxis.type for panel in panels}
    assert kinds["optimizer.lr"] == "log"
    assert kinds["model.dropout"] != "log"


def test_one_that_diverged_does_not_flatten_the_rest() -> None:
    assert worst_shown([1.0, 2.0, 3.0, 2.0, 1e4], minimize=True) == 3.0
    assert worst_shown([1.0, 2.0, 3.0, 2.0, -1e4], minimize=False) == 1.0
    assert worst_shown([1.0, 2.0, 3.0, 2.0, -1e4], minimize=True) == 3.0
    assert worst_shown([1.0, 1.0, 1.0, 5.0], minimize=True) == 5.0
    for title in ("History", "val/loss by each setting"):
        for figure in figures_of(mixed(), title):
            assert figure.layout.yaxis.range[1] < 10
    notes = [d.note for d in drawings(mixed(), ONE)]
    assert sum("Double-click to include the much worse ones" in note for note in notes) == 2


def test_the_front_is_optunas_and_in_view() -> None:
    made = mixed(several=True)
    (figure,) = figures_of(made, "Trade-offs", TWO)
    (low, high), (bottom, top) = figure.layout.xaxis.range, figure.layout.yaxis.range
    for best in made.best_trials:
        assert low <= best.values[0] <= high
        assert bottom <= best.values[1] <= top
    assert not any(d.title == "Trade-offs" for d in drawings(random_study(5, by_rate(1e-2)), ONE))


def test_long_pauses_are_cut_out() -> None:
    spans = [(0.0, 50.0), (50.0, 100.0), (10_000.0, 10_100.0)]
    assert long_pauses(spans) == [(100.0, 10_000.0)]
    assert long_pauses([(0.0, 50.0), (51.0, 100.0), (10.0, 40.0)]) == []
    trials = random_study(4, by_rate(1e-2)).trials
    for one in trials[2:]:
        one.datetime_start = one.datetime_complete = START + timedelta(days=2)
    (figure,) = figures_of(study_as_it_is(trials), "Timeline")
    *_, pause = figure.layout.xaxis.rangebreaks
    assert pause.bounds == (str(trials[1].datetime_complete), str(trials[2].datetime_start))


def study_as_it_is(trials):
    made = study([])
    made.add_trials(trials)
    return made


# The page


def outcome(made, objectives=ONE, finalists=(), advice=()) -> Outcome:
    best = made.best_trials[0]
    front = [
        {
            "number": t.number,
            "params": t.params,
            "values": dict(zip([o.name for o in objectives], t.values, strict=True)),
        }
        for t in made.best_trials
    ]
    return Outcome(
        study="made & <b>bold</b>",
        storage="sqlite:///made.db",
        trials={"complete": 20, "pruned": 7, "failed": 0},
        best={"number": best.number, "value": best.values[0], "params": best.params},
        first=0.5,
        top={"number": best.number, "value": best.values[0], "params": best.params},
        finalists=list(finalists),
        pareto=front if len(objectives) > 1 else [],
        advice=list(advice),
    )


def test_the_page_says_what_was_found(tmp_path: Path) -> None:
    made = mixed()
    path = page.write(made, ONE, outcome(made, ONE, finals(), ["mind the <i>gap</i>"]), tmp_path)
    assert path == tmp_path / "study.html"
    text = path.read_text()
    body = text.partition("<body>")[2]
    assert "made &amp; &lt;b&gt;bold&lt;/b&gt;" in body
    assert "mind the &lt;i&gt;gap&lt;/i&gt;" in body
    assert "RuntimeError: &lt;b&gt;5" in body
    assert "27 trials: 20 complete and 7 pruned." in body
    words = unescape(re.sub(r"<[^>]+>", "|", body))
    assert "on new seeds trial 4 did best, with a mean of 0.1500." in words
    row = re.search(r"Trial 4\|[^\n]*", words)
    assert row is not None
    cells = [cell for cell in row[0].split("|") if cell]
    assert cells[:4] == ["Trial 4", "0.1500", "0.02579 to 0.2742", "−0.1867"]
    assert cells[4] == "−0.2665 to −0.1068"
    assert cells[5:] == ["0.1000", "0.2000", "0.1500"]
    for title in ("History of val/loss", "What mattered", "by each setting", "Timeline"):
        assert title in words
    assert "Learning curves" in words


@pytest.mark.parametrize("objective", [LOSS, Objective("val/accuracy", "maximize")])
def test_the_history_has_every_trial_that_ended(objective: Objective) -> None:
    made = mixed()
    history = next(d for d in drawings(made, [objective]) if d.title.startswith("History"))
    (figure,) = history.figures
    shown = {trace.name.partition(",")[0]: trace for trace in figure.data}
    numbers = {name: list(trace.x) for name, trace in shown.items() if name != "best so far"}
    for state, name in ((TrialState.COMPLETE, "completed"), (TrialState.PRUNED, "pruned")):
        assert numbers.pop(name) == [t.number for t in made.trials if t.state == state]
    assert numbers.pop("failed") == [t.number for t in made.trials if t.state == TrialState.FAIL]
    assert numbers == {}
    low, high = figure.layout.yaxis.range
    assert all(low <= y <= high for y in shown["failed"].y)
    assert "RuntimeError: &lt;b&gt;5" in shown["failed"].hovertext[0]


def test_the_page_names_trainings_that_failed(tmp_path: Path) -> None:
    made = mixed()
    failed = [{"trial": 5, "reason": "no <i>memory</i>"}, {"trial": None, "seed": 2, "reason": "x"}]
    found = dataclasses.replace(outcome(made), failed=failed)
    body = page.write(made, ONE, found, tmp_path).read_text().partition("<body>")[2]
    before = body.partition("Settings of the best")[0]  # not hidden below
    assert "no &lt;i&gt;memory&lt;/i&gt;" in before
    assert "Baseline, seed 2" in before


def test_the_page_where_nothing_was_better(tmp_path: Path) -> None:
    made = mixed()
    found = outcome(made)
    best = {**found.best, "number": 0, "params": {}}
    text = page.write(made, ONE, dataclasses.replace(found, best=best), tmp_path).read_text()
    assert "the baseline did best." in text
    assert '<th scope="col">Baseline</th></tr>' in text
    assert f"Trial {found.best['number']}</th>" not in text
    text = page.write(made, ONE, found, tmp_path).read_text()
    assert f"trial {found.best['number']} had the best, " in text
    assert "; the baseline had 0.5000." in text


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    made = mixed(several=True)
    text = page.write(made, TWO, outcome(made, TWO), tmp_path).read_text()
    assert "Trade-offs" in text
    assert text.count("plotly.js v") == 1
    assert not re.search(r"<(script|img|link|iframe)[^>]+(src|href)=", text)
    assert "default-src 'none'" in text
    # Plotly's button that uploads a figure to its makers.
    assert text.count('"showSendToCloud": false') == text.count("Plotly.newPlot(  ") > 3


def test_names_do_not_end_a_script(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    space = Space({evil: [evil, "b"], "model.dropout": {"low": 0.0, "high": 1.0}})
    made = random_study(8, lambda p: p["model.dropout"], space=space)
    text = page.write(made, [Objective(evil, "minimize")], outcome(made), tmp_path).read_text()
    assert "alert(1)" in text
    assert "<script>alert" not in text


def test_a_metric_that_is_to_grow(tmp_path: Path) -> None:
    accuracy = [Objective("val/accuracy", "maximize")]
    rng = np.random.default_rng(0)
    trials = [trial(SPACE, draw(SPACE, rng), float(v)) for v in rng.random(12)]
    made = study(trials, "maximize")
    assert names(made, tmp_path, accuracy) == EVERY
    (figure,) = figures_of(made, "History", accuracy)
    assert max(figure.data[0].y) == made.best_value
    assert page.write(made, accuracy, outcome(made), tmp_path).is_file()
