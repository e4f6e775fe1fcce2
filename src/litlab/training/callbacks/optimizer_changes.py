from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

LR = "optimizer.lr"
RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # all that torch's schedules keep in a group


class OptimizerChanges(Callback):
    """Puts changed optimizer settings into the groups that a checkpoint has restored.

    A learning rate is scaled, wherever the schedule stands: each step that follows has the rate
    that it would have had, times new by old. Everything else takes its new value.

    Args:
        changed: Dotted setting, old and new value, and perhaps more.
    """

    def __init__(self, changed: Sequence[tuple[Any, ...]]) -> None:
        self.names = [
            setting.removeprefix("optimizer.")
            for setting, *_ in changed
            if setting.startswith("optimizer.") and setting != LR
        ]
        self.scale = next((new / old for setting, old, new, *_ in changed if setting == LR), 1.0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do it once the optimizer and the schedule are restored."""
        if self.names:
            task: Any = pl_module
            fresh = task.parts.optimizer(task.model).param_groups
            groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
            # By name: a frozen layer's group is there in one of them only.
            named = {group.get("name", place): group for place, group in enumerate(fresh)}
            for place, group in enumerate(groups):
                new = named.get(group.get("name", place), {})
                group.update({name: new[name] for name in self.names if name in new})
        if self.scale == 1.0:
            return
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group.update({rate: group[rate] * self.scale for rate in RATES if rate in group})
        for config in trainer.lr_scheduler_configs:
            for name in ("base_lrs", "_last_lr"):
                rates = getattr(config.scheduler, name, None)
                if rates is not None:
                    setattr(config.scheduler, name, [rate * self.scale for rate in rates])
