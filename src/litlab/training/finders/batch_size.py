"""How large a batch fits: doubled until memory, the data or a limit ends it."""

import csv
import gc
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from litlab.config.schema import Config
from litlab.data.datamodule import ArrayDataModule
from litlab.tasks.memory import free_memory, is_out_of_memory, peak, resident
from litlab.tasks.task import Task
from litlab.training.finders.dry_run import rehearse
from litlab.utils.errors import ConfigError

STEPS = 3  # optimizer steps with each size; the first is not timed
SHARE = 0.8  # of the memory that is free, on the CPU
MIB = 2**20
FILE = "batch_size_find.csv"


@dataclass(frozen=True)
class Trial:
    """A batch size that was tried.

    Attributes:
        batch_size: Samples of a batch.
        fits: Whether the steps could be taken.
        samples_per_second: How fast they were; 0 if they were not.
        memory: The most that was in use meanwhile, MiB; of the process, or on the GPU.
    """

    batch_size: int
    fits: bool
    samples_per_second: float
    memory: float


@dataclass(frozen=True)
class BatchSizes:
    """All sizes that were tried, in their order, and the largest that fits."""

    trials: tuple[Trial, ...]
    batch_size: int
    ended_by: str

    def save(self, folder: Path) -> list[Path]:
        """Write the trials as CSV, and return the file."""
        path = folder / FILE
        with path.open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow([field.name for field in fields(Trial)])
            rows.writerows(asdict(trial).values() for trial in self.trials)
        return [path]


def find_batch_size(task: Task, data: ArrayDataModule, config: Config) -> BatchSizes:
    """Double the configured batch size until it does not fit; halve it if it does not.

    Three steps are taken with each, by a copy; everything stays as it was. On the CPU, where
    running out of memory ends the process and others with it, a size is not tried if twice the
    memory of the one before would be more than 80 % of what is free.

    Raises:
        ConfigError: Not even a batch of one sample fits.
    """
    limit, why = len(data.arrays["train"]), "the number of samples"
    if config.trainer.batch_size_limit and config.trainer.batch_size_limit < limit:
        limit, why = config.trainer.batch_size_limit, "trainer.batch_size_limit"
    memory = _Memory(config)
    size = min(config.loader.batch_size, limit)
    trials = [_try(task, data, config, size, memory)]
    while size > 1 and not any(trial.fits for trial in trials):
        size //= 2
        trials.append(_try(task, data, config, size, memory))
    if not any(trial.fits for trial in trials):
        what = "not even a batch of one sample fits into memory"
        raise ConfigError(what, "trainer.batch_size_find", "use a smaller model")
    if len(trials) > 1:
        return BatchSizes(tuple(trials), size, "memory")
    while 2 * size <= limit:
        if not memory.has_room():
            return BatchSizes(tuple(trials), size, f"{SHARE:.0%} of the free memory")
        trials.append(_try(task, data, config, 2 * size, memory))
        if not trials[-1].fits:
            return BatchSizes(tuple(trials), size, "memory")
        size *= 2
    return BatchSizes(tuple(trials), size, why)


def _try(task: Task, data: ArrayDataModule, config: Config, size: int, memory: "_Memory") -> Trial:
    clock, before = _Clock(memory.device), data.loader
    memory.begin()
    data.loader = before.model_copy(update={"batch_size": size})
    try:
        rehearse(task, data, config.trainer, STEPS, clock)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Trial(size, False, 0.0, memory.used())
    finally:
        data.loader = before
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    samples = size * config.trainer.accumulate_grad_batches * (STEPS - 1)
    return Trial(size, True, round(samples / clock.seconds, 1), memory.used())


class _Clock(Callback):
    """Times the steps after the first."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.began, self.seconds, self._steps = device, 0.0, 0.0, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Start after the first step, stop after the last."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if self._steps == 1:
            self.began = time.perf_counter()
        self.seconds = max(time.perf_counter() - self.began, 1e-9)


class _Memory:
    """What is in use, and what is free, of the GPU or of the machine."""

    def __init__(self, config: Config) -> None:
        on_gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")
        self._base = resident()
        self._free = free_memory()

    def begin(self) -> None:
        """A trial begins."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def used(self) -> float:
        """Return the most that was in use, MiB."""
        if self.device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self.device) / MIB, 1)
        return round(peak() / MIB, 1)

    def has_room(self) -> bool:
        """Whether twice as much as the last trial took would fit; a GPU may be asked itself."""
        if self.device.type == "cuda":
            return True
        return 2 * (peak() - self._base) <= SHARE * self._free
