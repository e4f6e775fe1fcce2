"""No step that is not finite: what would spoil the weights is refused before the optimizer runs."""

import math
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import MixedPrecision

from litlab.utils.errors import NonFiniteError


class FailedStepReport(Protocol):
    """Keeps a refused step for later; see `litlab.training.failed_step`.

    Attributes:
        folder: Where.
    """

    folder: Path

    def __call__(
        self, trainer: pl.Trainer, task: pl.LightningModule, moments: "list[StepInputs]", what: str
    ) -> str:
        """Keep it, and say where."""


class StepInputs:
    """What a step began with: enough to run it again.

    Attributes:
        batch: Inputs and targets as the model got them, augmented and normalized.
        rng: torch's random state on the CPU, and on the device if it is another.
    """

    __slots__ = ("batch", "rng")

    def __init__(self, batch: Any, rng: list[torch.Tensor]) -> None:
        self.batch, self.rng = batch, rng


class NaNGuard(Callback):
    """Looks at the loss and at the norm of all gradients before each optimizer step.

    The norm is NaN or infinite as soon as any gradient is; clipping needs it anyhow. With a loss
    scaler (16-mixed) gradients may overflow, which the scaler deals with; the loss may not.

    Args:
        report: Keeps the step for later, and says where; see `litlab.training.failed_step`.
    """

    def __init__(self, report: FailedStepReport | None = None) -> None:
        self.report = report
        self.moments: list[StepInputs] = []  # of the batches since the last optimizer step
        self._loss: torch.Tensor | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the processes agree on where a refused step is kept."""
        if trainer.world_size > 1 and self.report is not None:
            self.report.folder = trainer.strategy.broadcast(self.report.folder)

    def before_step(self, batch: Any) -> None:
        """Note what a batch begins with."""
        rng = [torch.get_rng_state()]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            rng.append(torch.cuda.get_rng_state())
        self.moments.append(StepInputs(batch, rng))

    def check(
        self,
        trainer: pl.Trainer,
        task: pl.LightningModule,
        optimizer: torch.optim.Optimizer,
        loss: torch.Tensor | None,
        *,
        clip: bool,
    ) -> None:
        """Refuse a step, or clip its gradients as the Trainer is told to.

        Raises:
            NonFiniteError: The loss or a gradient is NaN or infinite.
        """
        groups = optimizer.param_groups
        parameters = [p for group in groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters]
        limit = trainer.gradient_clip_val if clip else None
        by_norm = limit and trainer.gradient_clip_algorithm == "norm"
        norm = torch.nn.utils.get_total_norm(gradients) if by_norm else None
        if loss is not None and not math.isfinite(loss.item()):
            self._refuse(trainer, task, f"train/loss is {loss.item()}")
        if not (_all_finite(gradients) if norm is None else math.isfinite(norm.item())):
            self._refuse(trainer, task, "the gradient is not finite")
        self.moments.clear()
        if norm is not None and limit:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        elif limit:
            torch.nn.utils.clip_grad_value_(parameters, limit)

    def _refuse(self, trainer: pl.Trainer, task: pl.LightningModule, what: str) -> None:
        where = f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}"
        kept = self.report(trainer, task, self.moments, what) if self.report else ""
        what = f"{what} in {where}; the step was not taken"
        fix = NonFiniteError.remedy(clipped=bool(trainer.gradient_clip_val))
        raise NonFiniteError(what, kept or "training", fix)

    # In Lightning's own step the same is asked through its hooks.

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note what the batch begins with."""
        self.before_step(batch)

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor
    ) -> None:
        """Note the loss."""
        self._loss = loss.detach()

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Look at the step."""
        plugin = trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
            scale = plugin.scaler.get_scale()
            if self._loss is not None and not math.isfinite(self._loss.item() / max(scale, 1e-30)):
                self._refuse(trainer, pl_module, f"train/loss is {self._loss.item()}")
            self.moments.clear()
            return
        self.check(trainer, pl_module, optimizer, self._loss, clip=False)


def _all_finite(gradients: list[torch.Tensor]) -> bool:
    """Whether no gradient holds NaN or infinity.

    What a loss scaler asks, with a scale of 1, is a single pass, four times as fast as the norm of
    a small network's gradients. It needs dense tensors of one device.
    """
    if not gradients:
        return True
    first = gradients[0]
    dense = all(type(g) is torch.Tensor and g.layout is torch.strided for g in gradients)
    if not dense or any(g.device != first.device for g in gradients):
        return math.isfinite(torch.nn.utils.get_total_norm(gradients).item())
    found, one = torch.zeros(1, device=first.device), torch.ones(1, device=first.device)
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, one)
    return not found.item()
