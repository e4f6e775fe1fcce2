"""What a study looks for: a validation metric, and what it may cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torchmetrics import Metric

from litlab.tasks.metrics import direction
from litlab.utils.errors import ConfigError, nearest
from litlab.utils.output import number

COSTS = {  # by the name a trial's result has them under
    "parameters": "trainable parameters",
    "latency": "milliseconds of one forward pass of one sample",
    "seconds": "seconds of training",
}


@dataclass(frozen=True)
class Objective:
    """One of the things a study looks for.

    Attributes:
        name: A validation metric such as "val/accuracy", or one of `COSTS`.
        direction: Which way is better.
    """

    name: str
    direction: Literal["minimize", "maximize"]

    def value(self, said: Mapping[str, Any]) -> float:
        """Return it of a trial that has ended: a metric at the best epoch.

        Raises:
            KeyError: The training has no such metric.
        """
        return float(said[self.name] if self.name in COSTS else said["metrics"][self.name])


def shown(name: str, value: float) -> str:
    """Return an objective's value for a person: parameters are counted."""
    return f"{value:,.0f}" if name == "parameters" else number(value)


def objectives_of(names: Sequence[str], metrics: Mapping[str, Metric]) -> list[Objective]:
    """Return what a study looks for; which way is better, a metric knows itself.

    Args:
        names: The first of them is the monitored metric; none appears twice.
        metrics: Those of the task, by name.

    Raises:
        ConfigError: One does not exist, or is not a validation metric.
    """
    known = [f"val/{name}" for name in ("loss", *metrics)] + list(COSTS)
    for name in names:
        if name not in known:
            what = f"'{name}' is not a validation metric of this task, nor a cost"
            raise ConfigError(what, "study.objectives", nearest(name, known))
    return [
        Objective(name, "maximize" if direction(name, metrics) == "max" else "minimize")
        for name in names
    ]
