"""The pictures of a study that answer to the mouse, for its page."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from litlab.report.panels import BLUE, GREY, ORANGE
from litlab.tuning.report.drawn import Drawn, drawn
from litlab.tuning.report.fronts import shown
from litlab.tuning.report.importances import Importance, importances
from litlab.tuning.report.slices import settings
from litlab.tuning.report.timeline import COLOURS as STATES
from litlab.tuning.report.timeline import TimeAxis, clock
from litlab.tuning.study.objectives import Objective

COLOURS = [BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", GREY]  # Okabe and Ito's
FAR = " Double-click shows those that are far worse, too."
MOST = 3  # objectives that one figure can show against each other
PANEL, HEIGHT = 300, 430  # pixels
MARKERS: dict[TrialState, dict[str, Any]] = {
    TrialState.COMPLETE: {"color": BLUE, "size": 8},
    TrialState.PRUNED: {"color": GREY, "size": 8, "symbol": "x-thin-open"},
    TrialState.FAIL: {"color": ORANGE, "size": 10, "symbol": "triangle-up-open"},
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


def drawings(study: optuna.Study, objectives: Sequence[Objective]) -> Iterator[Drawing]:
    """Yield the figures for which there is something to draw.

    Args:
        study: With trials.
        objectives: What it looked for, in the study's order.
    """
    every = [drawn(study, objectives, i) for i in range(len(objectives))]
    every = [of for of in every if of.whole]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if 1 < len(objectives) <= MOST and len(every) == len(objectives):
            yield _pareto(study, objectives, every)
        for of in every:
            yield from _of_objective(study, of)
        if len(every) == len(objectives) == 1:
            yield from _curves(study, every[0])
        ran = clock(study)
        if ran is not None:
            yield Drawing("Timeline", "When each trial ran, and how it ended.", [_timeline(ran)])


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


def _of_objective(study: optuna.Study, of: Drawn) -> Iterator[Drawing]:
    name = of.objective.name
    several = of.value if len(study.directions) > 1 else None
    target: dict[str, Any] = {"target_name": name, "target": several}
    yield _history(of)
    found = importances(study, of.index)
    if len(found) > 1:
        note = "Shares of 1 (PED-ANOVA) with 90 % bootstrap intervals; what overlaps may be equal."
        yield Drawing(f"What mattered for {name}", note, [_bars(found)])
    paths = [s.path for s in settings(of) if any(s.path in t.params for t in of.whole)]
    if paths:
        panels = [visualization.plot_slice(study, params=[path], **target) for path in paths]
        for panel in panels:
            panel.update_traces(marker_showscale=False)
            panel.update_yaxes(title=None)
        note = "Darker dots are later trials." + [_zoom(panel, of) for panel in panels][0]
        yield Drawing(f"{name} by each setting", note, panels)
    everywhere = [path for path in paths if all(path in t.params for t in of.whole)]
    if len(everywhere) > 1:
        # Told a target, Optuna takes less for better: so not of a metric that is to grow.
        target["target"] = (lambda t: of.at(of.value(t))) if of.minimize else several
        figure = visualization.plot_parallel_coordinate(study, params=everywhere, **target)
        note = "A line for each completed trial; settings that all of them have."
        yield Drawing(f"Settings together, by {name}", note, [figure])


def _history(of: Drawn) -> Drawing:
    """Draw every trial that has ended, and the best so far."""
    figure, (low, high) = go.Figure(), of.bounds
    so_far = (np.minimum if of.minimize else np.maximum).accumulate(of.values)
    pruned, last_values = [t for t, _ in of.pruned], [v for _, v in of.pruned]
    numbers = [t.number for t in of.whole]
    last = max([*numbers, *(t.number for t in [*pruned, *of.failed])])
    line = {"shape": "hv", "color": ORANGE, "width": 2}
    steps = {"x": [*numbers, last], "y": [of.at(v) for v in [*so_far, so_far[-1]]]}
    figure.add_scatter(**steps, mode="lines", line=line, name="best so far", hoverinfo="skip")
    _dots(figure, "completed", of.whole, list(map(of.at, of.values)), of.values)
    _dots(figure, "pruned, at its last value", pruned, list(map(of.at, last_values)), last_values)
    # A failed trial has no value: it stands where the worst ones are.
    reasons = [str(t.user_attrs.get("failed", "")) for t in of.failed]
    _dots(figure, "failed", of.failed, [high if of.minimize else low] * len(reasons), reasons)
    ends = [math.log10(low), math.log10(high)] if of.is_wide else [low, high]
    kind = "log" if of.is_wide else "linear"
    figure.update_yaxes(type=kind, range=ends, title=of.objective.name)
    figure.update_xaxes(title="trial")
    beyond = sum(of.at(v) != v for v in [*of.values, *last_values])
    note = "Every trial that has ended, and the best so far."
    note += f" At the edge: {beyond} worse than the scale." if beyond else ""
    return Drawing(f"History of {of.objective.name}", note, [figure])


def _dots(
    figure: go.Figure,
    name: str,
    trials: Sequence[FrozenTrial],
    ys: Sequence[float],
    said: Sequence[float | str],
) -> None:
    """Add trials of one state, which say on hovering what they came to."""
    if not trials:
        return
    texts = [escape(s[:LONGEST]) if isinstance(s, str) else f"{s:.4g}" for s in said]
    hover = [f"trial {t.number}, {name}<br>{x}" for t, x in zip(trials, texts, strict=True)]
    marker = MARKERS[trials[0].state]
    style = {"mode": "markers", "marker": marker, "cliponaxis": False, "hoverinfo": "text"}
    xs = [t.number for t in trials]
    figure.add_scatter(x=xs, y=ys, name=name, hovertext=hover, **style)


def _zoom(figure: go.Figure, of: Drawn) -> str:
    """Look at where most values are, if some are far worse; return what to say of it."""
    if all(of.at(v) == v for v in of.values):
        return ""
    figure.update_yaxes(range=list(of.bounds))
    return FAR


def _bars(found: Sequence[Importance]) -> go.Figure:
    ends = {
        "type": "data",
        "symmetric": False,
        "array": [i.high - i.value for i in found],
        "arrayminus": [i.value - i.low for i in found],
    }
    values, names = [i.value for i in found], [i.path for i in found]
    bars = go.Bar(x=values, y=names, error_x=ends, orientation="h", marker_color=BLUE)
    figure = go.Figure(bars)
    figure.update_xaxes(range=[0, 1], title="share of the importance")
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_layout(height=140 + 34 * len(found))
    return figure


def _pareto(study: optuna.Study, objectives: Sequence[Objective], every: list[Drawn]) -> Drawing:
    figure = visualization.plot_pareto_front(study, target_names=[o.name for o in objectives])
    note = "Best trials: no other is better in all objectives."
    if len(objectives) == 2:
        front, far = {t.number for t in study.best_trials}, False
        for of, update in zip(every, (figure.update_xaxes, figure.update_yaxes), strict=True):
            values = shown(of.whole, [t.number in front for t in of.whole], of.objective, of.index)
            low, high = float(values.min()), float(values.max())
            room = 0.08 * (high - low) or 1.0
            update(range=[low - room, high + room])
            far = far or list(values) != of.values
        note += FAR if far else ""
    return Drawing("Trade-offs", note, [figure])


def _curves(study: optuna.Study, of: Drawn) -> Iterator[Drawing]:
    reported = [v for t in study.get_trials(deepcopy=False) for v in t.intermediate_values.values()]
    if not reported:
        return
    figure = visualization.plot_intermediate_values(study)
    figure.for_each_trace(lambda trace: trace.update(x=[epoch + 1 for epoch in trace.x]))
    log = min(reported) > 0 and max(reported) > 30 * min(reported)
    figure.update_yaxes(title=of.objective.name, type="log" if log else "linear")
    figure.update_xaxes(title="epoch")
    yield Drawing("Learning curves", "Each trial by epoch; pruned ones end early.", [figure])


def _timeline(ran: TimeAxis) -> go.Figure:
    figure = go.Figure()
    rows = list(zip(ran.trials, ran.spans, strict=True))
    for state, (colour, label) in STATES.items():
        own = [(t, span) for t, span in rows if t.state == state]
        if own:
            widths, starts = [b - a for _, (a, b) in own], [a for _, (a, _) in own]
            ys = [t.number for t, _ in own]
            said = [f"trial {y}: {w:.3g} {ran.unit}" for y, w in zip(ys, widths, strict=True)]
            style = {"orientation": "h", "width": 0.8, "marker_color": colour, "name": label}
            figure.add_bar(x=widths, base=starts, y=ys, hovertext=said, hoverinfo="text", **style)
    for at in ran.pauses:
        figure.add_vline(at, line_dash="dot", line_color=GREY)
    figure.update_xaxes(title=ran.label)
    figure.update_yaxes(title="trial", autorange="reversed")
    figure.update_layout(barmode="overlay", showlegend=True)
    return figure
