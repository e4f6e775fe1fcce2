"""Checks before a run is recorded: one list of rules, all errors reported at once.

`preflight` needs the configuration alone and runs first; `check_with_data` needs the prepared data
and the model, and runs as soon as they are there. A rule gives a reason for each thing it refuses.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from litlab.config import constraints, signature
from litlab.config.schema import NUM_GIVEN, Component, Config, TrainerConfig
from litlab.data.datamodule import no_full_batch
from litlab.data.spec import DataSpec
from litlab.distributed.launch import as_launched
from litlab.utils.errors import ConfigError, EnvironmentFault, LitlabError, refuse

# Settings of litlab's own parts that have no effect with these data, or with each other.


Unused = tuple[str, str]  # a setting, and why it has no effect
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
EMBEDDING = ("mlp.MLP", "cnn.CNN", "simple.SimpleNN", "simple.SimpleCNN", "auto.auto")


def warn_of_unused(config: Config, spec: DataSpec) -> None:
    """Warn of each setting that differs from its default and is ignored."""
    found = [
        *_explicit("model", config.model, _of_model(config.model, spec)),
        *_explicit("scheduler", config.scheduler, _of_schedule(config.scheduler)),
        *_explicit("optimizer", config.optimizer, _of_optimizer(config)),
    ]
    for setting, why in found:
        warnings.warn(f"{setting} has no effect: {why}", stacklevel=2)


def warn_of_convolved_columns(spec: DataSpec, model: nn.Module) -> None:
    """Warn of a convolution over a table's columns, whose order means nothing."""
    if spec.kind == "tabular" and any(
        isinstance(module, CONVOLUTIONS) and max(module.kernel_size) > 1
        for module in model.modules()
    ):
        warnings.warn(
            "the model convolves over a table's columns, whose order has no meaning: "
            "set model=mlp or model=transformer",
            stacklevel=2,
        )


def _explicit(group: str, node: Component, unused: Iterator[Unused]) -> Iterator[Unused]:
    """Those that are not at the default of the constructor, with their values."""
    for name, why in unused:
        schema = signature.schema(node["_target_"], NUM_GIVEN[group])
        default = schema.model_fields[name].default if schema else None
        if name in node and node[name] != default:
            yield f"{group}.{name}={node[name]}", why


def _of_model(model: Component, spec: DataSpec) -> Iterator[Unused]:
    name = model["_target_"].removeprefix("litlab.models.")
    if name in EMBEDDING and spec.kind != "text" and not spec.cardinalities:
        yield "embed_dim", "the data have neither tokens nor categories"
    if name == "mlp.MLP" and model.get("hidden") == ():
        for setting in ("activation", "norm", "dropout"):
            yield setting, "there is no hidden layer"
    if name == "cnn.CNN" and len(model.get("channels", "several")) == 1:
        yield "pooling", "a single stage does not reduce the resolution"
    if name == "cnn.CNN" and model.get("kernel_size") == 1:
        yield "padding_mode", "a kernel of size 1 needs no padding"
    if name == "transformer.Transformer" and spec.kind in ("tabular", "text"):
        yield "patch_size", "only images and sequences have patches"
    if name == "transformer.Transformer" and spec.kind == "tabular":
        yield "positions", "a table's columns have no positions"


def _of_schedule(scheduler: Component) -> Iterator[Unused]:
    name = scheduler["_target_"].removeprefix("litlab.tasks.optim.schedules.")
    if name == "one_cycle" and not scheduler.get("cycle_momentum", False):
        for setting in ("base_momentum", "max_momentum"):
            yield setting, "scheduler.cycle_momentum is false"
    if name == "step" and scheduler.get("milestones") == ():
        yield "gamma", "there are no milestones"


def _of_optimizer(config: Config) -> Iterator[Unused]:
    name = config.optimizer["_target_"].removeprefix("litlab.tasks.optim.optimizers.")
    cycles = config.scheduler.get("cycle_momentum", False)
    if name == "sgd" and cycles:
        yield "momentum", "scheduler.cycle_momentum replaces it"


Reasons = Iterator[LitlabError]
Rule = Callable[[Config], Reasons]


def preflight(config: Config, rules: Sequence[Rule] = ()) -> Config:
    """Check a configuration by the rules that need no data.

    Args:
        config: Types and ranges are checked already.
        rules: More than the usual ones.

    Returns:
        The configuration with the number of processes that `torchrun` has started, if it has.

    Raises:
        LitlabError: All reasons.
    """
    found: list[LitlabError] = []
    try:
        config = config.model_copy(update={"trainer": as_launched(config.trainer)})
    except ConfigError as error:
        found.append(error)
    found += constraints.reasons(config)
    found += [reason for rule in (*RULES, *rules) for reason in rule(config)]
    refuse(found)
    return config


def check_with_data(config: Config, spec: DataSpec, model: nn.Module) -> None:
    """Check a run by the rules that need data and model; warn of unused settings.

    Raises:
        ConfigError: All reasons.
    """
    warn_of_unused(config, spec)
    warn_of_convolved_columns(spec, model)
    _warn_of_sync_batchnorm(config, model)
    refuse(reason for rule in DATA_RULES for reason in rule(config, spec, model))


def _torch_device(config: Config) -> Reasons:
    """The device exists, but this build of torch cannot use it."""
    trainer = config.trainer
    wants_gpu = trainer.accelerator in ("gpu", "cuda", "mps")
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if wants_gpu and not has_gpu and not any(constraints.device_reasons(trainer)):
        yield ConfigError(
            f"this build of torch ({torch.__version__}) cannot use a {trainer.accelerator} device",
            "trainer.accelerator",
            "install a torch build for it, or use trainer.accelerator=cpu",
        )


def _bfloat16(config: Config) -> Reasons:
    """The GPU does not support bfloat16."""
    trainer = config.trainer
    on_cuda = torch.cuda.is_available() and trainer.accelerator != "cpu"
    needs_bf16 = on_cuda and trainer.precision.startswith("bf16")
    if needs_bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        yield ConfigError(
            f"{torch.cuda.get_device_name()} has no bfloat16",
            "trainer.precision",
            "use 16-mixed or 32-true",
        )


def _tensorboard(config: Config) -> Reasons:
    if config.tracking.tensorboard and find_spec("tensorboard") is None:
        yield EnvironmentFault(
            "TensorBoard is not installed",
            "tracking.tensorboard",
            "pip install 'litlab[tensorboard]'",
        )


def _processes(config: Config) -> Reasons:
    """Settings that do not work with this number of processes."""
    trainer = config.trainer
    number = num_processes(trainer)
    if number == 1:
        if trainer.strategy == "fsdp2":
            yield ConfigError(
                "strategy=fsdp2 splits weights between processes, but there is one",
                "trainer.devices",
                "use 2 or more, or strategy=auto",
            )
        return
    if trainer.budget:
        yield ConfigError(
            "a time budget needs a single process", "trainer.budget", "set trainer.max_epochs"
        )
    if trainer.freeze and trainer.unfreeze_epoch is not None:
        yield ConfigError(
            "several processes cannot unfreeze parameters during training",
            "trainer.unfreeze_epoch",
            "leave it out, or use one device; a second run can continue with init_from",
        )
    for name in ("batch_size_find", "lr_find"):
        if getattr(trainer, name) != "off":
            yield ConfigError(
                "lr_find and batch_size_find need a single process",
                f"trainer.{name}",
                "run it with trainer.devices=1, and set the result",
            )
    for name in ("batch_size", "eval_batch_size"):
        size = getattr(config.loader, name)
        if size < number:
            yield ConfigError(
                f"batches of {size} cannot be shared by {number} processes",
                f"loader.{name}",
                f"use {number} or more",
            )


RULES: tuple[Rule, ...] = (_torch_device, _bfloat16, _tensorboard, _processes)


def folds(config: Config) -> Reasons:
    """Rules of a cross-validation."""
    if config.data.num_folds is None:
        yield ConfigError(
            "the number of folds is not set", "data.num_folds", "set it, e.g. data.num_folds=5"
        )
    if num_processes(config.trainer) > 1:
        what = "folds are trained one after the other, by one process"
        yield ConfigError(what, "trainer.devices", "set trainer.devices=1")
    if config.data.fold is not None:
        yield ConfigError("all folds are run", f"data.fold={config.data.fold}", "leave it out")


def study(config: Config) -> Reasons:
    """Rules of a study."""
    if config.monitor.startswith("train/"):
        fix = "set it, e.g. monitor=val/loss"
        yield ConfigError("a study needs a validation metric", f"monitor={config.monitor}", fix)


def _categories(config: Config, spec: DataSpec, model: nn.Module) -> Reasons:
    if spec.cardinalities and config.trainer.precision in ("bf16-true", "16-true"):
        yield ConfigError(
            "half precision would round the codes of categorical columns",
            "trainer.precision",
            "use bf16-mixed or 32-true",
        )


def _batch_size(config: Config, spec: DataSpec, model: nn.Module) -> Reasons:
    size, available = config.loader.batch_size, spec.sizes["train"]
    if size > available and config.loader.drop_last:
        yield no_full_batch(size, available)
    elif size > available:
        warnings.warn(
            f"loader.batch_size={size} is more than the {available} training samples: "
            "each epoch is one step",
            stacklevel=4,
        )


def _shares(config: Config, spec: DataSpec, model: nn.Module) -> Reasons:
    """Each process needs a sample in at least the first batch."""
    number = num_processes(config.trainer)
    for split in ("train", "val"):
        if spec.sizes[split] < number > 1:
            yield ConfigError(
                f"{spec.sizes[split]} {split} samples cannot be shared by {number} processes",
                "trainer.devices",
                f"use {spec.sizes[split]} processes at most",
            )


def _batch_norm(config: Config, spec: DataSpec, model: nn.Module) -> Reasons:
    """Batch norm cannot compute a variance from a single sample."""
    if not any(isinstance(m, _BatchNorm) and m.training for m in model.modules()):
        return
    size, available = config.loader.batch_size, spec.sizes["train"]
    processes = num_processes(config.trainer)
    # Synchronized, it uses the whole batch, but would include the placeholder of an empty share.
    least = max(2, processes) if config.trainer.sync_batchnorm else 2 * processes
    if size < least:
        yield ConfigError(
            "the model has batch norm, which cannot train on one sample at a time",
            "loader.batch_size",
            f"use {least} or more",
        )
        return
    rest = 0 if config.loader.drop_last else available % size
    if 0 < rest < least and _reaches_last(config, available):
        whose = "" if processes == 1 else f" or less for one of {processes} processes"
        yield ConfigError(
            f"batches of {size} from {available} samples leave a last one of a single sample"
            f"{whose}, which batch norm cannot train on",
            "loader.batch_size, loader.drop_last",
            "use another batch size, or loader.drop_last=true",
        )


DATA_RULES = (_categories, _batch_size, _shares, _batch_norm)


def _warn_of_sync_batchnorm(config: Config, model: nn.Module) -> None:
    has_batch_norm = any(isinstance(m, _BatchNorm) for m in model.modules())
    alone = num_processes(config.trainer) == 1
    if config.trainer.sync_batchnorm and (alone or not has_batch_norm):
        why = "one process trains" if has_batch_norm else "the model has no batch norm"
        warnings.warn(f"trainer.sync_batchnorm has no effect: {why}", stacklevel=3)


def num_processes(trainer: TrainerConfig) -> int:
    """Return how many processes train, on all nodes together."""
    devices = trainer.devices
    if isinstance(devices, list):
        devices = len(devices)
    elif devices == "auto":  # all GPUs, or one process on the CPU
        on_cuda = trainer.accelerator not in ("cpu", "mps") and torch.cuda.is_available()
        devices = torch.cuda.device_count() if on_cuda else 1
    return devices * trainer.num_nodes


def _reaches_last(config: Config, available: int) -> bool:
    """Whether an epoch includes the last, incomplete batch."""
    limit = config.trainer.limit_train_batches
    if isinstance(limit, int):
        return limit > available // config.loader.batch_size
    return limit in (None, 1.0)
