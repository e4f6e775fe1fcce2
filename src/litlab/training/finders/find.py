"""Learning rate and batch size, found before a run begins, and used if that was asked for."""

from pathlib import Path

from litlab.config.schema import Config
from litlab.data.datamodule import ArrayDataModule
from litlab.runs.checkpoint.metadata import load
from litlab.tasks.build import use_settings
from litlab.tasks.task import Task
from litlab.training.finders.batch_size import find_batch_size
from litlab.training.finders.lr import find_lr
from litlab.training.preflight import check_feasible, num_processes
from litlab.utils.errors import ConfigError
from litlab.utils.output import say
from litlab.utils.paths import short


def find_settings(
    config: Config, task: Task, data: ArrayDataModule, folder: Path
) -> tuple[Config, list[Path]]:
    """Find what is asked for; return the configuration to train with, and files to keep.

    Args:
        config: What was asked.
        task: Its optimizer is made at the found rate from now on.
        data: Serves batches of the found size from now on.
        folder: The run's.

    Raises:
        ConfigError: Several processes, or nothing that could be used was found.
    """
    files: list[Path] = []
    for name in ("batch_size_find", "lr_find"):
        if getattr(config.trainer, name) != "off" and num_processes(config.trainer) > 1:
            raise ConfigError(
                "lr_find and batch_size_find need a single process",
                f"trainer.{name}",
                "find it with trainer.devices=1, and set it",
            )
    if config.trainer.batch_size_find != "off":
        config = _batch_size(config, task, data, folder, files)
    if config.trainer.lr_find != "off":
        config = _learning_rate(config, task, data, folder, files)
    return config, files


def _batch_size(
    config: Config, task: Task, data: ArrayDataModule, folder: Path, files: list[Path]
) -> Config:
    found = find_batch_size(task, data, config)
    files += found.save(folder)
    for trial in found.trials:
        speed = f"{trial.samples_per_second:,.0f} samples/s" if trial.fits else "does not fit"
        say(f"  batches of {trial.batch_size:>6}: {speed}, {trial.memory:,.0f} MiB")
    used = config.trainer.batch_size_find == "use"
    end = "used" if used else f"loader.batch_size={config.loader.batch_size} is kept"
    say(f"largest batch: {found.batch_size}, ended by {found.ended_by}; {end}")
    if not used:
        return config
    loader = config.loader.model_copy(update={"batch_size": found.batch_size})
    config = config.model_copy(update={"loader": loader})
    check_feasible(config, data.spec, task.model)
    data.loader = loader
    return config


def _learning_rate(
    config: Config, task: Task, data: ArrayDataModule, folder: Path, files: list[Path]
) -> Config:
    curve = find_lr(task, data, config.trainer)
    files += curve.save(folder)
    used, before = config.trainer.lr_find == "use", config.optimizer.get("lr")
    if curve.suggestion is None:
        what = "the loss falls at no learning rate from 1e-7 to 10"
        if used:
            fix = f"look at {short(files[-1])}, and set optimizer.lr"
            raise ConfigError(what, "trainer.lr_find", fix)
        say(f"{what}; optimizer.lr={before} is kept")
        return config
    found = float(f"{curve.suggestion:.3g}")
    schedule = config.scheduler["_target_"].rpartition(".")[2]
    if not used:
        say(f"learning rate {found:g} suggested, where the loss falls fastest; {before} is kept")
        return config
    say(f"learning rate {found:g} in place of {before}: optimizer.lr, the largest of {schedule}")
    config = config.model_copy(update={"optimizer": {**config.optimizer, "lr": found}})
    use_settings(task, config)
    return config


def settings_of(config: Config, checkpoint: Path, task: Task, data: ArrayDataModule) -> Config:
    """Return a configuration with what was found when the run began that is now gone on with."""
    trainer = config.trainer
    if "use" not in (trainer.batch_size_find, trainer.lr_find):
        return config
    began = load(checkpoint, config.trust).card.config
    if trainer.batch_size_find == "use":
        data.loader = config.loader.model_copy(update={"batch_size": began.loader.batch_size})
        config = config.model_copy(update={"loader": data.loader})
    if trainer.lr_find == "use":
        optimizer = {**config.optimizer, "lr": began.optimizer["lr"]}
        config = config.model_copy(update={"optimizer": optimizer})
        use_settings(task, config)
    return config
