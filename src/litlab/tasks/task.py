"""LightningModules around any model: loss, metrics, optimizer and predictions."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import MeanAbsoluteError, R2Score

from litlab.config.hyperparameters import NonNegative
from litlab.distributed import loss_scaling
from litlab.distributed.fsdp import shard
from litlab.tasks.losses.classification import l1_penalty
from litlab.tasks.metrics import EpochMeter, direction
from litlab.tasks.optim.optimizers import adamw
from litlab.tasks.optim.schedules import Horizon, one_cycle
from litlab.utils.errors import ConfigError, LitlabError, NonFiniteError, refuse
from litlab.utils.output import nth_epoch

if TYPE_CHECKING:
    from litlab.data.spec import DataSpec

Batch = tuple[torch.Tensor, torch.Tensor]
OptimizerMaker = Callable[..., torch.optim.Optimizer]
_TASKS = {  # of litlab's own, by the task of the data
    "classification": "ClassificationTask",
    "multi_label": "MultiLabelTask",
    "regression": "RegressionTask",
    "language_model": "LanguageModelTask",
}
SchedulerMaker = Callable[[torch.optim.Optimizer, Horizon], Any]


@dataclass(frozen=True)
class Parts:
    """The parts of a task besides its model.

    Attributes:
        loss: `(outputs, targets) -> mean loss of the batch`. A mean that is not over samples has a
            method `denominator(outputs, targets)`: the scalar that it divides by, None for B.
        metrics: By name; copied for each split.
        optimizer: Makes the optimizer for a model.
        scheduler: Makes Lightning's scheduler entry for an optimizer and a horizon.
        monitor: The value that selects, such as "val/loss".
        mode: "min" or "max": which way is better.
    """

    loss: nn.Module
    metrics: Mapping[str, Metric]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    scheduler: Callable[[torch.optim.Optimizer, Horizon], Any]
    monitor: str
    mode: str


class Task(pl.LightningModule):
    """A model with its loss, metrics and optimizer.

    One step is forward, loss, zero_grad, backward, step, in Lightning's order; a test compares it
    with the hand-written loop, weight for weight.

    Args:
        model: Maps inputs `(B, *shape)` to outputs `(B, C)`, of a language model `(B, L, V)`.
        spec: The data.
        parts: Loss, metrics, optimizer, scheduler: what a configuration makes. In Python, leave it
            out and give any of the following instead.
        loss: `(outputs, targets) -> mean loss of the batch`, a scalar.
        optimizer: An optimizer class, or `functools.partial` of one, which gets
            `model.parameters()`; any other function gets the model. AdamW with a learning rate of
            0.003 and decay of weights alone, if None.
        scheduler: `(optimizer, horizon) -> Lightning's scheduler entry`; see
            `litlab.tasks.optim.schedules`. One cycle, if None.
        metrics: By name; computed at the end of each epoch, over all of its samples.
        monitor: The value that a plateau schedule and callbacks go by, such as "val/loss".
        l1: Weight of the L1 penalty, the sum of |w| over all weights, in the training loss.

    Raises:
        ValueError: Both `parts` and one of what it holds are given.
        ConfigError: A part is of another type, or the data are of another task.
    """

    targets: str | None = None  # the task of data that it is for; None: any

    def __init__(
        self,
        model: nn.Module,
        spec: "DataSpec | None" = None,
        parts: Parts | None = None,
        *,
        loss: nn.Module | None = None,
        optimizer: OptimizerMaker | None = None,
        scheduler: SchedulerMaker | None = None,
        metrics: Mapping[str, Metric] | None = None,
        monitor: str = "val/loss",
        l1: NonNegative = 0.0,
    ) -> None:
        _require_parts(model, spec, parts, loss, optimizer, scheduler, metrics, monitor)
        self._require_targets(spec)
        super().__init__()
        if parts is None:
            metrics = self.default_metrics(spec) if metrics is None else metrics
            parts = Parts(
                loss=self.default_loss() if loss is None else loss,
                metrics=metrics,
                optimizer=_of_model(optimizer or partial(adamw, lr=3e-3)),
                scheduler=scheduler or one_cycle,
                monitor=monitor,
                mode=direction(monitor, metrics),
            )
        elif any(part is not None for part in (loss, optimizer, scheduler, metrics)):
            raise ValueError("give either parts, or loss, optimizer, scheduler and metrics")
        self.model, self.parts, self.l1 = model, parts, l1
        self._sharded, self._tried = False, False
        self.loss = parts.loss
        self.meters = nn.ModuleDict(
            {f"{s}_split": EpochMeter(parts.metrics) for s in ("train", "val")}
        )

    def _require_targets(self, spec: "DataSpec | None") -> None:
        """Refuse data of other targets; a class of one's own may take any.

        Raises:
            ConfigError: They are for another task.
        """
        if spec is None or spec.task not in _TASKS or self.targets in (None, spec.task):
            return
        what = f"{type(self).__name__} does not fit '{spec.name}', whose task is {spec.task}"
        raise ConfigError(what, "task", f"use litlab.{_TASKS[spec.task]}")

    def try_on(self, spec: "DataSpec") -> None:
        """Run three made-up samples through model, loss and metrics, once.

        Raises:
            ConfigError: They do not fit each other or the data.
        """
        from litlab.tasks.build import try_task  # which builds tasks, and so imports this module

        if not self._tried and spec.task in _TASKS:
            self._require_targets(spec)
            try_task(self, spec)
        self._tried = True

    def on_fit_start(self) -> None:
        """Find out whether the parts fit the data, unless that was done."""
        spec = getattr(getattr(self.trainer, "datamodule", None), "spec", None)
        if spec is not None and hasattr(spec, "num_outputs"):
            self.try_on(spec)

    @property
    def quiet_steps(self) -> bool:
        """Whether a training step logs nothing itself, so that the loop need not collect it."""
        return type(self).training_step is Task.training_step

    def configure_model(self) -> None:
        """Shard the weights, where the strategy is FSDP2."""
        if self.device_mesh is not None and not self._sharded:
            shard(self.model, self.device_mesh)
            self._sharded = True

    @abstractmethod
    def default_loss(self) -> nn.Module:
        """Return the default loss."""

    @abstractmethod
    def default_metrics(self, spec: "DataSpec | None") -> dict[str, Metric]:
        """Return the default metrics."""

    @abstractmethod
    def measured(self, outputs: torch.Tensor, targets: torch.Tensor) -> Batch:
        """Return outputs and targets in the form that metrics take."""

    @abstractmethod
    def targets_for_loss(self, targets: torch.Tensor) -> torch.Tensor:
        """Return targets in the form that the loss takes."""

    def outputs_for_loss(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return outputs in the form that the loss takes; unchanged by default."""
        return outputs

    def test_metrics(self) -> Mapping[str, Metric]:
        """Return the metrics that an evaluation computes; those of training by default."""
        return self.parts.metrics

    @abstractmethod
    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return predictions in the user's terms."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the model's raw outputs, `(B, C)` or of a language model `(B, L, V)`."""
        outputs: torch.Tensor = self.model(x)
        return outputs

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch, L1 penalty included."""
        loss = self._step("train", batch)
        return loss + self.l1 * l1_penalty(self.model.parameters()) if self.l1 else loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure a validation batch."""
        self._step("val", batch)

    def predict_step(self, batch: Any, batch_idx: int = 0) -> torch.Tensor:
        """Return predictions in the user's terms: of classes, their probabilities."""
        return self.predict(self(batch[0] if isinstance(batch, tuple | list) else batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Refuse: the test split is for `Run.evaluate`.

        Raises:
            ConfigError: Always.
        """
        what = "a litlab task is not measured by Trainer.test"
        fix = "use litlab.train(config, task=task).evaluate(), or trainer.validate(task, loader)"
        raise ConfigError(what, "trainer.test", fix)

    def _step(self, split: str, batch: Batch) -> torch.Tensor:
        x, y = batch[:2]
        share: tuple[Any, ...] = batch[
            2:
        ]  # with several processes: this process's share of the batch
        outputs, targets = self(x), self.targets_for_loss(y)
        # At least float32: with precision=bf16-true the model's outputs are bfloat16.
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if targets.is_floating_point():
            targets = targets.to(outputs.dtype)
        for_loss = self.outputs_for_loss(outputs)
        loss: torch.Tensor = self.loss(for_loss, targets)
        denominator = getattr(self.loss, "denominator", lambda *_: None)
        weight = denominator(for_loss.detach(), targets)
        measured = (*self.measured(outputs.detach(), y), weight)
        for part in share:
            measured = loss_scaling.counted(*measured, part)
        self._meter(split).add(loss, *measured)
        if share and split == "train":
            world, add = self.trainer.world_size, self._sum_over_processes
            return loss_scaling.scaled(loss, weight, share[0], world, add)
        return loss

    def meter_states(self) -> Any:
        """Return what the epoch's training metrics have collected so far."""
        return self._meter("train").state()

    def load_meter_states(self, states: list[Any], rank: int, world: int) -> None:
        """Restore what each process had collected; if their number changed, rank 0 takes all."""
        same = len(states) == world
        own = [states[rank]] if same else states if rank == 0 else []
        self._meter("train").load_state(own, self.device)

    def _meter(self, split: str) -> EpochMeter:
        meter = self.meters[f"{split}_split"]
        assert isinstance(meter, EpochMeter)
        return meter

    def on_train_epoch_end(self) -> None:
        """Record the epoch's training loss, metrics and learning rate."""
        self._finish("train", lr=self._learning_rate())

    def on_validation_epoch_end(self) -> None:
        """Record validation; runs before the best checkpoint is chosen."""
        self._finish("val")

    def _finish(self, split: str, **more: float) -> None:
        values = self._meter(split).compute(self._sum_over_processes)
        named = {f"{split}/{name}": value for name, value in values.items()}
        fix = NonFiniteError.remedy(clipped=bool(self.trainer.gradient_clip_val))
        self._refuse_non_finite(named, f"{split}/loss", fix)
        # The best epoch and early stopping would treat a NaN like a number.
        self._refuse_non_finite(named, self.parts.monitor, "choose another monitor")
        # Already equal in every process; without sync_dist Lightning warns.
        several = self.trainer.world_size > 1
        self.log_dict({**named, **more}, on_step=False, on_epoch=True, sync_dist=several)

    def _refuse_non_finite(self, values: Mapping[str, float], name: str, fix: str) -> None:
        if not math.isfinite(values.get(name, 0.0)):
            what = f"{name} is {values[name]} in epoch {nth_epoch(self.current_epoch)}"
            raise NonFiniteError(what, "training", fix)

    def _sum_over_processes(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.trainer.world_size == 1:
            return tensor
        # NCCL can only sum tensors on a GPU.
        reduced = self.trainer.strategy.reduce(tensor.to(self.device), reduce_op="sum")
        assert isinstance(reduced, torch.Tensor)
        return reduced

    def _learning_rate(self) -> float:
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        """Make the optimizer, and a schedule as long as the training."""
        optimizer = self.parts.optimizer(self.model)
        horizon = Horizon(
            total_steps=int(self.trainer.estimated_stepping_batches),
            monitor=self.parts.monitor,
            mode="max" if self.parts.mode == "max" else "min",
        )
        return {"optimizer": optimizer, "lr_scheduler": self.parts.scheduler(optimizer, horizon)}


def _require_parts(
    model: object,
    spec: object,
    parts: object,
    loss: object,
    optimizer: object,
    scheduler: object,
    metrics: object,
    monitor: object,
) -> None:
    """Refuse parts of another type, which would fail in the middle of a fit.

    Raises:
        ConfigError: All that is wrong.
    """
    wrong: list[LitlabError] = []

    def refuse_unless(fits: bool, name: str, value: object, fix: str) -> None:
        kind = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        shown = f"{value!r}" if isinstance(value, str) else kind
        if not fits:
            wrong.append(ConfigError(f"{name} is {shown}", f"litlab task, {name}", fix))

    fix = "give an nn.Module, such as litlab.models.CNN(data.spec)"
    refuse_unless(isinstance(model, nn.Module), "model", model, fix)
    fix = "give data.spec of a litlab.DataModule, or leave it out"
    refuse_unless(spec is None or hasattr(spec, "num_outputs"), "spec", spec, fix)
    fix = "leave it out; give loss, optimizer, scheduler and metrics by name"
    refuse_unless(parts is None or isinstance(parts, Parts), "parts", parts, fix)
    fix = "give an object or a function: loss=torch.nn.CrossEntropyLoss()"
    refuse_unless(loss is None or _is_function(loss), "loss", loss, fix)
    fix = "give a class or a function: optimizer=functools.partial(torch.optim.SGD, lr=0.1)"
    refuse_unless(optimizer is None or callable(optimizer), "optimizer", optimizer, fix)
    made = getattr(scheduler, "func", scheduler)
    torchs = isinstance(made, type) and issubclass(made, torch.optim.lr_scheduler.LRScheduler)
    fix = "give a function of an optimizer and a horizon, see litlab.tasks.optim.schedules"
    fits = scheduler is None or (callable(scheduler) and not torchs)
    refuse_unless(fits, "scheduler", scheduler, fix)
    fix = 'give torchmetrics by name: metrics={"f1": MulticlassF1Score(num_classes=10)}'
    fits = isinstance(metrics, Mapping) and all(isinstance(m, Metric) for m in metrics.values())
    refuse_unless(metrics is None or fits, "metrics", metrics, fix)
    refuse_unless(isinstance(monitor, str), "monitor", monitor, 'give a name: "val/loss"')
    refuse(wrong)


def _is_function(part: object) -> bool:
    return callable(part) and not isinstance(part, type)


def _of_model(maker: OptimizerMaker) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Return a function of the model: torch's own optimizers are classes that take parameters."""
    made = maker.func if isinstance(maker, partial) else maker
    if isinstance(made, type) and issubclass(made, torch.optim.Optimizer):
        return lambda model: maker(model.parameters())
    return maker


def given_in_python(*_: object, name: str) -> Any:
    """Placeholder in a record for a task, or part of one, that was passed as a Python object.

    Args:
        name: Its class.

    Raises:
        ValueError: Always: it cannot be built again.
    """
    raise ValueError(f"the run trained {name}, an object of Python, which cannot be built again")


class ClassificationTask(Task):
    """Classification: logits `(B, C)`, targets `(B,)` or soft labels `(B, C)` of mixed samples.

    By default with cross entropy and accuracy. See `Task` for the arguments.
    """

    targets = "classification"

    def default_loss(self) -> nn.Module:
        """Return the cross entropy, in nats."""
        return nn.CrossEntropyLoss()

    def default_metrics(self, spec: "DataSpec | None") -> dict[str, Metric]:
        """Return the accuracy over all samples."""
        return {"accuracy": MulticlassAccuracy(average="micro")}

    def measured(self, outputs: torch.Tensor, targets: torch.Tensor) -> Batch:
        """Return logits and class numbers; a soft label counts as its largest class."""
        return outputs, targets.argmax(1) if targets.is_floating_point() else targets

    def targets_for_loss(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the targets unchanged."""
        return targets

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return class probabilities `(B, C)`.

        They are the softmax of the logits, unless the loss says `link = "sigmoid"`: a loss that
        fits each class against the rest makes `sigmoid(z_c)` the probability of class c. These do
        not sum to 1, but a sample has exactly one class, so they are divided by their sum; the
        softmax of such logits would be surer than what was fitted.
        """
        outputs = outputs.float()
        if getattr(self.loss, "link", "softmax") == "sigmoid":
            outputs = nn.functional.logsigmoid(outputs)  # softmax divides the sigmoids by their sum
        return outputs.softmax(1)


class RegressionTask(Task):
    """Regression: standardized targets in the loss, original units in metrics and predictions.

    The mean and deviation are of the train split; without them a loss in squared units of the
    target would set the step size. Without a spec, targets are taken as they are.

    By default with the squared error as loss, and with the mean absolute error and R2. See `Task`
    for the arguments.
    """

    targets = "regression"

    def __init__(
        self,
        model: nn.Module,
        spec: "DataSpec | None" = None,
        parts: Parts | None = None,
        *,
        loss: nn.Module | None = None,
        optimizer: OptimizerMaker | None = None,
        scheduler: SchedulerMaker | None = None,
        metrics: Mapping[str, Metric] | None = None,
        monitor: str = "val/loss",
        l1: NonNegative = 0.0,
    ) -> None:
        own: dict[str, Any] = {"loss": loss, "optimizer": optimizer, "scheduler": scheduler}
        super().__init__(model, spec, parts, **own, metrics=metrics, monitor=monitor, l1=l1)
        # No buffers: precision=bf16-true would round them, and evaluation would not.
        self._mean = torch.tensor(spec.target_mean if spec else [0.0])
        self._std = torch.tensor(spec.target_std if spec else [1.0])

    def default_loss(self) -> nn.Module:
        """Return the mean squared error, of standardized targets."""
        return nn.MSELoss()

    def default_metrics(self, spec: "DataSpec | None") -> dict[str, Metric]:
        """Return mean absolute error and R2, over all targets."""
        return {"mae": MeanAbsoluteError(), "r2": R2Score()}

    def _target_statistics(self, device: torch.device) -> Batch:
        if self._mean.device != device:
            self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self._mean, self._std

    def measured(self, outputs: torch.Tensor, targets: torch.Tensor) -> Batch:
        """Return both in the target's original unit, `(B, T)`; `(B,)` for a single target."""
        predictions = self.predict(outputs)
        if targets.shape[1] == 1:
            return predictions.squeeze(1), targets.squeeze(1)
        return predictions, targets

    def targets_for_loss(self, targets: torch.Tensor) -> torch.Tensor:
        """Return standardized targets `(B, T)`."""
        mean, std = self._target_statistics(targets.device)
        return (targets - mean) / std

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return targets in their original unit, `(B, T)`."""
        mean, std = self._target_statistics(outputs.device)
        return outputs.float() * std + mean


class LanguageModelTask(Task):
    """Language model: logits `(B, L, V)`, targets `(B, L)`, the next token of each position.

    Loss and metrics take every position as a sample, `(B * L, V)` and `(B * L,)`: the loss is the
    mean cross-entropy per token, in nats. By default with cross entropy and accuracy. See `Task`
    for the arguments.
    """

    targets = "language_model"

    def default_loss(self) -> nn.Module:
        """Return the cross entropy, in nats per token."""
        return nn.CrossEntropyLoss()

    def default_metrics(self, spec: "DataSpec | None") -> dict[str, Metric]:
        """Return the share of correctly predicted tokens."""
        return {"accuracy": MulticlassAccuracy(average="micro")}

    def measured(self, outputs: torch.Tensor, targets: torch.Tensor) -> Batch:
        """Return logits and token ids, one row per token."""
        return outputs.flatten(0, 1), targets.flatten()

    def outputs_for_loss(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return logits `(B * L, V)`."""
        return outputs.flatten(0, 1)

    def targets_for_loss(self, targets: torch.Tensor) -> torch.Tensor:
        """Return token ids `(B * L,)`."""
        return targets.flatten()

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return each position's probabilities of the next token, `(B, L, V)`."""
        return outputs.float().softmax(-1)
