"""Refuses what only data and model together show to be impossible, before a run is recorded."""

import warnings
from importlib.util import find_spec

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from litlab.config.schema import Config, TrainerConfig
from litlab.data.spec import DataSpec
from litlab.training.unused_settings import warn_of_convolved_columns, warn_of_unused
from litlab.utils.errors import ConfigError, EnvironmentFault


def check_feasible(config: Config, spec: DataSpec, model: nn.Module) -> None:
    """Refuse a run that could not take its first step, or its last.

    Raises:
        ConfigError: The batches do not fit the data, the processes, or batch norm.
        EnvironmentFault: TensorBoard is asked for and not installed.
    """
    if config.tracking.tensorboard and find_spec("tensorboard") is None:
        raise EnvironmentFault(
            "TensorBoard is not installed",
            "tracking.tensorboard",
            "pip install 'litlab[tensorboard]'",
        )
    if spec.cardinalities and config.trainer.precision in ("bf16-true", "16-true"):
        raise ConfigError(
            "half precision would round the codes of categorical columns",
            "trainer.precision",
            "use bf16-mixed or 32-true",
        )
    processes = num_processes(config.trainer)
    warn_of_unused(config, spec)
    warn_of_convolved_columns(spec, model)
    _check_size(config, spec.sizes["train"])
    if processes == 1 and config.trainer.strategy == "fsdp2":
        raise ConfigError(
            "strategy=fsdp2 shares the weights out, and there is one process",
            "trainer.devices",
            "use 2 or more, or strategy=auto",
        )
    if processes > 1 and config.trainer.budget:
        raise ConfigError(
            "several processes have several clocks", "trainer.budget", "set trainer.max_epochs"
        )
    if processes > 1:
        _check_shares(config, spec, processes)
    has_batch_norm = any(isinstance(m, _BatchNorm) for m in model.modules())
    if config.trainer.sync_batchnorm and (processes == 1 or not has_batch_norm):
        why = "one process trains" if has_batch_norm else "the model has no batch norm"
        warnings.warn(f"trainer.sync_batchnorm has no effect: {why}", stacklevel=2)
    if any(isinstance(m, _BatchNorm) and m.training for m in model.modules()):
        _check_batch_norm(config, spec.sizes["train"], processes)


def num_processes(trainer: TrainerConfig) -> int:
    """Return how many processes train, on all nodes together."""
    devices = trainer.devices
    if isinstance(devices, list):
        devices = len(devices)
    elif devices == "auto":  # every GPU, but one process on the CPU
        on_cuda = trainer.accelerator not in ("cpu", "mps") and torch.cuda.is_available()
        devices = torch.cuda.device_count() if on_cuda else 1
    return devices * trainer.num_nodes


def _check_size(config: Config, available: int) -> None:
    size = config.loader.batch_size
    if size > available and config.loader.drop_last:
        raise ConfigError(
            f"batches of {size} from {available} samples leave no step",
            "loader.batch_size",
            f"at most {available}, or loader.drop_last=false",
        )
    if size > available:
        warnings.warn(
            f"loader.batch_size={size} is more than the {available} training samples: "
            "each epoch is one step",
            stacklevel=4,
        )


def _check_shares(config: Config, spec: DataSpec, processes: int) -> None:
    """Each process needs a sample of its own in the first batch at least."""
    for name, split in (("batch_size", "train"), ("eval_batch_size", "val")):
        size = getattr(config.loader, name)
        if size < processes:
            raise ConfigError(
                f"batches of {size} cannot be shared by {processes} processes",
                f"loader.{name}",
                f"use {processes} or more",
            )
        if spec.sizes[split] < processes:
            raise ConfigError(
                f"{spec.sizes[split]} {split} samples cannot be shared by {processes} processes",
                "trainer.devices",
                f"use {spec.sizes[split]} processes at most",
            )


def _check_batch_norm(config: Config, available: int, processes: int) -> None:
    """Batch norm has no variance of a single sample."""
    size = config.loader.batch_size
    # Synchronized, it takes the whole batch together; but what stands in for no sample would count.
    least = max(2, processes) if config.trainer.sync_batchnorm else 2 * processes
    if size < least:
        raise ConfigError(
            "the model has batch norm, which cannot train on one sample at a time",
            "loader.batch_size",
            f"use {least} or more",
        )
    rest = 0 if config.loader.drop_last else available % size
    if 0 < rest < least and _reaches_last(config, available):
        whose = "" if processes == 1 else f" or less for one of {processes} processes"
        raise ConfigError(
            f"batches of {size} from {available} samples leave a last one of a single sample"
            f"{whose}, which batch norm cannot train on",
            "loader.batch_size, loader.drop_last",
            "use another batch size, or loader.drop_last=true",
        )


def _reaches_last(config: Config, available: int) -> bool:
    """Whether an epoch comes to the batch that is not full."""
    limit = config.trainer.limit_train_batches
    if isinstance(limit, int):
        return limit > available // config.loader.batch_size
    return limit in (None, 1.0)
