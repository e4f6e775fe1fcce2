"""What a run trains and on what: built from its configuration, or given in Python."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl

from litlab.config.compose import load
from litlab.config.constraints import GIVEN
from litlab.config.schema import Config
from litlab.data.datamodule import ArrayDataModule, DataModule
from litlab.data.prepare.open import open_or_prepare
from litlab.data.spec import DataSpec
from litlab.runs.checkpoint.resume import Interruption, check_fits
from litlab.tasks import own_module
from litlab.tasks.build import TASKS, build_task
from litlab.tasks.task import Task
from litlab.training.freeze import freeze
from litlab.training.preflight import check_with_data
from litlab.training.warm_start import WarmStart, init_from
from litlab.utils import seeding
from litlab.utils.errors import ConfigError
from litlab.utils.output import say
from litlab.utils.paths import file_name


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

    @property
    def known(self) -> bool:
        """Whether task and data are litlab's own, and so can be evaluated."""
        return isinstance(self.task, Task) and isinstance(self.data, ArrayDataModule)


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
    return config.model_copy(update=changes)


def follow_target(config: Config, prepared: Path | None = None) -> Config:
    """Return the configuration with the task that fits a target whose task the source decides.

    Loss and metrics come with it. A task that the user has chosen stays.

    Args:
        config: The configuration; one that was not composed from overrides stays as it is.
        prepared: Folder of the prepared data; data/prepared/<name> if None.

    Raises:
        LitlabError: The data cannot be prepared, or settings do not fit their task.
    """
    own = {f"{Task.__module__}.{name}": kind for kind, name in TASKS.items()}
    typed = {re.split(r"[.=@]", o.lstrip("+~"))[0] for o in config._overrides or ()}
    if (
        config._overrides is None
        or config.data.source.get("task") != "auto"
        or config.task["_target_"] not in own
        or typed & {"task", "experiment"}
    ):
        return config
    kind = open_or_prepare(config.data, config.trust, prepared)[1].task
    if own[config.task["_target_"]] == kind:
        return config
    fitting = load([*config._overrides, f"task={kind}"])
    say(f"{config.data.name}: the target's task is {kind} (task={kind})")
    groups = ("task", "loss", "metrics", "plot", "monitor", "monitor_mode")
    changes = {name: getattr(fitting, name) for name in groups}
    found = config.model_copy(update=changes)
    found._overrides = fitting._overrides
    return found


def _without_unused(config: Config) -> dict[str, object]:
    """Return stand-ins for the parts that a LightningModule of the user's own has itself.

    A record that named an optimizer which did not train would be untrue.
    """
    unused = own_module.unused_groups(config)
    typed = [o for o in config._overrides or () if re.split(r"[.=@]", o.lstrip("+~"))[0] in unused]
    if typed:
        name = config.task["_target_"]
        warnings.warn(f"{' '.join(typed)}: no effect, {name} has its own", stacklevel=4)
    stand_in = {"_target_": GIVEN, "name": config.task["_target_"]}
    changes: dict[str, object] = dict.fromkeys(unused, stand_in)
    return {**changes, **({"metrics": {}} if "metrics" in changes else {})}


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
    own_module.refuse_unsupported(config, task, data)
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
