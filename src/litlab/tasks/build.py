"""Builds model, loss, metrics and task from a configuration and a DataSpec."""

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from litlab.config.compose import TASKS
from litlab.config.instantiate import build
from litlab.config.schema import Config
from litlab.data.spec import DataSpec
from litlab.tasks.memory import MemoryLimits, enough_for_model, is_out_of_memory, memory_to_train
from litlab.tasks.metrics import build_metrics, direction
from litlab.tasks.optim.schedules import Horizon
from litlab.tasks.task import Parts, Task
from litlab.utils.errors import ConfigError, EnvironmentFault


def build_model(config: Config, spec: DataSpec, limits: MemoryLimits | None = None) -> nn.Module:
    """Build the network for the data.

    Args:
        config: The configuration.
        spec: The data.
        limits: What memory it may take, see `memory.enough_for_model`.

    Raises:
        ConfigError: It refuses its settings, or does not fit into memory.
    """
    with enough_for_model(limits):
        model = build(config.model, spec, where="model", trust=config.trust)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{type(model).__name__} is not an nn.Module", "model._target_", "name a model"
        )
    return model


def build_task(config: Config, spec: DataSpec, *, trial: bool = True) -> Task:
    """Build the model and the task around it, and try the parts on made-up samples.

    Args:
        config: The configuration.
        spec: The data.
        trial: Whether to try it (not worth the time for weights that were trained before).

    Raises:
        ConfigError: A part refuses its settings, or the parts do not fit each other or the data.
    """
    _require_task(config, spec)
    num_classes = 0 if spec.task == "regression" else spec.num_outputs
    metrics = build_metrics(config.metrics, num_classes, config.trust)
    parts = Parts(
        loss=build(config.loss, spec, where="loss", trust=config.trust),
        metrics=metrics,
        optimizer=partial(_optimizer, config),
        scheduler=partial(_scheduler, config),
        monitor=config.monitor,
        mode=config.monitor_mode or direction(config.monitor, metrics),
    )
    model = build_model(config, spec, memory_to_train(config) if trial else None)
    task: Task = build(config.task, model, spec, parts, where="task", trust=config.trust)
    if trial:
        task.try_on(spec)
        with torch.random.fork_rng(devices=[]):
            parts.optimizer(task.model)  # some refuse a model, and the fit would make it too late
    return task


def try_task(task: Task, spec: DataSpec) -> None:
    """Try a task on made-up samples; random numbers stay as they were.

    Raises:
        ConfigError: Its parts do not fit each other or the data.
    """
    # A user's model may draw numbers even in eval mode.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # of metrics, about three samples that are all alike
        _try(task, spec)


def use_settings(task: Task, config: Config) -> None:
    """Let a task make its optimizer and schedule by another configuration from now on."""
    task.parts = replace(
        task.parts, optimizer=partial(_optimizer, config), scheduler=partial(_scheduler, config)
    )


def _require_task(config: Config, spec: DataSpec) -> None:
    """Refuse litlab's own task for another kind of targets, before its parts complain of it."""
    target = config.task["_target_"]
    if target in TASKS and TASKS[target] != spec.task:
        raise ConfigError(
            f"{target.rpartition('.')[2]} does not fit '{spec.name}', whose task is {spec.task}",
            "task",
            f"set task={spec.task}",
        )


def _optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    built: torch.optim.Optimizer = build(
        config.optimizer, model, where="optimizer", trust=config.trust
    )
    return built


def _scheduler(config: Config, optimizer: torch.optim.Optimizer, horizon: Horizon) -> Any:
    return build(config.scheduler, optimizer, horizon, where="scheduler", trust=config.trust)


@torch.no_grad()
def _try(task: Task, spec: DataSpec) -> None:
    """Run three made-up samples through model, loss and metrics: misfits show before training."""
    x, y = (values.to(task.device) for values in _samples(spec, 3))
    modes, where = [(m, m.training) for m in task.model.modules()], "model"
    task.model.eval()  # made-up samples must not reach the running statistics of batch norm
    try:
        outputs = task(x)
        places = spec.shape if spec.task == "language_model" else ()
        expected = (len(x), *places, spec.num_outputs)
        if tuple(outputs.shape) != expected:
            raise ValueError(
                f"it returns {tuple(outputs.shape)} for {len(x)} samples, not {expected}"
            )
        where = "loss"
        _require_one_number(task.loss(task.outputs_for_loss(outputs), task.targets_for_loss(y)))
        for name, metric in task.parts.metrics.items():
            where = f"metrics.{name}"
            metric.update(*(v.to(metric.device) for v in task.measured(outputs, y)))
            _require_one_number(metric.compute())
            metric.reset()
    except Exception as error:  # whatever a user's own part may raise
        if is_out_of_memory(error):
            what = "a batch of three samples needs more memory than is available"
            raise EnvironmentFault(what, where, "choose a smaller one") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"does not fit '{spec.name}' ({spec.kind} {spec.shape}): {reason}",
            where,
            "choose another, or correct it",
        ) from error
    finally:
        for module, training in modes:  # one by one: a frozen part may be in eval mode for good
            module.training = training


def _require_one_number(value: object) -> None:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"it returns {shape}, not one number (see its `average` or `reduction`)")


def _samples(spec: DataSpec, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (number, *spec.shape)
    x = torch.ones(shape, dtype=torch.long) if spec.kind == "text" else torch.zeros(shape)
    if spec.task == "regression":
        return x, torch.tensor([spec.target_mean] * number)
    if spec.task == "multi_label":
        cells = torch.arange(number * spec.num_outputs) % 2
        return x, cells.reshape(number, -1).to(torch.uint8)
    if spec.task == "language_model":
        return x, torch.arange(x.numel()).view(shape) % spec.num_outputs
    return x, torch.arange(number) % spec.num_outputs
