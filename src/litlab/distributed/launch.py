"""How the processes of a run were started."""

import os

from litlab.config.schema import TrainerConfig
from litlab.utils.errors import ConfigError


def is_first_process() -> bool:
    """Whether this process records the run; Lightning, torchrun and SLURM number the others."""
    numbers = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in numbers)


def as_launched(trainer: TrainerConfig) -> TrainerConfig:
    """Return the settings with the number of processes that `torchrun` has started.

    Raises:
        ConfigError: The configuration asks for another number.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return trainer
    local, world = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    given, nodes = trainer.devices, world // local
    number = len(given) if isinstance(given, list) else given
    if number not in (1, "auto", local) or trainer.num_nodes not in (1, nodes):
        raise ConfigError(
            f"torchrun started {local} processes on each of {nodes} machines, the configuration "
            f"asks for devices={given}, num_nodes={trainer.num_nodes}",
            "trainer.devices, trainer.num_nodes",
            "leave them out: torchrun's numbers are used",
        )
    devices = given if isinstance(given, list) else local
    return trainer.model_copy(update={"devices": devices, "num_nodes": nodes})
