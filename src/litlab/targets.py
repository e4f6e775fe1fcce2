"""Import paths in the configuration (`_target_`): which are allowed, and how they are built.

Hydra's `instantiate` calls whatever it is told, behind a blocklist that is no security boundary.
Here the list says what may run: litlab's own components, the layers, metrics, callbacks and
augmentations of the libraries it stands on, and the packages that the user names in `trust`.
"""

import importlib
import re
import sys
from collections.abc import Iterable
from typing import Any

from litlab.errors import ConfigError, nearest
from litlab.paths import project_root

ALLOWED = (
    "litlab.",
    "torch.nn.",
    "torch.optim.",
    "torchmetrics.",
    "lightning.pytorch.callbacks.",
    "kornia.augmentation.",
)
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def check(target: object, where: str, trust: Iterable[str]) -> str:
    """Return an import path that may be used, by its prefix alone; nothing is imported.

    Raises:
        ConfigError: It is not an import path, or its package is not allowed.
    """
    if not isinstance(target, str) or not _PATH.fullmatch(target):
        raise ConfigError(
            f"_target_ {target!r} is not an import path", where, "write package.module.Name"
        )
    if not target.startswith((*ALLOWED, *(f"{package}." for package in trust))):
        package = target.partition(".")[0]
        raise ConfigError(
            f"_target_ '{target}' is outside the packages that may run",
            where,
            f"if you trust it, add it to the configuration: trust=[{package}]",
        )
    return target


def locate(target: str, where: str, trust: Iterable[str]) -> Any:
    """Import what a path names.

    The module in which the class or function was *defined* must be allowed too: a path such as
    `litlab.task.torch.hub.load` starts well and ends elsewhere.

    Raises:
        ConfigError: It does not exist, cannot be called, or comes from a package not allowed.
    """
    trust = tuple(trust)
    module_name, _, name = check(target, where, trust).rpartition(".")
    root = str(project_root())
    if root not in sys.path:  # a user's own modules lie beside conf/
        sys.path.append(root)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"no module '{error.name}' for _target_ '{target}'", where, "check the spelling"
        ) from None
    if not hasattr(module, name):
        raise ConfigError(f"'{module_name}' has no '{name}'", where, nearest(name, dir(module)))
    found = getattr(module, name)
    home = f"{getattr(found, '__module__', '')}."
    if not callable(found) or not home.startswith((*ALLOWED, *(f"{p}." for p in trust))):
        raise ConfigError(
            f"'{target}' is not a class or function of a package that may run",
            where,
            "name it where it is defined",
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
