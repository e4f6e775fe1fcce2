"""One training step, in Lightning's order, without asking those who have nothing to say."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import DoublePrecision, MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from litlab.training.callbacks.nan_guard import NaNGuard, StepInputs, random_state
from litlab.utils import lightning_adapter

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
