"""The pictures of a study, as PNG files."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from litlab.report.canvas import cut
from litlab.report.panels import BLUE, GREY, ORANGE, png, tidy
from litlab.report.words import number
from litlab.tuning.report.drawn import TITLE, Drawn, drawn, legend_marks, mark, trial_marks
from litlab.tuning.report.fronts import pareto
from litlab.tuning.report.importances import importances
from litlab.tuning.report.paired import as_it_was
from litlab.tuning.report.parallel import parallel
from litlab.tuning.report.slices import slices
from litlab.tuning.report.timeline import timeline
from litlab.tuning.results.outcome import Finalist
from litlab.tuning.study.objectives import Objective

DPI = 130
WIDTH = 8.0  # inches


def write(
    study: optuna.Study,
    objectives: Sequence[Objective],
    finalists: Sequence[Finalist],
    folder: Path,
) -> list[Path]:
    """Draw a study, and return the files: those for which there is something to draw.

    Args:
        study: With trials.
        objectives: What it looked for, in the study's order.
        finalists: The best, trained again; may be empty.
        folder: Where to; made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, figure in _figures(study, objectives, finalists):
        path = folder / f"{name}.png"
        if figure is None:
            path.unlink(missing_ok=True)  # of an earlier command, and no longer so
            continue
        path.write_bytes(png(figure, DPI))
        found.append(path)
    return found


def _figures(
    study: optuna.Study, objectives: Sequence[Objective], finalists: Sequence[Finalist]
) -> Iterator[tuple[str, Figure | None]]:
    every = [drawn(study, objectives, i) for i in range(len(objectives))]
    every = [of for of in every if of.whole]
    yield "history", _rows(every, _history)
    yield "importances", _importances(study, objectives)
    yield "slices", slices(every)
    yield "parallel", parallel(every[0]) if every else None
    yield "timeline", timeline(study)
    yield "pareto", pareto(study, objectives)
    yield "finalists", _finalists(objectives, finalists)


def _rows(every: Sequence[Drawn], draw: Callable[[Axes, Drawn], None]) -> Figure | None:
    if not every:
        return None
    figure = Figure(figsize=(WIDTH, 3.9 * len(every)), layout="constrained", facecolor="white")
    for place, of in enumerate(every):
        draw(figure.add_subplot(len(every), 1, place + 1), of)
    return figure


def _history(axes: Axes, of: Drawn) -> None:
    """Draw each trial's value, the best so far, and the baseline."""
    numbers = [t.number for t in of.whole]
    marks = legend_marks(of)
    so_far = (np.minimum if of.minimize else np.maximum).accumulate(of.values)
    last = max([*numbers, *(t.number for t, _ in of.pruned), *(t.number for t in of.failed)])
    ys = [of.at(v) for v in [*so_far, so_far[-1]]]
    axes.step([*numbers, last], ys, where="post", color=ORANGE, linewidth=1.6)
    marks.append(mark("best so far", color=ORANGE))
    if numbers[0] == 0:
        first = of.value(of.whole[0])
        axes.axhline(of.at(first), color=GREY, linestyle="--", linewidth=1.2)
        marks.append(mark(f"{of.first}: {number(first)}", color=GREY, ls="--", linewidth=1.2))
    trial_marks(axes, of, numbers, [t.number for t, _ in of.pruned])
    of.frame(axes)
    if of.failed:
        low = axes.get_ylim()[0]
        xs = [t.number for t in of.failed]
        axes.plot(xs, [low] * len(xs), "^", color=ORANGE, markersize=7, mfc="white", clip_on=False)
        marks.append(mark("failed", color=ORANGE, marker="^", ls="", mfc="white", markersize=7))
    beyond = sum(of.at(v) != v for v in [*of.values, *(v for _, v in of.pruned)])
    note = f"best {number(of.value(of.best))}, trial {of.best.number}"
    note += f"; {beyond} worse than the scale, at its edge" if beyond else ""
    axes.set_title(note, loc="right", fontsize=9, color=GREY)
    axes.set_title(of.objective.name, **TITLE)
    axes.set_xlabel("trial")
    axes.set_xlim(-0.02 * last - 0.5, max(1.02 * last + 0.5, 1.5))
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    axes.legend(
        handles=marks, frameon=False, fontsize=9, ncols=3, loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
    )  # fmt: skip


def _importances(study: optuna.Study, objectives: Sequence[Objective]) -> Figure | None:
    every = [(o, importances(study, i)) for i, o in enumerate(objectives)]
    every = [(o, found) for o, found in every if len(found) > 1]
    if not every:
        return None
    heights = [0.9 + 0.34 * len(found) for _, found in every]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.3), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(every), 1, height_ratios=heights)
    for row, (objective, found) in enumerate(every):
        axes = figure.add_subplot(grid[row, 0])
        ys, values = range(len(found)), [i.value for i in found]
        axes.barh(ys, values, color=BLUE, alpha=0.85, height=0.6)
        ends = [[i.value - i.low for i in found], [i.high - i.value for i in found]]
        axes.errorbar(values, ys, xerr=ends, fmt="none", ecolor="#222222", capsize=3, lw=1.2)
        axes.set_yticks(ys, [cut(i.path, 44) for i in found], parse_math=False)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_title(f"what mattered for {objective.name}", **TITLE)
        tidy(axes)
        axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of the importance (PED-ANOVA), with its 90 % bootstrap interval")
    return figure


def _finalists(objectives: Sequence[Objective], finalists: Sequence[Finalist]) -> Figure | None:
    if not finalists:
        return None
    height = 1.0 + 0.45 * len(finalists)
    size = (WIDTH, height * len(objectives) + 0.3)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    for row, objective in enumerate(objectives):
        axes = figure.add_subplot(len(objectives), 1, row + 1)
        _finalist_rows(axes, objective, finalists)
    marks = [
        mark("mean, 95 % interval", color=BLUE, marker="o", markersize=7),
        mark("one new seed", color=GREY, marker="o", ls="", markersize=4),
    ]
    if as_it_was(finalists) is not None:
        marks.append(mark("mean of the baseline", color=ORANGE, ls="--"))
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _finalist_rows(axes: Axes, objective: Objective, finalists: Sequence[Finalist]) -> None:
    for y, finalist in enumerate(finalists):
        values, mean = finalist.values[objective.name], finalist.mean(objective.name)
        between = finalist.interval(objective.name)
        if between is not None:
            axes.plot(between, [y, y], color=BLUE, linewidth=2.2, solid_capstyle="butt")
        axes.plot([mean], [y], "o", color=BLUE, markersize=7, zorder=3)
        axes.plot(values, [y] * len(values), "o", color=GREY, markersize=4, alpha=0.9, zorder=4)
    first = as_it_was(finalists)
    if first is not None:
        mean = first.mean(objective.name)
        axes.axvline(mean, color=ORANGE, linestyle="--", linewidth=1.2, zorder=1)
    names = [f.label for f in finalists]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    better = "less" if objective.direction == "minimize" else "more"
    axes.set_title(objective.name, **TITLE)
    axes.set_title(f"{better} is better", loc="right", fontsize=9, color=GREY)
    tidy(axes)
    axes.grid(visible=False, axis="y")
