"""Import paths in the configuration (`_target_`): which are allowed, and how they are built.

Hydra's `instantiate` calls whatever it is told, behind a blocklist that is no security boundary.
Here the list says what may run: litlab's own components, the layers, optimizers, metrics
and augmentations of the libraries it stands on, and the packages that the user names in `trust`. It
names litlab's packages one by one: `litlab.config.instantiate.build` as a target would build
anything at all.
"""

import importlib
import re
from collections.abc import Iterable
from typing import Any

from litlab.utils.errors import ConfigError, nearest
from litlab.utils.paths import make_importable

COMPONENTS = (
    "litlab.data.augment.",
    "litlab.data.sources.",
    "litlab.tasks.losses.",
    "litlab.models.",
    "litlab.tasks.optim.optimizers.",
    "litlab.tasks.perplexity.",
    "litlab.tasks.optim.schedules.",
    "litlab.tasks.multi_label.",
    "litlab.tasks.task.",
)
LIBRARIES = (
    "torch.nn.",
    "torch.optim.",
    "torchmetrics.classification.",  # others may download weights by name
    "torchmetrics.regression.",
)
# Where components lay before; configurations and checkpoints that name them so keep working.
MOVED = {
    "litlab.losses.": "litlab.tasks.losses.",
    "litlab.optim.": "litlab.tasks.optim.optimizers.",
    "litlab.perplexity.": "litlab.tasks.perplexity.",
    "litlab.schedules.": "litlab.tasks.optim.schedules.",
    "litlab.task.": "litlab.tasks.task.",
    "litlab.data.augment.cutmix.": "litlab.data.augment.mixing.",
    "litlab.data.augment.mixup.": "litlab.data.augment.mixing.",
    "litlab.data.augment.mixup_cutmix.": "litlab.data.augment.mixing.",
    "litlab.data.augment.rand_augment.": "litlab.data.augment.policies.",
    "litlab.data.augment.trivial_augment.": "litlab.data.augment.policies.",
    "litlab.data.sources.breast_cancer.": "litlab.data.sources.scikit_learn.",
    "litlab.data.sources.diabetes.": "litlab.data.sources.scikit_learn.",
    "litlab.data.sources.digits.": "litlab.data.sources.scikit_learn.",
    "litlab.data.sources.fashion_mnist.": "litlab.data.sources.idx.",
    "litlab.data.sources.idx_files.": "litlab.data.sources.idx.",
    "litlab.data.sources.mnist1d.": "litlab.data.sources.synthetic.",
    "litlab.data.sources.wine.": "litlab.data.sources.scikit_learn.",
    "litlab.tasks.losses.binary_cross_entropy.": "litlab.tasks.losses.classification.",
    "litlab.tasks.losses.cross_entropy.": "litlab.tasks.losses.classification.",
    "litlab.tasks.losses.focal.": "litlab.tasks.losses.classification.",
}
_PATH = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+")  # nothing private


class UntrustedTarget(ConfigError):
    """A `_target_` in a package that may not run."""


def check(target: object, where: str, trust: Iterable[str]) -> str:
    """Return an import path that may be used, by its prefix alone; nothing is imported.

    What has moved since is returned as it is called today.

    Raises:
        ConfigError: It is not an import path, or (`UntrustedTarget`) its package is not allowed.
    """
    if not isinstance(target, str) or not _PATH.fullmatch(target):
        raise ConfigError(
            f"_target_ {target!r} is not an import path", where, "write package.module.Name"
        )
    for before, now in MOVED.items():
        if target.startswith(before):
            target = now + target.removeprefix(before)  # in order: packages, then files
    if not _allowed(target, trust):
        package = target.partition(".")[0]
        fix = f"if you trust it, add it to the configuration: trust=[{package}]"
        if package == "litlab":
            fix = f"litlab's components are in {', '.join(name[:-1] for name in COMPONENTS)}"
        raise UntrustedTarget(f"_target_ '{target}' is not in a trusted package", where, fix)
    return target


def _allowed(path: str, trust: Iterable[str]) -> bool:
    return path.startswith((*COMPONENTS, *LIBRARIES, *(f"{package}." for package in trust)))


def locate(target: str, where: str, trust: Iterable[str]) -> Any:
    """Import what a path names.

    The module in which the class or function was *defined* must be allowed too: a path such as
    `litlab.tasks.task.torch.hub.load` starts well and ends elsewhere.

    Raises:
        ConfigError: It does not exist, cannot be called, or comes from a package not allowed.
    """
    trust = tuple(trust)
    module_name, _, name = check(target, where, trust).rpartition(".")
    make_importable()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"no module '{error.name}' for _target_ '{target}'", where, "check the spelling"
        ) from None
    if not hasattr(module, name):
        public = [n for n in dir(module) if not n.startswith("_")]
        raise ConfigError(f"'{module_name}' has no '{name}'", where, nearest(name, public))
    found = getattr(module, name)
    if not callable(found) or not _allowed(f"{getattr(found, '__module__', '')}.", trust):
        raise ConfigError(
            f"'{target}' is not a class or function of a trusted package",
            where,
            "use the path of the module that defines it",
        )
    return found


def build(node: dict[str, Any], *given: object, where: str, trust: Iterable[str] = ()) -> Any:
    """Call a node's `_target_` with `given` first and the node's other entries by keyword.

    Raises:
        ConfigError: The target is not allowed, or refuses its hyperparameters.
    """
    found = locate(node["_target_"], f"{where}._target_", trust)
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    try:
        return found(*given, **arguments)
    except (ValueError, TypeError) as error:
        fix = f"change {where}, or choose another '{where.partition('.')[0]}'"
        raise ConfigError(str(error), f"{where} ({node['_target_']})", fix) from error
