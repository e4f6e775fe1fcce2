"""Settings of the Trainer that do not go together, refused before anything heavy is imported."""

from litlab.errors import ConfigError
from litlab.schema import TrainerConfig


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
            "trainer.swa.start is a share of a known number of epochs",
            "trainer.budget, trainer.swa",
            "set trainer.max_epochs, or use trainer.ema",
        )
    if trainer.unfreeze_epoch is not None and not trainer.freeze:
        raise ConfigError(
            "nothing is frozen", "trainer.unfreeze_epoch", "set trainer.freeze, or leave it out"
        )
    if trainer.strategy.startswith("fsdp"):
        _check_sharded(trainer)


def _check_sharded(trainer: TrainerConfig) -> None:
    """Refuse what needs each process to have every weight."""
    for name in ("ema", "swa", "log_norms", "compile", "channels_last"):
        if getattr(trainer, name) not in (False, None, "auto"):
            raise ConfigError(
                f"strategy={trainer.strategy} gives each process a part of the weights",
                f"trainer.{name}, trainer.strategy",
                f"leave trainer.{name} out, or use strategy=ddp",
            )
    if trainer.precision not in ("32-true", "bf16-mixed"):
        raise ConfigError(
            f"precision {trainer.precision} does not go with strategy={trainer.strategy}",
            "trainer.precision, trainer.strategy",
            "use bf16-mixed or 32-true",
        )
