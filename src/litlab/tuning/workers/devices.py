"""What each of a study's workers trains on: its share of the CPU's threads, GPUs of its own."""

import os
from dataclasses import dataclass

from litlab.config.schema import Config, TrainerConfig
from litlab.utils import gpus
from litlab.utils.errors import ConfigError, EnvironmentFault


@dataclass(frozen=True)
class Slot:
    """What one worker has.

    Attributes:
        threads: Of the CPU.
        gpus: As `CUDA_VISIBLE_DEVICES` names them; none on the CPU.
    """

    threads: int
    gpus: tuple[str, ...] = ()

    def take(self, config: Config) -> Config:
        """Let this process see the slot's GPUs alone; return the configuration to train with.

        CUDA reads the variable once, when it starts: nothing may have used it here before.
        """
        if not self.gpus or config.trainer.accelerator == "cpu":
            return config
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        trainer = config.trainer.model_copy(update={"devices": len(self.gpus)})
        return config.model_copy(update={"trainer": trainer})


def slots(trainer: TrainerConfig, workers: int, threads: int) -> list[Slot]:
    """Share this machine out among the workers of a study.

    A worker has `trainer.devices` GPUs, one if that is "auto"; a list of GPUs is shared out.

    Args:
        trainer: Of the configuration that is tuned.
        workers: How many trials train at the same time.
        threads: Of the CPU, all together.

    Raises:
        ConfigError: There are fewer GPUs than the workers need; or a trial needs several machines.
        EnvironmentFault: The system cannot fork a process, as trials are.
    """
    if not hasattr(os, "fork"):
        what = "trials are forked processes, which this system does not have"
        raise EnvironmentFault(what, "litlab tune", "run it on Linux or macOS, or in WSL 2")
    if trainer.num_nodes > 1:
        what = f"a trial trains on one machine, not on {trainer.num_nodes}"
        raise ConfigError(what, "trainer.num_nodes", "trainer.num_nodes=1")
    share = max(1, threads // workers)
    names = [] if trainer.accelerator in ("cpu", "mps") else gpus.visible()
    if not names:
        return [Slot(share)] * workers
    # Whatever asks torch for a GPU in this process must not start CUDA: it forks the trials.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    if isinstance(trainer.devices, list):
        names = [names[i] for i in trainer.devices if i < len(names)]
        each = max(1, len(names) // workers)
    else:
        each = 1 if trainer.devices == "auto" else trainer.devices
    if workers * each > len(names):
        raise _too_few(workers, each, len(names))
    return [Slot(share, tuple(names[i * each : (i + 1) * each])) for i in range(workers)]


def _too_few(workers: int, each: int, number: int) -> ConfigError:
    most = number // each
    fix = f"study.workers={most}" if most else f"trainer.devices={number}"
    what = f"{workers * each} GPUs are needed ({workers} workers, {each} each), there are {number}"
    return ConfigError(what, "study.workers, trainer.devices", fix)
