"""What the loop and the callback that saves its checkpoints know of each other."""

from typing import Protocol

import lightning.pytorch as pl


class Stopped(BaseException):
    """The fit was asked to stop, and has saved what it had."""


class Checkpoints(Protocol):
    """What the loop tells about its progress; see `litlab.training.callbacks.checkpoint`."""

    def epoch_resumed(self, trainer: pl.Trainer) -> None:
        """An epoch is about to go on where it was interrupted."""

    def batch_done(self, trainer: pl.Trainer) -> None:
        """All of a batch is done, and the optimizer's step with it.

        Raises:
            Stopped: The fit was asked to end here.
        """

    def epoch_done(self, trainer: pl.Trainer) -> None:
        """All of an epoch is done: hooks, metrics, schedulers.

        Raises:
            Stopped: The fit was asked to end here.
        """

    def fit_done(self, trainer: pl.Trainer) -> None:
        """The last epoch is done."""
