"""Values by each setting."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from litlab.report.canvas import cut
from litlab.report.panels import GREY
from litlab.tuning.report.drawn import Drawn, legend_marks, trial_marks
from litlab.tuning.report.scales import ValueScale, scale_of

MOST = 12  # settings
COLUMNS = 3


def slices(every: Sequence[Drawn]) -> Figure | None:
    """Draw each objective by each setting; None where there is no setting or no completed trial.

    Args:
        every: The objectives.
    """
    scales = settings(every[0])[:MOST] if every else []
    if not scales:
        return None
    columns = min(COLUMNS, len(scales))
    rows = math.ceil(len(scales) / columns)
    size = (max(4.8, 3.2 * columns), 2.7 * rows * len(every) + 0.4)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    for i, of in enumerate(every):
        for j, scale in enumerate(scales):
            place = (i * rows + j // columns) * columns + j % columns + 1
            axes = figure.add_subplot(rows * len(every), columns, place)
            _panel(axes, of, scale)
            if j % columns == 0:
                axes.set_ylabel(of.objective.name, parse_math=False, fontsize=9)
    marks = legend_marks(every[0])
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def settings(of: Drawn) -> list[ValueScale]:
    """Return the scales of all settings that vary, in the order of the trials."""
    trials = [*of.whole, *(t for t, _ in of.pruned)]
    paths = dict.fromkeys(path for t in trials for path in t.params)
    return [scale for path in paths if (scale := scale_of(path, trials)) is not None]


def _panel(axes: Axes, of: Drawn, scale: ValueScale) -> None:
    xs = [scale.at(t.params[scale.path]) if scale.path in t.params else math.nan for t in of.whole]
    pruned = [
        scale.at(t.params[scale.path]) if scale.path in t.params else math.nan for t, _ in of.pruned
    ]
    trial_marks(axes, of, xs, pruned)
    of.frame(axes)
    scale.put_on(axes)
    absent = sum(map(math.isnan, xs))
    if absent:
        axes.set_title(f"{absent} without it", loc="right", fontsize=8, color=GREY)
    axes.set_title(
        cut(scale.path, 28 if not absent else 20), loc="left", fontsize=10, parse_math=False
    )
