"""LightningModules and LightningDataModules of the user's own, and what litlab knows of them.

Of a `Task` litlab knows the model, the loss and the metrics. Any other LightningModule has its own
`training_step` and `configure_optimizers`, and logs what it likes: its runs are tracked, saved,
resumed and tuned all the same. What needs to know more is refused, or said once at the start.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from torch import nn

from litlab.config.constraints import GIVEN
from litlab.config.instantiate import build, locate
from litlab.config.schema import Config
from litlab.data.datamodule import ArrayDataModule
from litlab.data.sources.given import GivenInPython
from litlab.data.spec import DataSpec
from litlab.tasks.build import build_model
from litlab.tasks.metrics import build_metrics, direction
from litlab.tasks.task import Task
from litlab.utils.errors import ConfigError, closest

UNUSED_WITH_OWN_DATA = ("loader", "augment")  # a LightningDataModule makes its own batches
UNUSED = ("loss", "optimizer", "scheduler", "metrics")  # by a LightningModule that is no `Task`
LESS_IS_BETTER = {"loss", "error", "err", "mae", "mse", "rmse", "nll", "perplexity"}
MORE_IS_BETTER = {"accuracy", "acc", "auroc", "auc", "f1", "precision", "recall", "iou", "r2"}


def is_own_module(config: Config) -> bool:
    """Whether the configuration's task is a LightningModule that is not a `Task`.

    Raises:
        ConfigError: It cannot be imported, or is not a LightningModule.
    """
    return not is_known_task(config.task["_target_"], config.trust)


def is_known_task(target: str, trust: Sequence[str]) -> bool:
    """Whether a task is litlab's or derived from it; a function that makes one counts.

    Raises:
        ConfigError: It cannot be imported, or is not a LightningModule.
    """
    found = locate(target, "task._target_", trust)
    if not (isinstance(found, type) and issubclass(found, pl.LightningModule)):
        if isinstance(found, type):
            fix = "derive it from lightning.LightningModule, or from litlab.ClassificationTask"
            raise ConfigError(f"{found.__name__} is not a LightningModule", "task._target_", fix)
        return True
    return issubclass(found, Task)


def is_own_data(config: Config) -> bool:
    """Whether the configuration's data source is a LightningDataModule.

    Raises:
        ConfigError: It cannot be imported.
    """
    found = locate(config.data.source["_target_"], "data.source._target_", config.trust)
    return isinstance(found, type) and issubclass(found, pl.LightningDataModule)


def is_array_source(target: str, trust: Sequence[str]) -> bool:
    """Whether a data source is read into arrays: no LightningDataModule, nor one made in Python.

    Raises:
        ConfigError: It cannot be imported.
    """
    found = locate(target, "data.source._target_", trust)
    return not (
        isinstance(found, type) and issubclass(found, pl.LightningDataModule | GivenInPython)
    )


def unused_groups(config: Config) -> list[str]:
    """Return the groups of a configuration that its own LightningModule has itself.

    Raises:
        ConfigError: The task cannot be imported.
    """
    if not is_own_module(config):
        return []
    found = locate(config.task["_target_"], "task._target_", config.trust)
    takes_model = "model" in inspect.signature(found).parameters
    return [*UNUSED, *([] if takes_model else ["model"])]


def build_own_module(config: Config, spec: DataSpec) -> pl.LightningModule:
    """Build it, with the `model` and the `spec` where its constructor has parameters of that name.

    Raises:
        ConfigError: It refuses its settings.
    """
    found = locate(config.task["_target_"], "task._target_", config.trust)
    taken = inspect.signature(found).parameters
    node = dict(config.task)
    if node.get("l1") == 0.0 and "l1" not in taken:
        del node["l1"]  # of litlab's own tasks, at a default that means nothing
    if "spec" in taken:
        node["spec"] = spec
    if "model" in taken:
        node["model"] = build_model(config, spec)
    module: pl.LightningModule = build(node, where="task", trust=config.trust)
    return module


def build_own_data(config: Config) -> pl.LightningDataModule:
    """Build the LightningDataModule that `data.source` names.

    Raises:
        ConfigError: It refuses its settings.
    """
    data: pl.LightningDataModule = build(
        config.data.source, where="data.source", trust=config.trust
    )
    return data


def spec_of(data: pl.LightningDataModule, name: str) -> DataSpec:
    """Return what a model is told of the data: their `spec`, or that nothing is known."""
    own = getattr(data, "spec", None)
    if isinstance(own, DataSpec):
        return own
    return DataSpec(
        name=name,
        source=f"{type(data).__module__}.{type(data).__qualname__}",
        kind="other",
        task="other",
        shape=(),
        dtype="float32",
        sizes={},
        licence="",
        origin="",
    )


def network(module: pl.LightningModule) -> nn.Module:
    """Return the network of a task; any other LightningModule is its own."""
    return module.model if isinstance(module, Task) else module


def mode_of(config: Config, module: pl.LightningModule) -> str:
    """Return "min" or "max": which way the monitored value gets better.

    Raises:
        ConfigError: Neither the configuration nor the value's name tells.
    """
    if config.monitor_mode is not None:
        return config.monitor_mode
    if isinstance(module, Task):
        return module.parts.mode
    words = set(re.split(r"\W|_", config.monitor.lower()))
    name = config.monitor.partition("/")[2]
    if name in config.metrics and config.task["_target_"] != GIVEN:
        return direction(config.monitor, build_metrics(config.metrics, 2, config.trust))
    if bool(words & LESS_IS_BETTER) != bool(words & MORE_IS_BETTER):
        return "min" if words & LESS_IS_BETTER else "max"
    what = f"cannot tell whether '{config.monitor}' is to be minimized or maximized"
    raise ConfigError(what, "monitor", "set monitor_mode=min or monitor_mode=max")


def require_logged(config: Config, module: pl.LightningModule) -> None:
    """Refuse a monitor that the module's source does not log, as far as that can be read.

    A name that is close to one that it logs is a slip, and litlab's own default was not chosen.
    Anything else may be logged elsewhere, and is found out after the first epoch.

    Raises:
        ConfigError: It is one of these two.
    """
    if isinstance(module, Task):
        return
    names = _logged(type(module))
    if not names or config.monitor in names:
        return
    close = closest(config.monitor, names)
    if close or config.monitor == "val/loss":
        name = type(module).__name__
        what = f"{name} does not log '{config.monitor}', by which the best epoch is chosen"
        listed = [close] if close else sorted(names)
        fix = "use " + " or ".join(f"monitor={one}" for one in listed)
        raise ConfigError(what, f"monitor={config.monitor}", fix)


def _logged(kind: type) -> set[str]:
    """Return the names that a class logs; none where one of them is not written out."""
    names: set[str] = set()
    for base in kind.__mro__[: kind.__mro__.index(pl.LightningModule)]:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):  # typed into a plain interpreter
            return set()
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in ("log", "log_dict") or not node.args:
                continue
            first = node.args[0]
            keys = first.keys if isinstance(first, ast.Dict) else [first]
            if isinstance(node.func.value, ast.Name) and node.func.value.id != "self":
                continue  # torch.log(x)
            if not all(isinstance(k, ast.Constant) and isinstance(k.value, str) for k in keys):
                return set()
            for key in keys:
                value = str(getattr(key, "value", ""))
                names |= {value, f"{value}_epoch", f"{value}_step"} if _splits(node) else {value}
    return names


def _splits(call: ast.Call) -> bool:
    """Whether a value may be logged by step and by epoch, under two more names."""
    return any(keyword.arg in ("on_step", "on_epoch", None) for keyword in call.keywords)


def refuse_unsupported(
    config: Config, module: pl.LightningModule, data: pl.LightningDataModule
) -> None:
    """Refuse settings that need to know the model, the loss or the arrays.

    Raises:
        ConfigError: One is asked for that a module or data of the user's own cannot have.
    """
    trainer = config.trainer
    from_config = isinstance(module, Task) and config.task["_target_"] != GIVEN
    asked: dict[str, Any] = {"trainer.lr_find": trainer.lr_find != "off" and not from_config}
    if not isinstance(module, Task):
        asked |= {
            "trainer.compile=true": trainer.compile,
            "init_from": config.init_from,
            "trainer.freeze": trainer.freeze,
            "trainer.strategy=fsdp2": trainer.strategy == "fsdp2",
        }
    if not isinstance(data, ArrayDataModule):
        asked |= {"trainer.budget": trainer.budget, "data.num_folds": config.data.num_folds}
    if not (isinstance(module, Task) and isinstance(data, ArrayDataModule)):
        asked |= {
            "trainer.batch_size_find": trainer.batch_size_find != "off",
            "trainer.overfit_batches": trainer.overfit_batches,
            "trainer.swa": trainer.swa,
        }
    found = [setting for setting, wanted in asked.items() if wanted]
    if found:
        whose = type(data if isinstance(module, Task) else module).__name__
        what = f"not available with a class of your own, {whose}"
        raise ConfigError(what, found[0], "leave it out, or do it in the class")


def introduction(module: pl.LightningModule, data: pl.LightningDataModule) -> str | None:
    """Return one line on what a run of the user's own classes cannot have; None for litlab's."""
    lacks = []
    if not isinstance(module, Task):
        lacks += ["evaluate", "predict", "replay", "litlab's faster training step"]
    if not isinstance(data, ArrayDataModule):
        lacks += ["the preview", "resuming within an epoch"]
        lacks += [] if "evaluate" in lacks else ["evaluate"]
    if not lacks:
        return None
    own = [
        type(o).__name__
        for o, is_own in (
            (module, not isinstance(module, Task)),
            (data, not isinstance(data, ArrayDataModule)),
        )
        if is_own
    ]
    kept = "tracked, saved, resumed and tuned as any run"
    return f"{' and '.join(own)}: {kept}; without {', '.join(lacks)}"
