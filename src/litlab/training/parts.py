"""What a run trains and on what: built from its configuration, or given in Python."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

import lightning.pytorch as pl
from torch import nn

from litlab.config.compose import COMPOSED, follow_targets
from litlab.config.constraints import GIVEN
from litlab.config.schema import Config
from litlab.data.datamodule import ArrayDataModule, DataModule
from litlab.data.prepare.open import open_or_prepare
from litlab.data.spec import DataSpec
from litlab.distributed.launch import is_first_process
from litlab.runs.checkpoint.resume import Interruption, check_fits
from litlab.tasks import own_module
from litlab.tasks.build import build_task
from litlab.tasks.task import Task
from litlab.training.freeze import freeze
from litlab.training.preflight import check_with_data, preflight
from litlab.training.warm_start import WarmStart, init_from
from litlab.utils import seeding
from litlab.utils.errors import ConfigError, refuse, require
from litlab.utils.names import file_name
from litlab.utils.output import say

TARGETS = {
    "classification": "classes",
    "multi_label": "several labels a sample",
    "regression": "numbers",
    "language_model": "tokens",
}


@dataclass(frozen=True)
class RunParts:
    """What a run is put together from.

    Attributes:
        config: The configuration, with a name for the run.
        task: What is trained.
        data: On what.
        spec: What is known of the data.
        warm_start: The weights of another run that it starts from, if any.
    """

    config: Config
    task: pl.LightningModule
    data: pl.LightningDataModule
    spec: DataSpec
    warm_start: WarmStart | None


def require_arguments(
    config: object, task: object, data: object, monitor: object, callbacks: object
) -> None:
    """Refuse arguments of `litlab.train` that are of another type, all of it at once.

    Raises:
        ConfigError: One is.
    """
    named = task.__name__ if isinstance(task, type) else "MyModule"
    of_module = f"give an object of a LightningModule: task={named}(...)"
    if isinstance(task, nn.Module):
        of_module = f"use task=litlab.ClassificationTask({type(task).__name__}(...))"
    of_data = "give a LightningDataModule, such as litlab.DataModule(config) or "
    of_data += "lightning.LightningDataModule.from_datasets(...)"
    if hasattr(data, "to_parquet"):
        of_data = "save a table as a file: frame.to_parquet('table.parquet'), then "
        of_data += "litlab.compose('data=table', 'data.path=table.parquet', ...)"
    wanted: list[tuple[object, type | tuple[type, ...], str, str]] = [
        (config, Config, "config", COMPOSED),
        (task, (pl.LightningModule, NoneType), "task", of_module),
        (data, (pl.LightningDataModule, NoneType), "data", of_data),
        (monitor, (str, NoneType), "monitor", 'give a name: monitor="val_acc"'),
        (callbacks, (list, tuple), "callbacks", "give a list: callbacks=[...]"),
    ]
    wrong = []
    for value, kind, name, fix in wanted:
        try:
            require(value, kind, f"litlab.train({name})", fix)
        except ConfigError as error:
            wrong.append(error)
    refuse(wrong)


def as_recorded(
    config: Config,
    task: pl.LightningModule | None,
    data: pl.LightningDataModule | None,
    monitor: str | None,
) -> Config:
    """Return the configuration that the record and the checkpoints have.

    It says which parts were given as objects of Python, or are a LightningModule's own: neither can
    be built from it again.

    Raises:
        ConfigError: A monitor is given for a task that has one, or a DataModule of another seed.
    """
    changes: dict[str, object] = {}
    if monitor is not None:
        if task is None or isinstance(task, Task) or monitor.startswith("test/"):
            fix = "give it to litlab.compose, or to the task; the test split selects nothing"
            raise ConfigError("cannot be set here", f"monitor={monitor}", fix)
        changes["monitor"] = monitor
    if task is None:
        changes |= _without_unused(config)
    else:
        stand_in = {"_target_": GIVEN, "name": _path(task)}
        changes |= dict.fromkeys(("task", "model", "loss", "optimizer", "scheduler"), stand_in)
        if isinstance(task, Task):
            changes["model"] = {**stand_in, "name": _path(task.model)}
            changes["loss"] = {**stand_in, "name": _path(task.loss)}
            metrics = task.parts.metrics.items()
            changes["metrics"] = {name: {**stand_in, "name": _path(m)} for name, m in metrics}
            changes |= {"monitor": task.parts.monitor, "monitor_mode": task.parts.mode}
    if isinstance(data, DataModule):  # the record says what it was made of
        own = data.config
        if (config.seed, config.trainer.overfit_batches) != (
            own.seed,
            own.trainer.overfit_batches,
        ):
            what = "the DataModule was made with another seed or trainer.overfit_batches"
            fix = "make it with the configuration that is trained: litlab.DataModule(config)"
            raise ConfigError(what, "litlab.train(data=...)", fix)
        changes |= {"data": own.data, "loader": own.loader, "augment": own.augment}
    elif data is not None:
        source = {"_target_": "litlab.data.sources.given.GivenInPython", "name": _path(data)}
        named = {"name": _name(type(data)), "path": None, "source": source}
        changes["data"] = config.data.model_copy(update=named)
    if not isinstance(data, DataModule) and (data is not None or own_module.is_own_data(config)):
        _warn_of_typed(config, own_module.UNUSED_WITH_OWN_DATA, "the data have their own")
    return config.model_copy(update=changes)


def follow_data(
    config: Config, data: pl.LightningDataModule | None = None, prepared: Path | None = None
) -> Config:
    """Return a configuration that fits the data, where the user chose nothing else.

    The task, with its loss and metrics, is that of the targets; a batch is at most the train split.

    Args:
        config: The configuration.
        data: A LightningDataModule given in Python.
        prepared: Folder of the prepared data; data/prepared/<name> if None.

    Raises:
        ConfigError: What was set besides does not fit that task.
        DataError: The data cannot be prepared.
    """
    if data is not None:
        spec = getattr(data, "spec", None)
        if not isinstance(spec, DataSpec):
            return config
    elif own_module.is_own_data(config):
        return config
    else:
        _, spec = open_or_prepare(config.data, config.trust, prepared)
        config = _smaller_batch(config, spec)
    followed = follow_targets(config, spec.task, spec.name)
    if followed is config:
        return config
    if is_first_process():
        loss, metrics = followed.loss["_target_"].rpartition(".")[2], ", ".join(followed.metrics)
        targets = TARGETS.get(spec.task, spec.task)
        say(f"{spec.name}: the targets are {targets}, so task={spec.task} is used")
        say(f"  loss {loss}; metrics {metrics}")
    return preflight(followed)


def _smaller_batch(config: Config, spec: DataSpec) -> Config:
    """Take the whole train split for a batch where it is smaller than the default batch."""
    number, overrides = spec.sizes["train"], config._overrides
    if overrides is None or any(word.lstrip("+").startswith("loader") for word in overrides):
        return config
    if number >= config.loader.batch_size:
        return config
    if is_first_process():
        say(f"{spec.name}: loader.batch_size={number}, all samples of train, is used")
    smaller = config.model_copy(
        update={"loader": config.loader.model_copy(update={"batch_size": number})}
    )
    smaller._overrides = config._overrides
    return smaller


def _without_unused(config: Config) -> dict[str, object]:
    """Return stand-ins for the parts that a LightningModule of the user's own has itself.

    A record that named an optimizer which did not train would be untrue.
    """
    unused = own_module.unused_groups(config)
    _warn_of_typed(config, unused, f"{config.task['_target_']} has its own")
    stand_in = {"_target_": GIVEN, "name": config.task["_target_"]}
    changes: dict[str, object] = dict.fromkeys(unused, stand_in)
    return {**changes, **({"metrics": {}} if "metrics" in changes else {})}


def _warn_of_typed(config: Config, unused: Sequence[str], why: str) -> None:
    """Warn of overrides of groups that are not used, unless they choose nothing."""
    typed = [
        override
        for override in config._overrides or ()
        if re.split(r"[.=@]", override.lstrip("+~"))[0] in unused and not override.endswith("=none")
    ]
    if typed:
        warnings.warn(f"{' '.join(typed)}: no effect, {why}", stacklevel=5)


def _named(config: Config, task: pl.LightningModule) -> Config:
    """Name a run by the network that it trains, where the configuration does not say it."""
    given = config.task["_target_"] == GIVEN
    if config.name is not None or (isinstance(task, Task) and not given):
        return config
    model = own_module.network(task)
    return config.model_copy(update={"name": f"{config.data.name}-{_name(type(model))}"})


def _path(part: object) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _name(kind: type) -> str:
    return file_name(kind.__name__.lower()).strip("_") or "own"


def build_parts(
    config: Config,
    interrupted: Interruption | None = None,
    prepared: Path | None = None,
    task: pl.LightningModule | None = None,
    data: pl.LightningDataModule | None = None,
) -> RunParts:
    """Build what is not given, and refuse what does not fit together.

    Args:
        config: The configuration.
        interrupted: The interrupted run that is resumed, if any.
        prepared: Folder of the prepared data; data/prepared/<name> if None.
        task: A LightningModule given in Python.
        data: A LightningDataModule given in Python.

    Raises:
        LitlabError: A part cannot be built, or the parts do not fit each other.
    """
    if data is None:
        own = own_module.is_own_data(config)
        data = own_module.build_own_data(config) if own else DataModule(config, prepared)
    spec = own_module.spec_of(data, config.data.name)
    seeding.seed_everything(config.seed)
    if task is None:
        task = _task(config, spec, data)
    elif isinstance(task, Task):
        task.try_on(spec)
    own_module.refuse_unsupported(config, task, data)
    own_module.require_logged(config, task)
    own_module.mode_of(config, task)  # else it would be asked for when the run has begun
    warm_start = None
    if isinstance(task, Task) and config.init_from is not None and interrupted is None:
        warm_start = init_from(task.model, spec, config.init_from, config.trust)
    frozen = freeze(own_module.network(task), config.trainer)
    if isinstance(data, ArrayDataModule):
        check_with_data(config, spec, own_module.network(task))
        data.open()  # a damaged file is found before anything is recorded
    if interrupted is not None:
        check_fits(interrupted, spec, task.state_dict(), config.trust)
    config = _named(config, task)
    if warm_start is not None:
        warm_start = warm_start.frozen(frozen)
    return RunParts(config, task, data, spec, warm_start)


def _task(config: Config, spec: DataSpec, data: pl.LightningDataModule) -> pl.LightningModule:
    if own_module.is_own_module(config):
        return own_module.build_own_module(config, spec)
    if spec.kind == "other":
        what = f"{type(data).__name__} has no `spec`, which the model and the task are built by"
        fix = "give it an attribute `spec`, a litlab.DataSpec, or set task._target_ to your module"
        raise ConfigError(what, "data", fix)
    return build_task(config, spec)
