"""Refuses a wrong configuration before anything heavy is imported or any data are read."""

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from litlab.config import constraints, instantiate, signature
from litlab.config import messages as complaints
from litlab.config.schema import GIVEN_BY_NAME, NUM_GIVEN, Component, Config, TrainerConfig
from litlab.utils import gpus
from litlab.utils.errors import ConfigError, EnvironmentFault, nearest
from litlab.utils.paths import make_importable

M = TypeVar("M", bound=BaseModel)
CXX = {"Darwin": "clang++", "Windows": "cl"}.get(platform.system(), "g++")  # torch.compile's choice


def check_config(content: dict[str, Any], origin: str, *, device: bool = True) -> Config:
    """Return a raw configuration as a checked one, with its values in their declared types.

    Args:
        content: Plain nested values.
        origin: Where it was read from, for messages.
        device: Whether the devices it asks for must be here (a checkpoint may come from elsewhere).

    Raises:
        ConfigError: The first thing that is wrong.
    """
    config = _validated(Config, content, "", origin)
    components = {where: _checked(where, node, config.trust) for where, node in _components(config)}
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update={"source": components.pop("data.source")}),
            "augment": _group("augment", components),
            "metrics": _group("metrics", components),
            **{key: node for key, node in components.items() if "." not in key},
        }
    )
    _check_path(config)
    _check_monitor(config)
    _check_task(config)
    constraints.check(config.trainer)
    if device:
        check_device(config.trainer)
    return config


def _group(name: str, components: dict[str, Component]) -> dict[str, Component]:
    prefix = f"{name}."
    return {k.removeprefix(prefix): v for k, v in components.items() if k.startswith(prefix)}


def _components(config: Config) -> Iterator[tuple[str, Component]]:
    yield "data.source", config.data.source
    for group in ("augment", "metrics"):
        for name, node in getattr(config, group).items():
            yield f"{group}.{name}", node
    for group in ("model", "task", "loss", "optimizer", "scheduler"):
        yield group, getattr(config, group)


def _checked(where: str, node: Component, trust: list[str]) -> Component:
    """Check one component's target and hyperparameters, as far as its source tells."""
    if "_target_" not in node:
        raise ConfigError("names no class", where, f"add {where}._target_: package.module.Name")
    target = instantiate.check(node["_target_"], f"{where}._target_", trust)
    num_given = NUM_GIVEN.get(where, NUM_GIVEN.get(where.partition(".")[0], 0))
    given = {key: value for key, value in node.items() if key != "_target_"}
    if target.startswith(instantiate.LIBRARIES):
        return {
            **node,
            "_target_": target,
        }  # a library's: reading it would import torch; it is checked when it is built
    make_importable()
    try:
        by_name = GIVEN_BY_NAME.get(where.partition(".")[0], ())
        model = signature.schema(target, num_given, by_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"no module '{error.name}' for _target_ '{target}'",
            f"{where}._target_",
            "check the spelling",
        ) from None
    except LookupError as error:
        module, _, name = target.rpartition(".")
        hint = nearest(name, error.args)
        raise ConfigError(f"'{module}' has no '{name}'", f"{where}._target_", hint) from None
    except SyntaxError as error:
        what = f"'{target}' cannot be read: {error.msg}, line {error.lineno}"
        raise ConfigError(what, f"{where}._target_", "mend the file") from None
    if model is None:
        return {**node, "_target_": target}
    if where == "task" and given.get("l1") == 0.0 and "l1" not in model.model_fields:
        del given["l1"]  # of litlab's own tasks, at a default that means nothing
    checked = _validated(model, given, where, target)
    return {"_target_": target, **checked.model_dump(exclude_unset=True)}


def _validated(model: type[M], content: object, where: str, origin: str) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = error.errors()
        # A misspelt key is also a missing one; the misspelling says more.
        unknown = [p for p in problems if p["type"] == "extra_forbidden"]
        problem = (unknown or problems)[0]
        raise complaints.explain(problem, model, content, where, origin) from None


def _check_path(config: Config) -> None:
    """Refuse a path that the source does not take."""
    path, source = config.data.path, config.data.source
    if path is not None and "path" not in source and path not in map(str, source.values()):
        name = source["_target_"].rpartition(".")[2]
        raise ConfigError(f"{name} reads no files of yours", "data.path", "leave it out")


def _check_monitor(config: Config) -> None:
    if "loss" in config.metrics:
        raise ConfigError("'loss' is taken by the loss", "metrics.loss", "give it another name")
    split, _, name = config.monitor.partition("/")
    known = [f"{s}/{m}" for s in ("val", "train") for m in ("loss", *config.metrics)]
    if config.monitor in known:
        return
    target = config.task["_target_"]
    own = not target.startswith("litlab.") or target == "litlab.tasks.task.given_in_python"
    if split != "test" and own:
        return  # a LightningModule of one's own logs what it likes: the first epoch will tell
    if split == "test":
        fix = "selecting on the test split would spoil it: use val/" + (name or "loss")
    else:
        fix = nearest(config.monitor, known)
    raise ConfigError(f"nothing called '{config.monitor}' is measured", "monitor", fix)


def _check_task(config: Config) -> None:
    """Refuse shipped losses and metrics of another task; a user's own are tried when built."""
    task = config.task["_target_"].removeprefix("litlab.tasks.task.")
    of_regression = ("litlab.tasks.losses.regression.", "torchmetrics.regression.")
    of_classification = (
        "litlab.tasks.losses.",
        "torchmetrics.classification.",
        "litlab.tasks.perplexity.",
    )
    names = {"LanguageModelTask": "language models"}
    for where, node in _components(config):
        target = node["_target_"]
        if target.startswith(of_regression):
            misfit = task in ("ClassificationTask", "LanguageModelTask")
        else:
            misfit = task == "RegressionTask" and target.startswith(of_classification)
        if misfit:
            name = target.rpartition(".")[2]
            kind = names.get(task, task.removesuffix("Task").lower())
            fix = f"choose another {where.partition('.')[0]}, or another task"
            raise ConfigError(f"{name} is not for {kind}", where, fix)


def check_device(trainer: TrainerConfig) -> None:
    """Refuse a device or a precision this machine certainly lacks; torch has the last word later.

    Raises:
        ConfigError: What was asked for is absent. There is no silent fallback.
        EnvironmentFault: The compiler is.
    """
    kind, asked, precision = trainer.accelerator, trainer.devices, trainer.precision
    if Path("/dev/kfd").exists():  # AMD's ROCm, which torch calls "cuda" as well
        return
    found = {"cuda": 0 if kind in ("cpu", "mps") else _count_cuda(), "mps": _has_mps()}
    found["gpu"] = max(found["cuda"], found["mps"])
    if kind in found and found[kind] < _number_needed(asked):
        raise ConfigError(
            f"{kind} with devices={asked}: this machine has {found[kind]}",
            "trainer.accelerator, trainer.devices",
            "use trainer.accelerator=cpu, or auto",
        )
    on_cpu = kind == "cpu" or (kind == "auto" and not found["gpu"])
    if on_cpu and isinstance(asked, list):
        raise ConfigError(
            f"devices={asked} numbers GPUs, and there is none in use",
            "trainer.devices",
            "set the number of processes: 1, 2, ...",
        )
    if trainer.compile and on_cpu and not shutil.which(os.environ.get("CXX", CXX)):
        raise EnvironmentFault(
            f"no C++ compiler ({os.environ.get('CXX', CXX)}), which torch.compile needs",
            "trainer.compile",
            "install one (Debian: apt-get install g++), or set trainer.compile=false",
        )
    if on_cpu and precision in ("16-mixed", "16-true", "transformer-engine"):
        raise ConfigError(
            f"precision {precision} needs a GPU", "trainer.precision", "use bf16-mixed or 32-true"
        )


def _number_needed(devices: int | str | list[int]) -> int:
    if isinstance(devices, list):
        return max(devices, default=0) + 1
    return devices if isinstance(devices, int) else 1


def _has_mps() -> int:
    return int(platform.system() == "Darwin" and platform.machine() == "arm64")


def _count_cuda() -> int:
    return len(gpus.visible())
