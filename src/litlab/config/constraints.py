"""Settings of the Trainer that do not go together, refused before anything heavy is imported."""

from litlab.config.schema import TrainerConfig
from litlab.utils.errors import ConfigError


def check(trainer: TrainerConfig) -> None:
    """Refuse what contradicts itself.

    Raises:
        ConfigError: Two settings exclude each other.
    """
    if trainer.ema and trainer.swa:
        raise ConfigError(
            "both average the weights", "trainer.ema, trainer.swa", "set one of them to null"
        )
    if trainer.budget and trainer.swa:
        raise ConfigError(
            "trainer.swa needs a fixed number of epochs",
            "trainer.budget, trainer.swa",
            "set trainer.max_epochs, or use trainer.ema",
        )
    if trainer.unfreeze_epoch is not None and not trainer.freeze:
        raise ConfigError(
            "no parameter is frozen",
            "trainer.unfreeze_epoch",
            "set trainer.freeze, or leave it out",
        )
    _check_unused(trainer)
    if trainer.strategy.startswith("fsdp"):
        _check_sharded(trainer)


def _check_unused(trainer: TrainerConfig) -> None:
    """Refuse what would be ignored because of what another setting says."""
    if trainer.gradient_clip_algorithm != "norm" and trainer.gradient_clip_val is None:
        raise ConfigError(
            "no gradient is clipped",
            "trainer.gradient_clip_algorithm",
            "set trainer.gradient_clip_val, or leave it out",
        )
    if trainer.batch_size_limit is not None and trainer.batch_size_find == "off":
        raise ConfigError(
            "trainer.batch_size_find is off",
            "trainer.batch_size_limit",
            "set trainer.batch_size_find=use, or leave it out",
        )
    if trainer.overfit_batches and trainer.limit_train_batches is not None:
        raise ConfigError(
            "both set the number of training batches",
            "trainer.overfit_batches, trainer.limit_train_batches",
            "set trainer.limit_train_batches=null",
        )
    epoch = trainer.unfreeze_epoch
    if epoch is not None and not trainer.budget and epoch >= trainer.max_epochs:
        raise ConfigError(
            f"unfreeze_epoch={epoch} (counted from 0) is not below max_epochs={trainer.max_epochs}",
            "trainer.unfreeze_epoch, trainer.max_epochs",
            "lower it, or leave it out",
        )


def _check_sharded(trainer: TrainerConfig) -> None:
    """Refuse what needs each process to have every weight."""
    for name in ("ema", "swa", "log_norms", "compile", "channels_last"):
        if getattr(trainer, name) not in (False, None, "auto"):
            raise ConfigError(
                f"strategy={trainer.strategy} splits the weights between the processes",
                f"trainer.{name}, trainer.strategy",
                f"leave trainer.{name} out, or use strategy=ddp",
            )
    if trainer.precision not in ("32-true", "bf16-mixed"):
        raise ConfigError(
            f"precision {trainer.precision} cannot be combined with strategy={trainer.strategy}",
            "trainer.precision, trainer.strategy",
            "use bf16-mixed or 32-true",
        )
