"""Which epoch of a run is the best: the one place that decides, and remembers."""

from typing import Any


class BestEpoch:
    """The first epoch with the best monitored value.

    The checkpoint callback updates it, in every process; the recorder reads it.

    Args:
        monitor: Name of the monitored value, such as "val/loss".
        mode: "min" or "max": which way it gets better.

    Attributes:
        value: The best value so far.
        epoch: Its epoch, counted from 0; None before the first.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor, self.mode = monitor, mode
        self.value: float | None = None
        self.epoch: int | None = None

    def update(self, value: float, epoch: int) -> bool:
        """Take the value of an epoch into account; return whether it is the best so far."""
        sign = -1.0 if self.mode == "max" else 1.0
        if self.value is not None and sign * value >= sign * self.value:
            return False
        self.value, self.epoch = value, epoch
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"best": self.value, "best_epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.value, self.epoch = state["best"], state["best_epoch"]
