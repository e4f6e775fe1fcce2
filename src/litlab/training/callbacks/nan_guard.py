"""No step that is not finite reaches the weights, and no step waits for the device to know it.

Loss and gradients are looked through on the device, which leaves a flag there. A fused optimizer
reads the flag itself, in its kernel, and changes nothing while it is set. The CPU looks at the flag
after `LOOK_AFTER` batches, before each validation and before each save: what it finds then is what
the weights were before the step that failed.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import MixedPrecision

from litlab.tasks.optim.optimizers import SGDW
from litlab.utils.errors import NonFiniteError

READS_FLAG = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, SGDW)
LOOK_AFTER = 64  # batches; for so many, random states of 5 kB each are kept


class StepInputs(NamedTuple):
    """What a batch's forward pass began with: enough to run it again.

    Attributes:
        batch: Inputs and targets as the model got them, augmented and normalized.
        rng: torch's random state on the CPU, and on the device if it is another.
    """

    batch: Any
    rng: list[torch.Tensor]


class FailedStepReport(Protocol):
    """Keeps a refused step for later; see `litlab.training.replay`.

    Attributes:
        folder: Where.
    """

    folder: Path

    def __call__(
        self,
        trainer: pl.Trainer,
        task: pl.LightningModule,
        inputs: Sequence[StepInputs],
        what: str,
        step: int,
    ) -> str:
        """Keep it, and say where."""


class _Batch:
    """A batch since the last look.

    Attributes:
        number: Its place in the epoch, by which the loader can serve it again.
        rng: The random state before it went to the device, or before the step if `batch` is kept.
        batch: What the model got, where the loader cannot serve it again.
        loss: Its loss, on the device.
    """

    __slots__ = ("batch", "loss", "number", "rng")

    def __init__(self, number: int, rng: list[torch.Tensor], batch: Any) -> None:
        self.number, self.rng, self.batch = number, rng, batch
        self.loss: torch.Tensor | None = None


def random_state() -> list[torch.Tensor]:
    """Return torch's random state on the CPU, and on the GPU if there is one in use."""
    state = [torch.get_rng_state()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state.append(torch.cuda.get_rng_state())
    return state


class NaNGuard(Callback):
    """Looks at the loss and at all gradients before each optimizer step.

    With a loss scaler (16-mixed) gradients may overflow, which the scaler deals with; the loss may
    not.

    Args:
        report: Keeps the step for later, and says where; see `litlab.training.replay`.

    Attributes:
        serve_again: Serves batches of this epoch once more, by their numbers and random states.
    """

    def __init__(self, report: FailedStepReport | None = None) -> None:
        self.report = report
        self.serve_again: Callable[[Sequence[tuple[int, Any]]], list[StepInputs]] | None = None
        self._reset()

    def _reset(self) -> None:
        self._batches: list[_Batch] = []
        self._steps: list[tuple[int, int]] = []  # optimizer steps before each, batches up to it
        self._found: torch.Tensor | None = None  # 1 from the first step on that is not finite
        self._skipped = self._one = torch.ones(())

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the processes agree on where a refused step is kept."""
        self._reset()
        if trainer.world_size > 1 and self.report is not None:
            self.report.folder = trainer.strategy.broadcast(self.report.folder)

    def begin_batch(self, number: int, batch: Any = None) -> None:
        """Note what a batch begins with.

        Args:
            number: Its place in the epoch.
            batch: What the model gets, if the loader cannot serve it again.
        """
        self._batches.append(_Batch(number, random_state(), batch))

    def note_loss(self, loss: torch.Tensor) -> None:
        """Note the loss of the batch that was begun last."""
        if self._batches:
            self._batches[-1].loss = loss

    def take_step(
        self, trainer: pl.Trainer, task: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Clip the gradients as the Trainer is told to and step, unless something is not finite.

        Raises:
            NonFiniteError: A step since the last look was not; no weight was changed since.
        """
        found = self._look_through(trainer, optimizer, clip=True)
        if _reads_flag(optimizer):
            optimizer.found_inf = found  # type: ignore[attr-defined]
            try:
                optimizer.step()
            finally:
                del optimizer.found_inf  # type: ignore[attr-defined]
            if len(self._batches) >= LOOK_AFTER or self._batches[0].batch is not None:
                self.look(trainer, task)
        else:
            self.look(trainer, task)  # it waits for the device, once
            optimizer.step()

    def look(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Look at the flag, which waits for the device.

        Raises:
            NonFiniteError: The loss or a gradient is NaN or infinite.
        """
        if not self._steps:
            return
        skipped = int(self._skipped.item())
        if skipped:
            self._refuse(trainer, task, len(self._steps) - skipped)
        del self._batches[: self._steps[-1][1]]
        self._steps.clear()

    def _look_through(
        self, trainer: pl.Trainer, optimizer: torch.optim.Optimizer, *, clip: bool
    ) -> torch.Tensor:
        """Set the flag if a loss or gradient of the step is not finite; clip the gradients."""
        groups = optimizer.param_groups
        parameters = [p for group in groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters]
        limit = trainer.gradient_clip_val if clip else None
        by_norm = limit and trainer.gradient_clip_algorithm == "norm"
        # The norm is NaN or infinite as soon as any gradient is.
        norm = torch.nn.utils.get_total_norm(gradients) if by_norm else None
        begin = self._steps[-1][1] if self._steps else 0
        losses = [batch.loss for batch in self._batches[begin:] if batch.loss is not None]
        if self._found is None:
            device = (losses or gradients or [torch.ones(())])[0].device
            self._found, self._skipped = (torch.zeros((), device=device) for _ in range(2))
            self._one = torch.ones((), device=device)
        set_if_non_finite(
            self._found, [*losses, *(gradients if norm is None else [norm])], self._one
        )
        self._skipped += self._found
        self._steps.append((trainer.global_step, len(self._batches)))
        if norm is not None and limit:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        elif limit:
            torch.nn.utils.clip_grad_value_(parameters, limit)
        return self._found

    def _refuse(self, trainer: pl.Trainer, task: pl.LightningModule, failed: int) -> None:
        step, end = self._steps[failed]
        batches = self._batches[self._steps[failed - 1][1] if failed else 0 : end]
        losses = [batch.loss.item() for batch in batches if batch.loss is not None]
        odd = [loss for loss in losses if not math.isfinite(loss)]
        what = f"train/loss is {odd[0]}" if odd else "the gradient is not finite"
        self._raise(trainer, task, batches, what, step)

    def _raise(
        self,
        trainer: pl.Trainer,
        task: pl.LightningModule,
        batches: list[_Batch],
        what: str,
        step: int,
    ) -> None:
        kept = ""
        if self.report is not None:
            kept = self.report(trainer, task, self._inputs(batches), what, step)
        what = f"{what} in epoch {trainer.current_epoch + 1}, step {step}; the step was not taken"
        fix = NonFiniteError.remedy(clipped=bool(trainer.gradient_clip_val))
        raise NonFiniteError(what, kept or "training", fix)

    def _inputs(self, batches: list[_Batch]) -> list[StepInputs]:
        if self.serve_again is not None and all(batch.batch is None for batch in batches):
            return self.serve_again([(batch.number, batch.rng) for batch in batches])
        return [StepInputs(batch.batch, batch.rng) for batch in batches]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save nothing while a step has failed."""
        self.look(trainer, pl_module)

    # In Lightning's own step the same is asked through its hooks, and the CPU looks at each step.

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note what the batch begins with."""
        if not pl_module.automatic_optimization:  # a step may be taken where no hook tells of it
            self._batches.clear()
        self.begin_batch(batch_idx, batch)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor
    ) -> None:
        """Note the loss."""
        self.note_loss(loss.detach())

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Look at the step."""
        plugin = trainer.precision_plugin
        if not (isinstance(plugin, MixedPrecision) and plugin.scaler is not None):
            self._look_through(trainer, optimizer, clip=False)
            self.look(trainer, pl_module)
            return
        scale = max(plugin.scaler.get_scale(), 1e-30)
        for batch in self._batches:
            if batch.loss is not None and not math.isfinite(batch.loss.item() / scale):
                what = f"train/loss is {batch.loss.item()}"
                self._raise(trainer, pl_module, self._batches, what, trainer.global_step)
        self._batches.clear()


def _reads_flag(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer leaves everything as it is where `found_inf` is 1.

    torch's fused ones do, for loss scaling: see `torch.amp.GradScaler`.
    """
    known = type(optimizer) in READS_FLAG
    return known and all(group.get("fused") for group in optimizer.param_groups)


def set_if_non_finite(
    flag: torch.Tensor, tensors: list[torch.Tensor], one: torch.Tensor | None = None
) -> None:
    """Set a flag to 1 on its device if a tensor holds NaN or infinity; else leave it.

    What a loss scaler asks, with a scale of 1, is a single pass, four times as fast as the norm of
    a small network's gradients. It needs dense tensors on the flag's device; of others the norm is
    looked at.

    Args:
        flag: A float32 scalar.
        tensors: They keep their values.
        one: A scalar 1 on the same device.
    """
    dense, other = list[torch.Tensor](), list[torch.Tensor]()
    for tensor in tensors:
        plain = type(tensor) is torch.Tensor and tensor.layout is torch.strided
        (dense if plain and tensor.device == flag.device else other).append(tensor)
    if other:
        norm = torch.nn.utils.get_total_norm(other)
        if hasattr(norm, "full_tensor"):  # of sharded gradients
            norm = norm.full_tensor()
        flag.copy_(torch.maximum(flag, (~norm.isfinite()).to(flag)))
    if dense:
        one = torch.ones((), device=flag.device) if one is None else one
        torch._amp_foreach_non_finite_check_and_unscale_(dense, flag, one)
