"""Learning rate and batch size, found before a run begins, and used if that was asked for."""

import csv
import gc
import logging
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

from litlab.config.schema import Config, TrainerConfig
from litlab.data.datamodule import ArrayDataModule
from litlab.runs.checkpoint.metadata import load
from litlab.tasks.build import use_settings
from litlab.tasks.memory import free_memory, is_out_of_memory, peak, resident
from litlab.tasks.task import Task
from litlab.training.preflight import check_with_data
from litlab.utils import seeding
from litlab.utils.errors import ConfigError
from litlab.utils.output import say
from litlab.utils.paths import short

# A few training steps whose every trace is undone: what the finders try things with.


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
    before = seeding.state()
    try:
        yield
    finally:
        seeding.restore(before)


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


# How large a batch fits: doubled until memory, the data or a limit ends it.


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


# The learning-rate range test: how the loss answers to ever larger steps.


LOWEST, HIGHEST, LR_STEPS = 1e-7, 10.0, 100
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
        from litlab.report.figures import draw, save_png

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
    sweep = Sweep(np.geomspace(LOWEST, HIGHEST, LR_STEPS))
    rehearse(task, data, config, LR_STEPS, sweep)
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


def find_settings(
    config: Config, task: Task, data: ArrayDataModule, folder: Path
) -> tuple[Config, list[Path]]:
    """Find what is asked for; return the configuration to train with, and files to keep.

    Args:
        config: What was asked.
        task: Its optimizer is made at the found rate from now on.
        data: Serves batches of the found size from now on.
        folder: The run's.

    Raises:
        ConfigError: Nothing that could be used was found.
    """
    files: list[Path] = []
    if config.trainer.batch_size_find != "off":
        config = _batch_size(config, task, data, folder, files)
    if config.trainer.lr_find != "off":
        config = _learning_rate(config, task, data, folder, files)
    return config, files


def _batch_size(
    config: Config, task: Task, data: ArrayDataModule, folder: Path, files: list[Path]
) -> Config:
    found = find_batch_size(task, data, config)
    files += found.save(folder)
    for trial in found.trials:
        speed = f"{trial.samples_per_second:,.0f} samples/s" if trial.fits else "does not fit"
        say(f"  batches of {trial.batch_size:>6}: {speed}, {trial.memory:,.0f} MiB")
    used = config.trainer.batch_size_find == "use"
    end = "used" if used else f"loader.batch_size={config.loader.batch_size} is kept"
    say(f"largest batch: {found.batch_size}, ended by {found.ended_by}; {end}")
    if not used:
        return config
    loader = config.loader.model_copy(update={"batch_size": found.batch_size})
    config = config.model_copy(update={"loader": loader})
    check_with_data(config, data.spec, task.model)
    data.loader = loader
    return config


def _learning_rate(
    config: Config, task: Task, data: ArrayDataModule, folder: Path, files: list[Path]
) -> Config:
    curve = find_lr(task, data, config.trainer)
    files += curve.save(folder)
    used, before = config.trainer.lr_find == "use", config.optimizer.get("lr")
    if curve.suggestion is None:
        what = "the loss falls at no learning rate from 1e-7 to 10"
        if used:
            fix = f"look at {short(files[-1])}, and set optimizer.lr"
            raise ConfigError(what, "trainer.lr_find", fix)
        say(f"{what}; optimizer.lr={before} is kept")
        return config
    found = float(f"{curve.suggestion:.3g}")
    schedule = config.scheduler["_target_"].rpartition(".")[2]
    if not used:
        say(f"learning rate {found:g} suggested, where the loss falls fastest; {before} is kept")
        return config
    say(f"learning rate {found:g} in place of {before}: optimizer.lr, the largest of {schedule}")
    config = config.model_copy(update={"optimizer": {**config.optimizer, "lr": found}})
    use_settings(task, config)
    return config


def settings_of(config: Config, checkpoint: Path, task: Task, data: ArrayDataModule) -> Config:
    """Return a configuration with what was found when the resumed run began."""
    trainer = config.trainer
    if "use" not in (trainer.batch_size_find, trainer.lr_find):
        return config
    began = load(checkpoint, config.trust).metadata.config
    if trainer.batch_size_find == "use":
        data.loader = config.loader.model_copy(update={"batch_size": began.loader.batch_size})
        config = config.model_copy(update={"loader": data.loader})
    if trainer.lr_find == "use":
        optimizer = {**config.optimizer, "lr": began.optimizer["lr"]}
        config = config.model_copy(update={"optimizer": optimizer})
        use_settings(task, config)
    return config
