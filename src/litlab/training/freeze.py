"""Which parameters are not trained, by patterns of their names."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from litlab.config.schema import TrainerConfig
from litlab.tasks.own_module import network
from litlab.utils.errors import ConfigError, nearest

WHERE = "trainer.freeze"


def freeze(model: nn.Module, trainer: TrainerConfig) -> set[str]:
    """Freeze what `trainer.freeze` names, for good unless it is to thaw later; return the names.

    What thaws stays in the optimizer, which leaves parameters without a gradient alone; the
    callback `litlab.training.freeze.Freezing` freezes and thaws it.

    Raises:
        ConfigError: A pattern matches nothing, or all would be frozen.
    """
    names = frozen_names(model, trainer.freeze)
    if trainer.unfreeze_epoch is None:
        for name, parameter in model.named_parameters():
            if name in names:
                parameter.requires_grad_(False)
    return names


def frozen_names(model: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Return the names of the parameters that patterns match, by themselves or by their module.

    Raises:
        ConfigError: A pattern matches nothing, or together they match everything.
    """
    every = [name for name, _ in model.named_parameters()]
    found: set[str] = set()
    for pattern in patterns:
        matching = {n for n in every if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")}
        if not matching:
            modules = [name for name, module in model.named_modules() if name and _has(module)]
            hint = nearest(pattern, [*modules, *every])
            raise ConfigError(f"no parameter is called '{pattern}'", WHERE, hint)
        found |= matching
    if found and found == set(every):
        raise ConfigError("every parameter would be frozen", WHERE, "leave out at least the head")
    return found


def _has(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def frozen_norms(model: nn.Module, names: set[str]) -> list[nn.Module]:
    """Return the batch norms of the frozen parts: those whose parameters are all frozen.

    One without parameters goes by the module it is in. Their statistics must not move either, or
    the frozen layers behind them would see other inputs than those they were trained on.
    """
    found: list[nn.Module] = []
    for path, module in model.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        inside = {f"{path}.{name}" for name, _ in module.named_parameters()}
        if not inside:
            parent = path.rpartition(".")[0]
            above = model.get_submodule(parent).named_parameters(prefix=parent)
            inside = {name for name, _ in above}
        if inside and inside <= names:
            found.append(module)
    return found


class Freezing(Callback):
    """Keeps the batch norms of frozen parts in eval mode, and thaws all of it when it is time.

    Args:
        patterns: What is frozen.
        until: The first epoch, from 0, that trains everything; None for never.
    """

    def __init__(self, patterns: Sequence[str], until: int | None = None) -> None:
        self.patterns, self.until = tuple(patterns), until

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freeze, or not any more: a resumed fit may begin in any epoch."""
        self._set(pl_module, trainer.current_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Thaw in its epoch."""
        self._set(pl_module, trainer.current_epoch)

    def _set(self, task: pl.LightningModule, epoch: int) -> None:
        model = network(task)
        names = frozen_names(model, self.patterns)
        frozen = self.until is None or epoch < self.until
        for name, parameter in model.named_parameters():
            if name in names:
                parameter.requires_grad_(not frozen)
                if frozen:
                    parameter.grad = None
        for norm in frozen_norms(model, names):
            norm.train(not frozen)
