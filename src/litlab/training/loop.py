"""Lightning's fit loop, able to stop and resume exactly between batches and between epochs."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import DoublePrecision, MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from litlab.training.callbacks.checkpoint import CheckpointCallback
from litlab.training.callbacks.nan_guard import NaNGuard, StepInputs, random_state
from litlab.utils import lightning_adapter
from litlab.utils.lightning_adapter import FitLoopBase, TrainingEpochLoop

# One training step, in Lightning's order, without asking those who have nothing to say.


# Parts of a step that a LightningModule may take over. One that does gets Lightning's own step.
OWN_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device")
OWN_STEP = (
    *("optimizer_step", "optimizer_zero_grad", "backward", "configure_gradient_clipping"),
    *(*OWN_TRANSFER, "on_after_batch_transfer"),
)
PER_BATCH = ("on_train_batch_start", "on_train_batch_end")
HOOKS = (
    *(*PER_BATCH, "on_before_zero_grad", "on_before_backward"),
    *("on_after_backward", "on_before_optimizer_step"),
)
Hook = Callable[..., Any]


def step_of(trainer: Any) -> "Step | None":
    """Return the short step, or None where only Lightning's own does what is asked.

    It stands for: one device or DDP, full precision or bfloat16, one optimizer that needs no
    closure, a datamodule that moves nothing by itself, no profiler.
    """
    module, data = trainer.lightning_module, trainer.datamodule
    guards = [c for c in trainer.callbacks if isinstance(c, NaNGuard)]
    plain = (
        module.automatic_optimization
        and len(trainer.optimizers) == 1
        and type(trainer.strategy) in (SingleDeviceStrategy, DDPStrategy)
        and _is_plain(trainer.precision_plugin)
        and isinstance(trainer.profiler, PassThroughProfiler)
        and not _needs_closure(trainer.optimizers[0])
        and not lightning_adapter.skips_backward(trainer)
        and not any(_overrides(module, name, pl.LightningModule) for name in OWN_STEP)
        and data is not None
        and not math.isinf(trainer.num_training_batches)  # the user's own data, of no length
        and not any(_overrides(data, name, pl.LightningDataModule) for name in OWN_TRANSFER)
        and getattr(module, "quiet_steps", False)
        and len(guards) == 1
    )
    return Step(trainer, guards[0]) if plain else None


def _is_plain(precision: Any) -> bool:
    """Whether it neither scales the loss nor converts the model."""
    if isinstance(precision, MixedPrecision):
        return precision.scaler is None
    return type(precision) in (Precision, DoublePrecision)


def _overrides(instance: object, name: str, base: type) -> bool:
    of_its_own = name in vars(instance)  # as LambdaCallback has it
    return of_its_own or getattr(type(instance), name) is not getattr(base, name)


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step may want to compute the loss again: LBFGS does, and a user's own may."""
    known = type(optimizer).__module__.startswith(("torch.optim.", "litlab."))
    return not known or isinstance(optimizer, torch.optim.LBFGS)


class Step:
    """Forward, zero_grad, backward, check, clip, optimizer step: the hand-written loop's order.

    Args:
        trainer: Lightning's, set up for fitting.
        nan_guard: Refuses a step that is not finite.
    """

    def __init__(self, trainer: Any, nan_guard: NaNGuard) -> None:
        self.trainer, self.nan_guard = trainer, nan_guard
        self.loader = lightning_adapter.loaders(trainer)[0]
        self.serves_again = hasattr(self.loader, "start")
        nan_guard.serve_again = self._serve_again
        self.task, self.strategy = trainer.lightning_module, trainer.strategy
        self.data: Any = trainer.datamodule
        self.device, self.optimizer = trainer.strategy.root_device, trainer.optimizers[0]
        self.accumulate = trainer.accumulate_grad_batches
        self.alone = type(trainer.strategy) is SingleDeviceStrategy
        self.plain = self.alone and type(trainer.precision_plugin) is Precision
        self.schedulers = [
            config
            for config in trainer.lr_scheduler_configs
            if config.interval == "step" and not config.reduce_on_plateau
        ]
        self.hooks = {name: self._listeners(name) for name in HOOKS}
        self.heard = any(self.hooks[name] for name in PER_BATCH)
        # `self.log` in a hook needs Lightning's bookkeeping of the step.
        self.logged = self._may_log()
        self._batch: Any = None
        self._loss: torch.Tensor | None = None

    def _listeners(self, name: str) -> list[Hook]:
        """Return a hook's implementations: callbacks in order, then the module."""
        trainer, task = self.trainer, self.task

        def of(callback: Callback) -> Hook:
            hook = getattr(callback, name)
            return lambda *args: hook(trainer, task, *args)

        found = [
            of(c)
            for c in trainer.callbacks
            if _overrides(c, name, Callback) and not isinstance(c, NaNGuard)
        ]
        if _overrides(task, name, pl.LightningModule):
            found.append(getattr(task, name))
        return found

    def _may_log(self) -> bool:
        """Whether any hook of a step may log; callbacks that never do say `quiet = True`."""
        loud = [
            callback
            for callback in self.trainer.callbacks
            if not (isinstance(callback, NaNGuard) or getattr(callback, "quiet", False))
        ]
        return any(
            _overrides(self.task, name, pl.LightningModule)
            or any(_overrides(callback, name, Callback) for callback in loud)
            for name in HOOKS
        )

    def _call(self, name: str, *args: Any) -> Any:
        answer = None
        if self.logged:  # `self.log` asks which hook it is called in
            lightning_adapter.set_hook(self.task, name)
        for hook in self.hooks[name]:
            answer = hook(*args)
        return answer

    def run(self, batch: Any, batch_idx: int, steps: bool) -> None:
        """Train on a batch of the loader.

        Args:
            batch: As the loader gives it.
            batch_idx: Its number in the epoch.
            steps: Whether the optimizer steps after it; else gradients are accumulated.

        Raises:
            StopIteration: A hook returned -1: the epoch ends here.
            NonFiniteError: Loss or gradient was NaN or infinite; no weight was changed since.
        """
        if self.serves_again:
            self.nan_guard.begin_batch(batch_idx)
            batch = self._on_device(batch)
        else:
            batch = self._on_device(batch)
            self.nan_guard.begin_batch(batch_idx, batch)
        self._batch = batch
        if self.logged:
            lightning_adapter.log_batch_start(self.trainer, batch)
        if self._call("on_train_batch_start", batch, batch_idx) == -1:
            raise StopIteration
        if self.alone:
            self._compute(batch, batch_idx)
        else:
            self._compute_together(batch, batch_idx, steps)
        assert self._loss is not None
        self.nan_guard.note_loss(self._loss)
        if steps:
            self._call("on_before_optimizer_step", self.optimizer)
            self.nan_guard.take_step(self.trainer, self.task, self.optimizer)

    def look(self) -> None:
        """Refuse what was not finite since the last look.

        Raises:
            NonFiniteError: Loss or gradient was NaN or infinite; no weight was changed since.
        """
        self.nan_guard.look(self.trainer, self.task)

    def _serve_again(self, wanted: Sequence[tuple[int, Any]]) -> list[StepInputs]:
        """Return batches of this epoch that follow one another, and the states they left."""
        self.loader.start = wanted[0][0]
        found = []
        for (_, rng), batch in zip(wanted, self.loader, strict=False):
            torch.set_rng_state(rng[0])
            if len(rng) > 1:
                torch.cuda.set_rng_state(rng[1])
            found.append(StepInputs(self._on_device(batch), random_state()))
        return found

    def _on_device(self, batch: Any) -> Any:
        if self.device.type != "cpu":
            tensors = [part.to(self.device, non_blocking=True) for part in batch[:3]]
            batch = (*tensors, *batch[3:])
        return self.data.on_after_batch_transfer(batch, 0)

    def _compute(self, batch: Any, batch_idx: int) -> None:
        """Leave the loss and the gradients of a batch."""
        trains = self.task if self.plain else self.strategy  # which enters the precision's context
        loss = trains.training_step(batch, batch_idx)
        assert isinstance(loss, torch.Tensor)
        if self.accumulate > 1:
            loss = loss / self.accumulate
        if batch_idx % self.accumulate == 0:
            self._call("on_before_zero_grad", self.optimizer)
            self.optimizer.zero_grad()
        self._call("on_before_backward", loss)
        loss.backward()
        self._loss = loss.detach()
        self._call("on_after_backward")

    def _compute_together(self, batch: Any, batch_idx: int, steps: bool) -> None:
        """The same in one of several processes, which add up their gradients when they step."""
        loss = None
        with lightning_adapter.without_sync(self.strategy, block=not steps):
            loss = self.strategy.training_step(batch, batch_idx)
            assert isinstance(loss, torch.Tensor)
            loss = loss / self.accumulate
            if batch_idx % self.accumulate == 0:
                self._call("on_before_zero_grad", self.optimizer)
                self.optimizer.zero_grad()
            self._loss = self.strategy.backward(loss, self.optimizer)

    def schedule(self, batch_idx: int) -> None:
        """Advance the schedulers that count steps."""
        for config in self.schedulers:
            if (batch_idx + 1) % config.frequency == 0:
                self.task.lr_scheduler_step(config.scheduler, None)

    def ended(self, batch_idx: int) -> None:
        """Call the hooks at the end of a batch."""
        if not self.heard:
            return
        outputs = {"loss": self._loss}
        self._call("on_train_batch_end", outputs, self._batch, batch_idx)
        if not self.logged:
            return
        lightning_adapter.log_batch_end(self.trainer)


# One epoch: a short way through each step where that is the same as Lightning's long one.


class EpochLoop(TrainingEpochLoop):
    """Runs the batches of an epoch, and notifies `checkpoint` of every optimizer step.

    Lightning asks every callback, logger, profiler and plugin at each of some twenty places in a
    step, which costs more than a small network's own work. Here those that have nothing to say are
    found out once an epoch; those that have are called as ever, in the same order.

    Attributes:
        batches_done: How many batches of the epoch that comes next were done before the fit was
            interrupted.

    Args:
        trainer: Lightning's.
        checkpoint: Told of every batch that ended with an optimizer step.
        min_steps: As Lightning has it.
        max_steps: As Lightning has it.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        checkpoint: CheckpointCallback,
        min_steps: int | None,
        max_steps: int,
    ) -> None:
        super().__init__(trainer, min_steps=min_steps, max_steps=max_steps)
        self.checkpoint = checkpoint
        self.batches_done = 0
        self._short: Step | None = None
        self._batches: Iterator[Any] = iter(())

    def reset(self) -> None:
        """Count from nothing, or from where the epoch was interrupted."""
        super().reset()
        done, self.batches_done = self.batches_done, 0
        current: Any = self.batch_progress.current
        current.ready = current.started = current.processed = current.completed = done
        self.batch_progress.is_last_batch = False

    def on_run_start(self, data_fetcher: Any) -> None:
        """Find out which way the steps of this epoch go."""
        loaders = lightning_adapter.loaders(self.trainer)
        start = self.batch_progress.current.ready
        for part in loaders:
            if start and not hasattr(part, "start"):
                raise TypeError(f"{type(part).__name__} cannot begin at a batch: it has no `start`")
            if hasattr(part, "start"):
                part.start = start
        self._short = step_of(self.trainer)
        if self._short is None:
            super().on_run_start(data_fetcher)
        else:
            self._batches = iter(loaders[0])

    def run(self, data_fetcher: Any) -> None:
        """Run the epoch; one that was interrupted before its validation begins with that."""
        self.reset()
        self.on_run_start(data_fetcher)
        if self.batch_progress.current.ready:
            self.checkpoint.epoch_resumed(self.trainer)
            if self.has_all_batches() or self.trainer.should_stop:
                self.batch_progress.is_last_batch = True
                self._validate(data_fetcher)
        way = self._run_long if self._short is None else self._run_short
        with suppress(StopIteration):
            way(data_fetcher)
        if self._short is not None:  # a hook may have ended the epoch
            self._short.look()

    def _run_long(self, data_fetcher: Any) -> None:
        while not self.done:
            self.advance(data_fetcher)
            self.on_advance_end(data_fetcher)

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Count the step, say that it is done, validate where it is time."""
        if not self.accumulates():
            self.stepped_batches += 1
            self.checkpoint.batch_done(self.trainer)
        self._validate(data_fetcher)

    def _validate(self, data_fetcher: Any) -> None:
        if not self.accumulates():
            self.stepped_batches -= 1  # Lightning counts the step only after the validation
        super().on_advance_end(data_fetcher)

    def _run_short(self, data_fetcher: Any) -> None:
        """What `advance` and `on_advance_end` do, without looking again at what does not change."""
        trainer, step, progress = self.trainer, self._short, self.batch_progress
        assert step is not None
        number, accumulate = trainer.num_training_batches, trainer.accumulate_grad_batches
        counted = self.automatic_optimization.optim_progress.optimizer.step
        often = trainer.val_check_batch != number
        while not self.done:
            batch_idx = progress.current.ready
            last = batch_idx + 1 == number
            batch = next(self._batches)
            progress.is_last_batch = last
            _count(progress, "ready", "started")
            steps = last or (batch_idx + 1) % accumulate == 0
            step.run(batch, batch_idx, steps)
            if steps:
                _count(counted, "ready", "completed")
                step.schedule(batch_idx)
            if last:
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
            step.ended(batch_idx)
            _count(progress, "processed", "completed")
            if steps:
                self.stepped_batches += 1
                self.checkpoint.batch_done(trainer)
            if last or often or trainer.should_stop:
                step.look()
                self._validate(data_fetcher)


def _count(progress: Any, *names: str) -> None:
    for tracker in (progress.current, progress.total):
        for name in names:
            setattr(tracker, name, getattr(tracker, name) + 1)


class FitLoop(FitLoopBase):
    """Notifies `checkpoint` wherever a fit can be resumed exactly, and resumes it there.

    Lightning's own loop calls its checkpoints before an epoch's metrics are logged and its
    scheduler has stepped; what is resumed from there has lost both. Its counters are saved halfway
    and patched up on restart. Here a state is saved when all is done, so that four numbers say
    where the fit is.

    Args:
        trainer: Whose loop it replaces.
        checkpoint: What is to be told.
    """

    def __init__(self, trainer: pl.Trainer, checkpoint: CheckpointCallback) -> None:
        old = trainer.fit_loop
        super().__init__(trainer, min_epochs=old.min_epochs, max_epochs=old.max_epochs)
        self.checkpoint = checkpoint
        inner = old.epoch_loop
        self.epoch_loop = EpochLoop(trainer, checkpoint, inner.min_steps, inner.max_steps)

    def state_dict(self, destination: dict[str, Any] | None = None, prefix: str = "") -> Any:
        """Return where the fit is, as numbers of what was done."""
        inner, total = self.epoch_loop, self.epoch_loop.batch_progress.total.completed
        epoch_running = self.epoch_progress.current.ready > self.epoch_progress.current.completed
        return {
            "epochs": self.epoch_progress.current.completed,
            "batches": inner.batch_progress.current.completed if epoch_running else 0,
            "total_batches": total,
            "steps": inner.global_step,
            "logged_steps": inner.stepped_batches,
            "should_stop": self.trainer.should_stop,
        }

    def load_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Set every counter to where the fit was; the next epoch or batch follows."""
        epochs, batches = state_dict["epochs"], state_dict["batches"]
        inner = self.epoch_loop
        for progress in (self.epoch_progress.current, self.epoch_progress.total):
            _set(progress, epochs)
        _set(inner.batch_progress.total, state_dict["total_batches"])
        automatic = inner.automatic_optimization.optim_progress.optimizer.step
        for step in (automatic, inner.manual_optimization.optim_step_progress):
            step.total.ready = step.total.completed = state_dict["steps"]
        inner.stepped_batches = state_dict["logged_steps"]
        inner.batches_done = batches
        self.trainer.should_stop = state_dict["should_stop"]

    @property
    def done(self) -> bool:
        """Whether to leave; an epoch that was interrupted before its validation is not done."""
        return not self.epoch_loop.batches_done and super().done

    def on_advance_end(self) -> None:
        """Finish the epoch, then say so."""
        super().on_advance_end()
        self.checkpoint.epoch_done(self.trainer)

    def on_run_end(self) -> None:
        """Say that nothing follows, then let Lightning end the fit."""
        self.checkpoint.fit_done(self.trainer)
        super().on_run_end()


def _set(progress: Any, number: int) -> None:
    progress.ready = progress.started = progress.processed = progress.completed = number
