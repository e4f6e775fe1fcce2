"""The pictures and the page of a study."""

import dataclasses
import re
import sys
from datetime import timedelta
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from optuna.trial import TrialState
from PIL import Image

from litlab.tuning.report import figures, page
from litlab.tuning.report.drawn import drawn
from litlab.tuning.report.fronts import pareto
from litlab.tuning.report.interactive import drawings
from litlab.tuning.report.parallel import parallel
from litlab.tuning.report.scales import scale_of, worst_shown
from litlab.tuning.report.slices import slices
from litlab.tuning.report.timeline import clock, long_pauses, shortened, timeline
from litlab.tuning.results.outcome import Outcome
from litlab.tuning.study.objectives import Objective
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
EVERY = ["history", "importances", "slices", "parallel", "timeline"]


def finals():
    return [finalist(4, 0.1, 0.2, 0.15), finalist(0, 0.3, 0.35, 0.36)]


def names(made, folder: Path, objectives=ONE, finalists=()) -> list[str]:
    """Draw a study, look at the files, and return their names."""
    paths = figures.write(made, objectives, list(finalists), folder)
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 150
            assert len(image.convert("RGB").resize((64, 64)).getcolors(64 * 64) or []) > 5
    assert sorted(paths) == sorted(folder.glob("*.png"))
    return [path.stem for path in paths]


def test_all_that_there_is(tmp_path: Path) -> None:
    assert names(mixed(), tmp_path / "new" / "figures", finalists=finals()) == [*EVERY, "finalists"]
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


def test_several_objectives(tmp_path: Path) -> None:
    both = finals()
    for one in both:
        one.values["parameters"] = (100.0, 100.0, 100.0)
    found = names(mixed(several=True), tmp_path, TWO, both)
    assert found == [*EVERY, "pareto", "finalists"]
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
        (study(failed(3)), ["timeline"]),
        (random_study(1, by_rate(1e-2)), ["history", "slices"]),
        (random_study(2, by_rate(1e-2)), ["history", "slices", "parallel", "timeline"]),
        (random_study(9, lambda _: 1.0), ["history", "slices", "parallel", "timeline"]),
        (random_study(9, lambda p: 1.0 * (p["model"] == "mlp"), space=CHOICES), EVERY),
        (
            random_study(9, lambda p: p["a"], space=Space({"a": {"low": 0, "high": 9.5}})),
            ["history", "slices", "timeline"],
        ),
        (
            random_study(9, lambda p: float(len(p)), space=Space({"a": ["only"]})),
            ["history", "timeline"],
        ),
    ],
)
def test_what_there_is_not_is_left_out(made, found: list[str], tmp_path: Path) -> None:
    (tmp_path / "parallel.png").write_bytes(b"of an earlier command")
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


def lines_of(figure: Figure | None, axes: int = 0) -> list[np.ndarray]:
    assert figure is not None
    return [np.asarray(line.get_xydata(), dtype=float) for line in figure.axes[axes].lines]


def test_the_best_so_far(tmp_path: Path) -> None:
    made = random_study(12, by_rate(1e-2))
    figure = figures._rows([drawn(made, ONE, 0)], figures._history)
    best = lines_of(figure)[0]
    values = [t.value for t in made.trials]
    assert list(best[:, 1]) == [*np.minimum.accumulate(values), min(values)]
    assert figure is not None
    first = figure.axes[0].lines[1]
    assert set(first.get_ydata()) == {values[0]}


def test_learning_rates_are_on_a_log_scale() -> None:
    figure = slices([drawn(random_study(12, by_rate(1e-2)), ONE, 0)])
    assert figure is not None
    scales = {axes.get_title(loc="left"): axes.get_xscale() for axes in figure.axes}
    assert scales["optimizer.lr"] == "log"
    assert scales["model.dropout"] == scales["model"] == "linear"
    scale = scale_of("optimizer.lr", random_study(3, by_rate(1e-2)).trials)
    assert scale is not None
    assert [scale.label(tick) for tick in scale.ticks()] == ["0.0001", "0.001", "0.01", "0.1"]
    assert scale.share(10**-2.5) == pytest.approx(0.5)


def test_settings_that_some_trials_lack() -> None:
    made = random_study(12, by_rate(1e-2))
    lacking = sum("model.kernel_size" not in t.params for t in made.trials)
    assert lacking
    figure = slices([drawn(made, ONE, 0)])
    assert figure is not None
    (axes,) = [a for a in figure.axes if a.get_title(loc="left") == "model.kernel_size"]
    assert axes.get_title(loc="right") == f"{lacking} without it"
    beside = parallel(drawn(made, ONE, 0))
    assert beside is not None
    assert [t.get_text() for t in beside.axes[0].texts].count("not set") == 1


def test_one_that_diverged_does_not_flatten_the_rest() -> None:
    assert worst_shown([1.0, 2.0, 3.0, 2.0, 1e4], minimize=True) == 3.0
    assert worst_shown([1.0, 2.0, 3.0, 2.0, -1e4], minimize=False) == 1.0
    assert worst_shown([1.0, 2.0, 3.0, 2.0, -1e4], minimize=True) == 3.0
    assert worst_shown([1.0, 1.0, 1.0, 5.0], minimize=True) == 5.0
    figure = figures._rows([drawn(mixed(), ONE, 0)], figures._history)
    assert figure is not None
    assert figure.axes[0].get_ylim()[1] < 10
    assert "worse than the scale" in figure.axes[0].get_title(loc="right")


def test_the_front_is_optunas() -> None:
    made = mixed(several=True)
    figure = pareto(made, TWO)
    front = lines_of(figure)[1]
    assert {tuple(point) for point in front} == {tuple(t.values) for t in made.best_trials}
    assert pareto(random_study(5, by_rate(1e-2)), ONE) is None


def test_numbers_on_the_front_do_not_overlap() -> None:
    trials = [trial(SPACE, {}, [i / 1e3, -i / 1e3]) for i in range(60)]
    figure = pareto(study(trials, "minimize", "minimize"), TWO)
    assert figure is not None
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) > 5
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_long_pauses_are_cut_short() -> None:
    spans = [(0.0, 50.0), (50.0, 100.0), (10_000.0, 10_100.0)]
    pauses = long_pauses(spans)
    assert pauses == [(100.0, 10_000.0)]
    times = [0.0, 100.0, 5_000.0, 10_000.0, 10_100.0]
    assert [shortened(t, spans, pauses) for t in times] == pytest.approx(
        [0, 100, 100 + 4 * 4900 / 9900, 104, 204]
    )
    assert long_pauses([(0.0, 50.0), (51.0, 100.0), (10.0, 40.0)]) == []
    made = random_study(4, by_rate(1e-2))
    trials = made.trials
    for one in trials[2:]:
        one.datetime_start = one.datetime_complete = START + timedelta(days=2)
    ran = clock(study_as_it_is(trials))
    assert ran is not None
    assert ran.unit == "seconds"
    assert "cut short" in ran.label
    assert timeline(study_as_it_is(trials)) is not None


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
    assert all(low <= y <= high for trace in figure.data for y in trace.y)
    assert "RuntimeError: &lt;b&gt;5" in shown["failed"].hovertext[0]


def test_the_page_names_trainings_that_failed(tmp_path: Path) -> None:
    made = mixed()
    failed = [{"trial": 5, "reason": "no <i>memory</i>"}, {"trial": None, "seed": 2, "reason": "x"}]
    found = dataclasses.replace(outcome(made), failed=failed)
    body = page.write(made, ONE, found, tmp_path).read_text().partition("<body>")[2]
    before = body.partition("Settings of the best")[0]  # not hidden below
    assert "no &lt;i&gt;memory&lt;/i&gt;" in before
    assert "As it was, seed 2" in before


def test_the_page_where_nothing_was_better(tmp_path: Path) -> None:
    made = mixed()
    found = outcome(made)
    best = {**found.best, "number": 0, "params": {}}
    text = page.write(made, ONE, dataclasses.replace(found, best=best), tmp_path).read_text()
    assert "the baseline did best." in text
    assert '<th scope="col">As it was</th></tr>' in text
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
    of = drawn(made, accuracy, 0)
    assert of.best.number == made.best_trial.number
    assert page.write(made, accuracy, outcome(made), tmp_path).is_file()
