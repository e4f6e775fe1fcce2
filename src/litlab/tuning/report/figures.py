"""The figures of a study: plotly's on its page, a few as PNG files; most are Optuna's own."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from matplotlib import rc_context
from matplotlib.figure import Figure
from optuna import visualization
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

from litlab.report import figures as report
from litlab.report.figures import BLUE, GREY, ORANGE, tidy
from litlab.tuning.report.importances import (
    GOOD,
    Importance,
    baseline_of,
    completed,
    first_trial,
    importances,
)
from litlab.tuning.results.outcome import Finalist
from litlab.tuning.study.settings import Objective

COLOURS = [BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", GREY]  # Okabe and Ito's
FAR = " Double-click to include the much worse ones."
MOST = 3  # objectives that one figure can show against each other
PANEL, HEIGHT, DPI = 300, 430, 130  # pixels, pixels, pixels an inch
STATES: dict[TrialState, tuple[str, dict[str, Any]]] = {
    TrialState.COMPLETE: ("completed", {"color": BLUE, "size": 8}),
    TrialState.PRUNED: ("pruned", {"color": GREY, "size": 8, "symbol": "x-thin-open"}),
    TrialState.FAIL: ("failed", {"color": ORANGE, "size": 10, "symbol": "triangle-up-open"}),
}
LONGEST = 160  # characters of a reason


@dataclass(frozen=True)
class Drawing:
    """A figure of the page.

    Attributes:
        title: Its heading.
        note: What it shows.
        figures: Plotly's: side by side where there is room.
    """

    title: str
    note: str
    figures: list[go.Figure]


@dataclass(frozen=True)
class _View:
    """One objective of a study, and the part of its values' axis that is worth a look.

    Attributes:
        whole: Trials that were completed.
        bounds: Of the axis, around the best and the worst value that is no outlier.
        is_log: Whether a log scale shows more.
        far: How many are worse.
    """

    study: optuna.Study
    objective: Objective
    index: int
    whole: list[FrozenTrial]
    values: list[float]
    bounds: tuple[float, float]
    is_log: bool
    far: int

    @property
    def target(self) -> Callable[[FrozenTrial], float] | None:
        """What Optuna needs to be told if the study has several objectives."""
        index = self.index
        return (lambda t: float(t.values[index])) if len(self.study.directions) > 1 else None

    @property
    def paths(self) -> list[str]:
        """The settings that vary, in the order of the trials."""
        varied = {p: d for t in self.whole for p, d in t.distributions.items()}
        return [path for path, distribution in varied.items() if not distribution.single()]

    @property
    def common(self) -> list[str]:
        """Those of them that all completed trials have."""
        return [path for path in self.paths if all(path in t.params for t in self.whole)]


def _views(study: optuna.Study, objectives: Sequence[Objective]) -> list[_View]:
    """Return the objectives that a trial has a value of."""
    found = []
    for index, objective in enumerate(objectives):
        whole, minimize = completed(study, index), objective.direction == "minimize"
        if not whole:
            continue
        values = [float(t.values[index]) for t in whole]
        ends = [*values, *(value for _, value in _pruned(study))]
        best, worst = (min if minimize else max)(ends), worst_shown(values, minimize)
        far = sum(v > worst if minimize else v < worst for v in ends)
        low, high = min(best, worst), max(best, worst)
        is_log = minimize and 0 < 30 * low < high
        if is_log:
            ratio = (high / low) ** 0.07
            bounds = low / ratio, high * ratio
        else:
            room = 0.07 * (high - low) or 0.05 * abs(low) or 1.0
            bounds = low - room, high + room
        found.append(_View(study, objective, index, whole, values, bounds, is_log, far))
    return found


def worst_shown(values: Sequence[float], minimize: bool) -> float:
    """Return the worst value that an axis has to show.

    Beyond are those outside Tukey's outer fences on the worse side: one trial that diverged would
    flatten the rest.
    """
    own = np.asarray(values)
    q1, q3 = np.quantile(own, [0.25, 0.75])
    room = 3 * (q3 - q1) or math.inf
    return float(own[own <= q3 + room].max() if minimize else own[own >= q1 - room].min())


def _pruned(study: optuna.Study) -> list[tuple[FrozenTrial, float]]:
    """Return pruned trials with the last value that each reported."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    last = [(t, t.intermediate_values[max(t.intermediate_values)]) for t in trials
            if t.intermediate_values and len(study.directions) == 1]  # fmt: skip
    return [(trial, float(value)) for trial, value in last if math.isfinite(value)]


def drawings(study: optuna.Study, objectives: Sequence[Objective]) -> Iterator[Drawing]:
    """Yield the figures of the page for which there is something to draw.

    Args:
        study: With trials.
        objectives: What it looked for, in the study's order.
    """
    views = _views(study, objectives)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if 1 < len(objectives) <= MOST and len(views) == len(objectives):
            yield _pareto(views)
        for view in views:
            yield from _of_objective(view)
        if len(views) == len(objectives) == 1:
            yield from _curves(views[0])
        if len(_ended(study)) > 1:
            note = "When each trial ran, and how it ended; pauses between two commands are cut out."
            yield Drawing("Timeline", note, [_timeline(study)])


def html(drawing: Drawing, name: str) -> str:
    """Return a figure as a part of a page that has plotly.js.

    Args:
        drawing: The figure.
        name: Of its place in the page.
    """
    small = len(drawing.figures) > 1
    figures = (_html(f, f"{name}-{i}", small) for i, f in enumerate(drawing.figures))
    return "".join(f"<div>{figure}</div>" for figure in figures)


def _html(figure: go.Figure, name: str, small: bool) -> str:
    margin = {"t": 40, "r": 20, "b": 60, "l": 60}
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}  # takes no width
    figure.update_layout(template="plotly_white", title=None, margin=margin, colorway=COLOURS)
    figure.update_layout(legend=legend)
    height = figure.layout.height or (PANEL if small else HEIGHT)
    # Plotly's bar of buttons has one that uploads the figure to its makers.
    config = {"showSendToCloud": False, "plotlyServerURL": "", "displaylogo": False}
    config |= {"responsive": True, "displayModeBar": False if small else None}
    size = {"default_height": f"{height}px"}
    return str(figure.to_html(config, include_plotlyjs=False, full_html=False, div_id=name, **size))


def _of_objective(view: _View) -> Iterator[Drawing]:
    study, name, far = view.study, view.objective.name, FAR if view.far else ""
    note = f"Every trial that has ended, and the best so far.{far}"
    yield Drawing(f"History of {name}", note, [_history(view)])
    found = importances(study, view.index)
    if len(found) > 1:
        note = "Shares of 1 (PED-ANOVA) with 90 % bootstrap intervals; overlapping ones may tie."
        yield Drawing(f"What mattered for {name}", note, [_bars(found)])
    target: dict[str, Any] = {"target_name": name, "target": view.target}
    panels = [visualization.plot_slice(study, params=[path], **target) for path in view.paths]
    for panel in panels:
        panel.update_traces(marker_showscale=False)
        panel.update_yaxes(title=None, range=list(view.bounds) if view.far else None)
    if panels:
        yield Drawing(f"{name} by each setting", f"Darker dots are later trials.{far}", panels)
    if len(view.common) > 1:
        if view.objective.direction == "minimize":
            # Told a target, Optuna takes less for better: so not of a metric that is to grow.
            worst = max(v for v in view.values if v <= view.bounds[1])
            target["target"] = lambda t: min(float(t.values[view.index]), worst)
        figure = visualization.plot_parallel_coordinate(study, params=view.common, **target)
        note = "One line per completed trial, over the settings that all have."
        yield Drawing(f"Settings in combination, by {name}", note, [figure])


def _history(view: _View) -> go.Figure:
    """Draw every trial that has ended, which Optuna's own history does not, and the best so far."""
    figure, minimize = go.Figure(), view.objective.direction == "minimize"
    failed = view.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    pruned, numbers = _pruned(view.study), [t.number for t in view.whole]
    so_far = list((np.minimum if minimize else np.maximum).accumulate(view.values))
    last = max([*numbers, *(t.number for t, _ in pruned), *(t.number for t in failed)])
    line = {"shape": "hv", "color": ORANGE, "width": 2}
    steps = {"x": [*numbers, last], "y": [*so_far, so_far[-1]]}
    figure.add_scatter(**steps, mode="lines", line=line, name="best so far", hoverinfo="skip")
    if numbers[0] == 0:
        what = {"line_dash": "dash", "line_color": GREY, "annotation_text": first_trial(view.study)}
        figure.add_hline(view.values[0], **what)
    _dots(figure, [(t, v, f"{v:.4g}") for t, v in zip(view.whole, view.values, strict=True)])
    _dots(figure, [(t, v, f"{v:.4g}") for t, v in pruned])
    worst = view.bounds[1] if minimize else view.bounds[0]  # a failed trial has no value
    _dots(figure, [(t, worst, str(t.user_attrs.get("failed", ""))) for t in failed])
    ends = [math.log10(end) for end in view.bounds] if view.is_log else list(view.bounds)
    kind = "log" if view.is_log else "linear"
    figure.update_yaxes(type=kind, range=ends, title=view.objective.name)
    return figure.update_xaxes(title="trial")


def _dots(figure: go.Figure, dots: Sequence[tuple[FrozenTrial, float, str]]) -> None:
    """Add trials of one state, which say on hovering what they came to."""
    if dots:
        name, marker = STATES[dots[0][0].state]
        hover = [f"trial {t.number}, {name}<br>{escape(s[:LONGEST])}" for t, _, s in dots]
        style = {"mode": "markers", "marker": marker, "cliponaxis": False, "hoverinfo": "text"}
        xs, ys = [t.number for t, _, _ in dots], [y for _, y, _ in dots]
        figure.add_scatter(x=xs, y=ys, name=name, hovertext=hover, **style)


def _bars(found: Sequence[Importance]) -> go.Figure:
    """Draw importances with their intervals, which Optuna's own have not."""
    values, names = [i.value for i in found], [i.path for i in found]
    ends = {"type": "data", "symmetric": False, "array": [i.high - i.value for i in found]}
    ends["arrayminus"] = [i.value - i.low for i in found]
    bars = go.Bar(x=values, y=names, error_x=ends, orientation="h", marker_color=BLUE)
    figure = go.Figure(bars).update_layout(height=140 + 34 * len(found))
    figure.update_xaxes(range=[0, 1], title="share of the importance")
    return figure.update_yaxes(autorange="reversed", automargin=True)


def _pareto(views: Sequence[_View]) -> Drawing:
    names = [view.objective.name for view in views]
    figure = visualization.plot_pareto_front(views[0].study, target_names=names)
    note = "Best trials: no other is better in all objectives."
    if len(views) == 2:
        best = views[0].study.best_trials
        for view, update in zip(views, (figure.update_xaxes, figure.update_yaxes), strict=True):
            front = [float(t.values[view.index]) for t in best]
            low, high = min(view.bounds[0], *front), max(view.bounds[1], *front)
            update(range=[low, high])
        note += FAR if any(view.far for view in views) else ""
    return Drawing("Trade-offs", note, [figure])


def _curves(view: _View) -> Iterator[Drawing]:
    trials = view.study.get_trials(deepcopy=False)
    reported = [v for t in trials for v in t.intermediate_values.values()]
    if not reported:
        return
    figure = visualization.plot_intermediate_values(view.study)
    figure.for_each_trace(lambda trace: trace.update(x=[epoch + 1 for epoch in trace.x]))
    log = min(reported) > 0 and max(reported) > 30 * min(reported)
    figure.update_yaxes(title=view.objective.name, type="log" if log else "linear")
    figure.update_xaxes(title="epoch")
    yield Drawing("Learning curves", "Each trial by epoch; pruned ones end early.", [figure])


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False, states=tuple(STATES))
    return [t for t in trials if t.datetime_start and t.datetime_complete]


def _timeline(study: optuna.Study) -> go.Figure:
    figure = visualization.plot_timeline(study)
    for state, (name, marker) in STATES.items():
        figure.update_traces({"name": name, "marker_color": marker["color"]}, {"name": state.name})
    spans = [(t.datetime_start, t.datetime_complete) for t in _ended(study)]
    pauses = [[str(a), str(b)] for a, b in long_pauses(spans)]
    figure.update_xaxes(title=None, rangebreaks=[{"bounds": bounds} for bounds in pauses])
    return figure.update_yaxes(title="trial", autorange="reversed")


def long_pauses(spans: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return when no trial ran for longer than a twentieth of the time in which any ran.

    Args:
        spans: Start and end of each trial, as times or as numbers.
    """
    pauses, end = [], min(start for start, _ in spans)
    busy = end - end
    for start, stop in sorted(spans):
        if start > end:
            pauses.append((end, start))
        busy += max(end - end, stop - max(start, end))
        end = max(end, stop)
    return [(a, b) for a, b in pauses if b - a > busy / 20]


def write(
    study: optuna.Study,
    objectives: Sequence[Objective],
    finalists: Sequence[Finalist],
    folder: Path,
) -> list[Path]:
    """Draw a study as PNG files, and return them: those for which there is something to draw.

    What is better looked at on the page (timeline, parallel coordinates, curves) is there alone.

    Args:
        study: With trials.
        objectives: What it looked for, in the study's order.
        finalists: The best, trained again; may be empty.
        folder: Where to; made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()  # of an earlier command, and perhaps no longer so
    found = []
    with warnings.catch_warnings(), rc_context():  # Optuna's figures set a style
        warnings.simplefilter("ignore")
        for name, figure in _figures(study, objectives, finalists):
            path = folder / f"{name}.png"
            figure.set_facecolor("white")
            path.write_bytes(report.png(figure, DPI, crop=True))
            found.append(path)
    return found


def _figures(
    study: optuna.Study, objectives: Sequence[Objective], finalists: Sequence[Finalist]
) -> Iterator[tuple[str, Figure]]:
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    def drawn(axes: Any, view: _View | None = None) -> Figure:
        every = np.atleast_1d(axes)
        if view is not None:
            every[0].set_ylim(*view.bounds)
            every[0].set_yscale("log" if view.is_log else "linear")
        figure: Figure = every[0].figure
        pyplot.close(figure)
        return figure

    if finalists:  # first, for Optuna's set another style
        yield "finalists", _finalists(objectives, finalists)
    views = _views(study, objectives)
    for view in views:
        end = f"-{view.index + 1}" if view.index else ""
        target: dict[str, Any] = {"target": view.target, "target_name": view.objective.name}
        axes = plots.plot_optimization_history(study, **target)
        yield f"history{end}", drawn(axes, view)
        if len(importances(study, view.index)) > 1:
            evaluator = PedAnovaImportanceEvaluator(target_quantile=GOOD)
            axes = plots.plot_param_importances(study, evaluator=evaluator, **target)
            yield f"importances{end}", drawn(axes)
        if view.paths:
            yield f"slices{end}", drawn(plots.plot_slice(study, view.paths, **target), view)
    if 1 < len(objectives) <= MOST and len(views) == len(objectives):
        names = [o.name for o in objectives]
        yield "pareto", drawn(plots.plot_pareto_front(study, target_names=names))


def _finalists(objectives: Sequence[Objective], finalists: Sequence[Finalist]) -> Figure:
    height = 1.0 + 0.45 * len(finalists)
    figure = Figure(figsize=(8.0, height * len(objectives) + 0.3), layout="constrained")
    first = baseline_of(finalists)
    for row, objective in enumerate(objectives):
        axes, name = figure.add_subplot(len(objectives), 1, row + 1), objective.name
        for y, one in enumerate(finalists):
            mean, ends = one.mean(name), one.interval(name) or (one.mean(name),) * 2
            axes.plot(ends, [y, y], color=BLUE, linewidth=2.2)
            axes.plot(mean, y, "o", color=BLUE, markersize=7, label="mean, 95 % interval")
            seeds = one.values[name]
            axes.plot(seeds, [y] * len(seeds), "o", color=GREY, markersize=4, label="one new seed")
        if first is not None:
            style: dict[str, Any] = {
                "color": ORANGE,
                "linestyle": "--",
                "label": "mean of the baseline",
            }
            axes.axvline(first.mean(name), **style)
        axes.set_yticks(range(len(finalists)), [f.label for f in finalists])
        axes.set_ylim(len(finalists) - 0.4, -0.6)
        better = "less" if objective.direction == "minimize" else "more"
        axes.set_title(f"{better} is better", loc="right", fontsize=9, color=GREY)
        axes.set_title(name, loc="left", fontweight="bold", fontsize=11, parse_math=False)
        tidy(axes)
    marks = dict(zip(*figure.axes[0].get_legend_handles_labels()[::-1], strict=True))
    figure.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure
