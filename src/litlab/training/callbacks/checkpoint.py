"""When a run is saved: the best epoch, and where to resume after any interruption.

The fit loop calls `batch_done`, `epoch_done` and `fit_done`. These collect what Lightning would
save, to which `on_save_checkpoint` adds the metadata, and write it as one file.
"""

import math
import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from litlab.runs.best_epoch import BestEpoch
from litlab.runs.checkpoint.io import KEY, RAW, RESUME, VerifiedCheckpointIO, read, sweep, write
from litlab.runs.checkpoint.metadata import CheckpointMetadata
from litlab.runs.checkpoint.resume import BEST_STATE, check_moments, restoring
from litlab.runs.folder import BEST, LAST, PREVIOUS
from litlab.training.callbacks.averaging import WeightAverage
from litlab.utils import lightning_adapter, seeding
from litlab.utils.errors import CheckpointError, ConfigError, EnvironmentFault, NonFiniteError
from litlab.utils.signals import Signals

SHARE = 20  # saving takes at most one part in as many of the time
# What evaluation and prediction need, besides the metadata.
OF_BEST = ("epoch", "global_step", "pytorch-lightning_version", "state_dict")
HYPERPARAMETERS = ("hyper_parameters", "hparams_name")  # by which Lightning builds a module again


class Stopped(BaseException):
    """The fit was asked to stop, and has saved what it had."""


class CheckpointCallback(Callback):
    """Keeps the weights of the best epoch and the state of the last save, and stops when asked.

    A run is saved after its first epoch, at its end, when it is stopped, and in between whenever
    `every_seconds` have passed, or `every_steps` steps: after a whole step or epoch, so that what
    is resumed continues as if nothing had happened. The best epoch's weights wait in memory for the
    next save. Saving never takes more than a twentieth of the time: where it is slow, it is rarer.

    Args:
        metadata: What the run is of.
        folder: Where `best.ckpt` goes.
        state_folder: Where `last.ckpt` and the one before go.
        best: Decides which epoch is the best.
        signals: Whether the run is to stop.
        tracked: What was recorded so far, to be kept along.
    """

    def __init__(
        self,
        metadata: CheckpointMetadata,
        folder: Path,
        state_folder: Path,
        best: BestEpoch,
        signals: Signals,
        tracked: Callable[[], Any],
    ) -> None:
        self.metadata, self.folder, self.state_folder = metadata, folder, state_folder
        self.best, self.signals, self.tracked = best, signals, tracked
        self.io = VerifiedCheckpointIO()
        trainer = metadata.config.trainer
        self.every_seconds, self.every_steps = trainer.save_every_seconds, trainer.save_every_steps
        self._snapshot: dict[str, Any] | None = None  # of the first process
        self._better = False  # the same in all of them: whether a best epoch waits to be saved
        self._next = 0.0  # of the clock: the first whole epoch is saved
        self._first, self._saved_steps = True, -1
        self._resume: dict[str, Any] | None = None
        self._whole_epoch: int | None = None  # the epoch that has just ended
        self._countdown, self._steps, self._asked = 1, 0, time.monotonic()
        self._within_epochs = True  # whether a run can resume in the middle of one

    # What Lightning calls.

    def state_dict(self) -> dict[str, Any]:
        """Return which epoch is the best so far."""
        return self.best.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take that up again."""
        self.best.load_state_dict(state_dict)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the metadata, as plain values: they load without pickle."""
        done = trainer.fit_loop.epoch_progress.current
        epoch = done.completed if done.ready > done.completed else max(0, done.completed - 1)
        epoch = epoch if self._whole_epoch is None else self._whole_epoch
        weights, step = checkpoint["state_dict"], trainer.global_step
        checkpoint[KEY] = self.metadata.as_written(epoch, step, weights)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what is restored only when everything else is in place."""
        states = checkpoint.get("callbacks", {})
        for name in BEST_STATE:
            if name in states:
                states.setdefault(self.state_key, states[name])
        own: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        averages = any(isinstance(callback, WeightAverage) for callback in own)
        if RAW in checkpoint and not averages:  # it did, until its settings were changed
            pl_module.load_state_dict(checkpoint[RAW])
        self._resume = checkpoint.get(RESUME)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and restore the random states of an interrupted run."""
        self._within_epochs = _resumes_within_epochs(trainer)
        if trainer.is_global_zero:
            sweep(self.folder)
            sweep(self.state_folder)
        if self._resume is None:
            self._next = math.inf if self.every_seconds is None else time.monotonic()
            return
        self._first = False
        self._plan(0.0)
        with restoring(Path(str(trainer.ckpt_path))):
            seeding.restore(_of_rank(self._resume["rng"], trainer.global_rank))
            for optimizer in trainer.optimizers:
                check_moments(optimizer)

    # What the fit loop calls.

    def epoch_resumed(self, trainer: pl.Trainer) -> None:
        """In the middle of an epoch: what its hooks drew, they had drawn before."""
        assert self._resume is not None
        meters: Any = trainer.lightning_module  # a litlab task: others are saved between epochs
        with restoring(Path(str(trainer.ckpt_path))):
            seeding.restore(_of_rank(self._resume["rng"], trainer.global_rank))
            states = self._resume["meters"]
            meters.load_meter_states(states, trainer.global_rank, trainer.world_size)
        self._resume = None

    def batch_done(self, trainer: pl.Trainer) -> None:
        """Save where it is time; stop if that was asked for.

        Raises:
            Stopped: A signal came, and the state is saved.
        """
        self._whole_epoch = None
        if trainer.world_size == 1:
            stop, due = self.signals.came is not None, time.monotonic() >= self._next
        else:
            stop, due = self._agree(trainer, every=False)
        due = due and not self._first  # the first save waits for the best weights
        if self.every_steps is not None and trainer.global_step % self.every_steps == 0:
            due = True
        if (stop or due) and self._within_epochs:
            self._save(trainer, mid_epoch=True)
        if stop:
            raise Stopped

    def epoch_done(self, trainer: pl.Trainer) -> None:
        """Note whether the epoch is the best; save where it is time; stop if asked.

        Raises:
            Stopped: A signal came, and the state is saved.
        """
        self._resume, self._whole_epoch = None, trainer.current_epoch - 1
        self._record_steps(trainer)
        content = self._judge(trainer)
        if trainer.world_size == 1:
            stop, due = self.signals.came is not None, time.monotonic() >= self._next
        else:
            stop, due = self._agree(trainer, every=True)
        if stop or due or self._first:
            self._save(trainer, content)
        if stop:
            raise Stopped

    def _record_steps(self, trainer: pl.Trainer) -> None:
        """Record once an epoch what the module logs in steps, as progress shows it.

        Lightning sends such values every 50 steps only: a short epoch would have none.
        """
        if getattr(trainer.lightning_module, "quiet_steps", False):
            return
        epoch = trainer.current_epoch - 1
        row = self.tracked().get("rows", {}).get(epoch, {})
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        fresh = {
            name: value
            for name, value in values.items()
            if row.get(name) != value and f"{name}_epoch" not in values and value == value
        }
        for logger in trainer.loggers if fresh else ():
            logger.log_metrics({**fresh, "epoch": epoch}, trainer.global_step)

    def fit_done(self, trainer: pl.Trainer) -> None:
        """Save the end, unless that was done."""
        if self._saved_steps != trainer.global_step or self._better:
            self._save(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write the best epoch's weights, which wait in memory, before an error ends the run."""
        try:
            self._write_best(trainer)
        except EnvironmentFault as error:  # the first error is the one to see
            warnings.warn(f"{error.what}: {error.where}", stacklevel=2)

    def _judge(self, trainer: pl.Trainer) -> dict[str, Any] | None:
        """Take a copy of the weights of the best epoch; return the whole content it is from."""
        monitor = self.best.monitor
        measured = trainer.callback_metrics.get(monitor)
        if measured is None:
            known = ", ".join(sorted(map(str, trainer.callback_metrics)))
            raise ConfigError(f"'{monitor}' was not measured", "monitor", f"one of: {known}")
        value = float(measured)
        if not math.isfinite(value):  # as the best of all it would never be replaced
            what = f"{monitor} is {value} in epoch {trainer.current_epoch}"
            fix = NonFiniteError.remedy(clipped=bool(trainer.gradient_clip_val))
            raise NonFiniteError(what, "training", fix)
        if not self.best.update(value, trainer.current_epoch - 1):
            return None
        content = self._content(trainer)
        if trainer.is_global_zero:
            kept = {key: content[key] for key in (*OF_BEST, KEY)}
            kept |= {key: content[key] for key in HYPERPARAMETERS if key in content}
            weights = content["state_dict"]
            kept["state_dict"] = {name: value.detach().clone() for name, value in weights.items()}
            self._snapshot = kept
        self._better = True
        return content

    def _save(
        self, trainer: pl.Trainer, content: dict[str, Any] | None = None, *, mid_epoch: bool = False
    ) -> None:
        began = time.monotonic()
        self._write_best(trainer)
        content = self._content(trainer) if content is None else content
        content[RESUME] = {
            "rng": _gather(trainer, seeding.state()),
            "meters": _gather(trainer, self._meters(trainer)) if mid_epoch else None,
            "tracked": self.tracked(),
        }
        if trainer.is_global_zero:
            last = self.state_folder / LAST
            write(content, last, previous=last.with_name(PREVIOUS))
            if self._first:
                self._prove()
        self._first, self._better = False, False
        self._saved_steps = -1 if mid_epoch else trainer.global_step  # its end is yet to come
        self._plan(time.monotonic() - began)

    def _content(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Return what is to be saved; empty in all processes but the first."""
        return self.io.content_of(trainer, self.state_folder / LAST)

    def _prove(self) -> None:
        """Read the first save of a run again: a callback's state may hold what cannot be loaded.

        Raises:
            ConfigError: It cannot.
            EnvironmentFault: It is not there.
        """
        if not (self.state_folder / LAST).is_file():
            what, fix = "the checkpoint was not written", "make the folder writable"
            raise EnvironmentFault(what, str(self.state_folder / LAST), fix)
        try:
            read(self.state_folder / LAST)
        except CheckpointError as error:
            what = f"the run cannot be saved: {error.what}"
            fix = "let callbacks and hyperparameters hold tensors and plain values only"
            raise ConfigError(what, "state_dict of a callback, hyperparameters", fix) from error

    def _meters(self, trainer: pl.Trainer) -> Any:
        task: Any = trainer.lightning_module
        return task.meter_states()

    def _plan(self, seconds: float) -> None:
        wait = self.every_seconds
        self._next = math.inf if wait is None else time.monotonic() + max(wait, SHARE * seconds)

    def _write_best(self, trainer: pl.Trainer) -> None:
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is None:
            return
        best = self.folder / BEST
        write(snapshot, best)
        if self.state_folder != self.folder:
            copy = self.state_folder / BEST
            self.state_folder.mkdir(parents=True, exist_ok=True)
            beside = copy.with_name(f".{copy.name}.copy.tmp")
            beside.unlink(missing_ok=True)
            try:
                os.link(best, beside)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(best, beside)
            beside.replace(copy)

    def _agree(self, trainer: pl.Trainer, *, every: bool) -> tuple[bool, bool]:
        """Let all processes stop or save at the same step, asking a few times a second."""
        self._countdown, self._steps = self._countdown - 1, self._steps + 1
        if self._countdown > 0 and not every:
            return False, False
        now, first = time.monotonic(), trainer.is_global_zero
        a_step = max((now - self._asked) / self._steps, 1e-6)
        steps = min(200, 1 + int(0.25 / a_step))
        requests = [self.signals.came is not None, first and now >= self._next, first * steps]
        tensor = torch.tensor([int(w) for w in requests], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
        stop, due, self._countdown = tensor.tolist()
        self._asked, self._steps = now, 0
        return bool(stop), bool(due)


def _resumes_within_epochs(trainer: pl.Trainer) -> bool:
    """Whether the loaders can start at a batch, and the task keeps what an epoch has measured.

    Loaders and LightningModules of the user's own resume at the end of an epoch.
    """
    can_start = all(hasattr(loader, "start") for loader in lightning_adapter.loaders(trainer))
    return can_start and hasattr(trainer.lightning_module, "meter_states")


class CheckpointByHooks(Callback):
    """Calls a checkpoint callback from the hooks of Lightning's own loop.

    It stands in where litlab's loop cannot run; what is saved so cannot be resumed to the bit.

    Args:
        checkpoint: The callback.
    """

    def __init__(self, checkpoint: CheckpointCallback) -> None:
        self.checkpoint, self._epoch_began = checkpoint, False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """A step is done, unless gradients are accumulated."""
        if (args[-1] + 1) % trainer.accumulate_grad_batches == 0:
            self.checkpoint.batch_done(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch before is done, with its metrics and schedules."""
        if self._epoch_began:
            self.checkpoint.epoch_done(trainer)
        self._epoch_began = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last epoch is done."""
        if self._epoch_began:
            self.checkpoint.epoch_done(trainer)
        self.checkpoint.fit_done(trainer)


def _gather(trainer: pl.Trainer, own: Any) -> list[Any]:
    """Return what each process has, by rank."""
    if trainer.world_size == 1:
        return [own]
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, own)
    return gathered


def _of_rank(states: list[Any], rank: int) -> Any:
    """Return the state of this process; additional processes use that of another."""
    return states[rank % len(states)]
