"""Settings that do not go together, or not with this machine: what the configuration alone tells.

Each rule gives a reason for each thing that it refuses; all reasons are reported at once. No rule
imports torch: a refusal takes about a second. `litlab.training.preflight` adds those that need it.
"""

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from litlab.config.schema import Component, Config, TrainerConfig
from litlab.utils import gpus
from litlab.utils.errors import ConfigError, EnvironmentFault, LitlabError, nearest

Reasons = Iterator[LitlabError]
GIVEN = "litlab.tasks.task.given_in_python"  # in place of a part that was an object of Python
CXX = {"Darwin": "clang++", "Windows": "cl"}.get(platform.system(), "g++")  # torch.compile's choice


def reasons(config: Config, *, device: bool = True) -> list[LitlabError]:
    """Return all reasons to refuse a configuration.

    Args:
        config: Types and ranges are checked already.
        device: Whether the devices it asks for must be here.
    """
    found = [reason for rule in RULES for reason in rule(config)]
    trainer_rules = (*TRAINER_RULES, *DEVICE_RULES) if device else TRAINER_RULES
    return found + [reason for rule in trainer_rules for reason in rule(config.trainer)]


def device_reasons(trainer: TrainerConfig) -> Reasons:
    """Yield an error for each requested device that this machine does not have."""
    return (reason for rule in DEVICE_RULES for reason in rule(trainer))


def components(config: Config) -> Iterator[tuple[str, Component]]:
    """Give every part that is built from a `_target_`, with its place in the configuration."""
    yield "data.source", config.data.source
    for group in ("augment", "metrics"):
        for name, node in getattr(config, group).items():
            yield f"{group}.{name}", node
    for group in ("model", "task", "loss", "optimizer", "scheduler"):
        yield group, getattr(config, group)


def _path(config: Config) -> Reasons:
    """A path that the source does not take."""
    path, source = config.data.path, config.data.source
    if path is not None and "path" not in source and path not in map(str, source.values()):
        name = source["_target_"].rpartition(".")[2]
        yield ConfigError(f"{name} takes no path", "data.path", "leave it out")


def _monitor(config: Config) -> Reasons:
    """A monitor that nothing measures."""
    if "loss" in config.metrics:
        yield ConfigError("the name 'loss' is reserved", "metrics.loss", "give it another name")
    split, _, name = config.monitor.partition("/")
    known = [f"{s}/{m}" for s in ("val", "train") for m in ("loss", *config.metrics)]
    if config.monitor in known:
        return
    task = config.task["_target_"]
    if split != "test" and (not task.startswith("litlab.") or task == GIVEN):
        return  # a LightningModule of one's own logs what it likes: the first epoch will tell
    if split == "test":
        fix = "do not select by the test split: use val/" + (name or "loss")
    else:
        fix = nearest(config.monitor, known)
    yield ConfigError(f"no metric is called '{config.monitor}'", "monitor", fix)


def _task(config: Config) -> Reasons:
    """Shipped losses and metrics of another task; a user's own are tried when built."""
    task = config.task["_target_"].rpartition(".")[2]
    if not config.task["_target_"].startswith("litlab.tasks."):
        return
    kinds = {
        "LanguageModelTask": "language models",
        "MultiLabelTask": "several labels a sample",
    }
    for where, node in components(config):
        if where == "task" or not _misfit(node["_target_"], task):
            continue
        name, group = node["_target_"].rpartition(".")[2], where.partition(".")[0]
        kind = kinds.get(task, task.removesuffix("Task").lower())
        fix = f"choose another {group}, or another task"
        if task == "MultiLabelTask":
            fix = f"use {OF_SEVERAL[group]}" if group in OF_SEVERAL else fix
        yield ConfigError(f"{name} is not for {kind}", where, fix)


OF_SEVERAL = {
    "loss": "loss=bce or loss=label_focal",
    "metrics": "metrics=[average_precision,multi_label_f1,exact_match,hamming_loss], or some of it",
}
REGRESSION = ("litlab.tasks.losses.regression.", "torchmetrics.regression.")
SEVERAL = (
    "litlab.tasks.losses.multi_label.",
    "litlab.tasks.multi_label.",
    "torchmetrics.classification.Multilabel",
)
CLASSES = ("litlab.tasks.losses.", "litlab.tasks.perplexity.", "torchmetrics.classification.")
# Not the facades of torchmetrics, such as AUROC, which have a setting `task`.
ONE_CLASS = (
    *CLASSES[:2],
    "torchmetrics.classification.Multiclass",
    "torchmetrics.classification.Binary",
)


def _misfit(target: str, task: str) -> bool:
    """Whether a shipped loss or metric is certainly for another of litlab's tasks."""
    if target.startswith(REGRESSION):
        return task in ("ClassificationTask", "LanguageModelTask", "MultiLabelTask")
    if target.startswith(SEVERAL):
        return task in ("ClassificationTask", "LanguageModelTask", "RegressionTask")
    if task == "MultiLabelTask":
        return target.startswith(ONE_CLASS)
    return task == "RegressionTask" and target.startswith(CLASSES)


def _averages(trainer: TrainerConfig) -> Reasons:
    """Averages of the weights."""
    if trainer.ema and trainer.swa:
        yield ConfigError(
            "both average the weights", "trainer.ema, trainer.swa", "set one of them to null"
        )
    if trainer.budget and trainer.swa:
        yield ConfigError(
            "trainer.swa needs a fixed number of epochs",
            "trainer.budget, trainer.swa",
            "set trainer.max_epochs, or use trainer.ema",
        )


def _freezing(trainer: TrainerConfig) -> Reasons:
    """Parts that are trained later."""
    epoch = trainer.unfreeze_epoch
    if epoch is None:
        return
    if not trainer.freeze:
        yield ConfigError(
            "no parameter is frozen",
            "trainer.unfreeze_epoch",
            "set trainer.freeze, or leave it out",
        )
    if not trainer.budget and epoch >= trainer.max_epochs:
        yield ConfigError(
            f"unfreeze_epoch={epoch} (counted from 0) is not below max_epochs={trainer.max_epochs}",
            "trainer.unfreeze_epoch, trainer.max_epochs",
            "lower it, or leave it out",
        )


def _unused(trainer: TrainerConfig) -> Reasons:
    """What would be ignored because of what another setting says."""
    if trainer.gradient_clip_algorithm != "norm" and trainer.gradient_clip_val is None:
        yield ConfigError(
            "no gradient is clipped",
            "trainer.gradient_clip_algorithm",
            "set trainer.gradient_clip_val, or leave it out",
        )
    if trainer.batch_size_limit is not None and trainer.batch_size_find == "off":
        yield ConfigError(
            "trainer.batch_size_find is off",
            "trainer.batch_size_limit",
            "set trainer.batch_size_find=use, or leave it out",
        )
    if trainer.overfit_batches and trainer.limit_train_batches is not None:
        yield ConfigError(
            "both set the number of training batches",
            "trainer.overfit_batches, trainer.limit_train_batches",
            "set trainer.limit_train_batches=null",
        )


def _determinism(trainer: TrainerConfig) -> Reasons:
    """A search for the fastest kernel, which makes results differ."""
    if trainer.deterministic is True and trainer.benchmark:
        yield ConfigError(
            "cuDNN's search for the fastest algorithm makes results differ between runs",
            "trainer.benchmark, trainer.deterministic",
            "set one of them to false",
        )


def _sharded(trainer: TrainerConfig) -> Reasons:
    """What needs each process to have every weight."""
    if not trainer.strategy.startswith("fsdp"):
        return
    for name in ("ema", "swa", "log_norms", "compile", "channels_last"):
        if getattr(trainer, name) not in (False, None, "auto"):
            yield ConfigError(
                f"strategy={trainer.strategy} splits the weights between the processes",
                f"trainer.{name}, trainer.strategy",
                f"leave trainer.{name} out, or use strategy=ddp",
            )
    if trainer.precision not in ("32-true", "bf16-mixed"):
        yield ConfigError(
            f"precision {trainer.precision} cannot be combined with strategy={trainer.strategy}",
            "trainer.precision, trainer.strategy",
            "use bf16-mixed or 32-true",
        )


def _device(trainer: TrainerConfig) -> Reasons:
    """A device that this machine certainly lacks; torch has the last word later."""
    if _has_rocm():
        return
    kind, asked = trainer.accelerator, trainer.devices
    found = _found(trainer)
    needed = _number_needed(asked)
    if kind in found and found[kind] < needed:
        yield ConfigError(
            f"trainer.accelerator={kind}, trainer.devices={asked}: this machine has {found[kind]}",
            "trainer.accelerator, trainer.devices",
            "use trainer.accelerator=cpu, or auto",
        )
    if _on_cpu(trainer) and isinstance(asked, list):
        yield ConfigError(
            f"devices={asked} lists GPUs, but none is used",
            "trainer.devices",
            "set the number of processes: 1, 2, ...",
        )


def _compiler(trainer: TrainerConfig) -> Reasons:
    """torch.compile without a compiler."""
    if trainer.compile and _on_cpu(trainer) and not shutil.which(os.environ.get("CXX", CXX)):
        yield EnvironmentFault(
            f"no C++ compiler ({os.environ.get('CXX', CXX)}), which torch.compile needs",
            "trainer.compile",
            "install one (Debian: apt-get install g++), or set trainer.compile=false",
        )


def _precision(trainer: TrainerConfig) -> Reasons:
    """A precision that only GPUs have."""
    precision = trainer.precision
    if _on_cpu(trainer) and precision in ("16-mixed", "16-true", "transformer-engine"):
        yield ConfigError(
            f"precision {precision} needs a GPU", "trainer.precision", "use bf16-mixed or 32-true"
        )


RULES: tuple[Callable[[Config], Reasons], ...] = (_path, _monitor, _task)
TRAINER_RULES: tuple[Callable[[TrainerConfig], Reasons], ...] = (
    _averages,
    _freezing,
    _unused,
    _determinism,
    _sharded,
)
DEVICE_RULES: tuple[Callable[[TrainerConfig], Reasons], ...] = (_device, _compiler, _precision)


def _has_rocm() -> bool:
    """Whether AMD's driver is there, whose GPUs torch calls "cuda" as well."""
    return Path("/dev/kfd").exists()


def _found(trainer: TrainerConfig) -> dict[str, int]:
    """Return how many devices of each kind this machine has, as far as they are asked for."""
    cuda = 0 if trainer.accelerator in ("cpu", "mps") else _count_cuda()
    mps = _has_mps()
    return {"cuda": cuda, "mps": mps, "gpu": max(cuda, mps)}


def _on_cpu(trainer: TrainerConfig) -> bool:
    kind = trainer.accelerator
    if kind == "auto" and _has_rocm():
        return False
    return kind == "cpu" or (kind == "auto" and not _found(trainer)["gpu"])


def _number_needed(devices: int | str | list[int]) -> int:
    if isinstance(devices, list):
        return max(devices, default=0) + 1
    return devices if isinstance(devices, int) else 1


def _has_mps() -> int:
    return int(platform.system() == "Darwin" and platform.machine() == "arm64")


def _count_cuda() -> int:
    return len(gpus.visible())
