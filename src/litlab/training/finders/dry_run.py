"""A few training steps whose every trace is undone: what the finders try things with."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from litlab.config.schema import TrainerConfig
from litlab.data.datamodule import ArrayDataModule
from litlab.runs.checkpoint import rng
from litlab.tasks.task import Task

SAME = (  # as in the training that follows
    "accelerator",
    "devices",
    "precision",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "deterministic",
    "benchmark",
)


class DryRun(pl.LightningModule):
    """A copy of a task: its training step and its optimizer, without schedule, metrics, logging.

    Attributes:
        losses: Of each batch so far, on the device.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = deepcopy(task)
        self.losses: list[torch.Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch."""
        loss = self.task.training_step(batch, batch_idx)
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimizer, at its configured rate."""
        return self.task.parts.optimizer(self.task.model)


@contextmanager
def undone() -> Iterator[None]:
    """Leave all random numbers as they were."""
    before = rng.state()
    try:
        yield
    finally:
        rng.restore(before)


def rehearse(
    task: Task, data: ArrayDataModule, config: TrainerConfig, steps: int, callback: Callback
) -> DryRun:
    """Train a copy for a number of optimizer steps; the task and all generators stay as they are.

    Raises:
        KeyboardInterrupt: Ctrl-C, which Lightning would turn into an exit.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with undone(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the training that follows will say the same
        copy = DryRun(task)
        trainer = pl.Trainer(
            **{name: getattr(config, name) for name in SAME},
            max_steps=steps,
            limit_val_batches=0,
            callbacks=[callback],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        arrays = data.arrays
        try:
            trainer.fit(copy, datamodule=data)
        except SystemExit:
            raise KeyboardInterrupt from None
        finally:
            data.trainer, data.arrays = None, arrays  # which may have gone to the device
            data.preprocess.to(torch.device("cpu"))
    return copy
