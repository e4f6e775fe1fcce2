"""The learning-rate range test: how the loss answers to ever larger steps."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

from litlab.config.schema import TrainerConfig
from litlab.data.datamodule import ArrayDataModule
from litlab.tasks.task import Task
from litlab.training.finders.dry_run import DryRun, rehearse

LOWEST, HIGHEST, STEPS = 1e-7, 10.0, 100
DIVERGED = 4.0  # times the smallest loss so far, of means over RECENT steps
RECENT = 5
WIDTH = 3.0  # of the smoothing, in steps: standard deviation
FEWEST = 10  # steps that a curve must have
FILES = ("lr_find.csv", "lr_find.png")


@dataclass(frozen=True)
class Curve:
    """Losses by learning rate.

    Attributes:
        lrs: `(S,)`, rising by a constant factor.
        losses: `(S,)`, each before the step that is taken at its rate.
        smoothed: `(S,)`.
        suggestion: The rate at which the smoothed loss falls fastest; None where it never falls.
    """

    lrs: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    suggestion: float | None

    def save(self, folder: Path) -> list[Path]:
        """Write the curve as CSV and PNG, and return the files."""
        from litlab.report.figures import save_png
        from litlab.report.lr_curve import draw

        table, picture = (folder / name for name in FILES)
        with table.open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["lr", "loss", "smoothed"])
            rows.writerows(zip(self.lrs, self.losses, self.smoothed, strict=True))
        save_png(draw(self.lrs, self.losses, self.smoothed, self.suggestion), picture)
        return [table, picture]


def find_lr(task: Task, data: ArrayDataModule, config: TrainerConfig) -> Curve:
    """Take up to 100 steps at learning rates from 1e-7 to 10, and suggest one.

    Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3; the rates
    grow by a constant factor, as usual since, not by a constant step. It ends where the loss has
    grown to four times its smallest. The steps are taken by a copy; weights, optimizer and
    random numbers stay as they are.
    """
    sweep = Sweep(np.geomspace(LOWEST, HIGHEST, STEPS))
    rehearse(task, data, config, STEPS, sweep)
    return curve(sweep.lrs[: len(sweep.losses)], np.array(sweep.losses))


class Sweep(Callback):
    """Sets each optimizer step's rate, and notes the loss before it."""

    def __init__(self, lrs: NDArray[np.float64]) -> None:
        self.lrs, self.losses = lrs, list[float]()
        self._smallest = math.inf

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Note the mean loss of the step's batches; set its rate; end where it has diverged."""
        assert isinstance(pl_module, DryRun)
        step = len(self.losses)
        loss = torch.stack(pl_module.losses).mean().item()
        pl_module.losses.clear()
        for group in optimizer.param_groups:
            group["lr"] = float(self.lrs[step]) * group.get("lr_scale", 1.0)
        if math.isfinite(loss):
            self.losses.append(loss)
        recent = float(np.mean(self.losses[-RECENT:])) if self.losses else math.inf
        self._smallest = min(self._smallest, recent)
        if not math.isfinite(loss) or recent > DIVERGED * self._smallest:
            trainer.should_stop = True


def curve(lrs: NDArray[np.float64], losses: NDArray[np.float64]) -> Curve:
    """Smooth the losses, and find where they fall fastest by the logarithm of the rate.

    Smoothed by a Gaussian over neighbouring steps, which has no lag; fast.ai's moving average
    points to rates that are too large by what it lags behind.
    """
    if len(losses) < FEWEST:
        return Curve(lrs, losses, losses, None)
    # What the divergence at the end rises to says nothing of where it began.
    capped = np.minimum(losses, max(DIVERGED * losses.min(), losses[0]))
    smoothed = smooth(capped, WIDTH)
    slopes = np.gradient(smoothed, np.log(lrs))
    steepest = int(np.argmin(slopes))
    # A loss that only trembles falls somewhere, too.
    falls = smoothed[0] - smoothed.min() > 1.5 * np.std(losses[:FEWEST])
    return Curve(lrs, losses, smoothed, float(lrs[steepest]) if falls else None)


def smooth(values: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Return a Gaussian's mean around each value; the first and last are repeated beyond."""
    reach = math.ceil(4 * width)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), kernel / kernel.sum(), "valid")
