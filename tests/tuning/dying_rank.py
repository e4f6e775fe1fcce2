"""A loss at which one process of a trial dies: a user's own, found by `trust`."""

import os
import signal
from pathlib import Path

from torch import Tensor

from litlab.data.spec import DataSpec
from litlab.tasks.losses.classification import CrossEntropy


class Dies(CrossEntropy):
    """Kills the process of a rank, or raises there, when it is computed for the `at`-th time.

    Args:
        rank: Whose.
        at: When.
        raises: Whether it raises, every time, instead of being killed, once.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        rank: int,
        at: int,
        raises: bool = False,
        label_smoothing: float = 0.0,
        class_weights: None = None,
    ) -> None:
        super().__init__(spec)
        self.rank, self.at, self.raises, self.calls = rank, at, raises, 0

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Die, or return the loss."""
        self.calls += 1
        if self.calls == self.at and int(os.environ.get("LOCAL_RANK", "0")) == self.rank:
            if self.raises:
                raise RuntimeError("bad sample")
            if not Path("died").exists():
                Path("died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(logits, target)
