"""What each of a study's workers trains on: its share of the CPU's threads, GPUs of its own."""

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from lightning.fabric.plugins.environments.lightning import find_free_network_port

from litlab.config.schema import Config, TrainerConfig
from litlab.distributed.watchdog import GRACE, PARENT
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


# The processes of a trial that trains in several, on one machine.
#
# Lightning would start the others by repeating the command line, which here is the study's; and
# each would import everything once more. They are forked instead, before anything has used a GPU
# or begun a pool of threads, and find one another as they do under `torchrun`.


ENDING = 2 * GRACE + 2  # seconds; the watchdog has ended all by then, its last words included
BRIEFLY = 1.0  # where the first has failed: what the others still do is of no use


class Ranks:
    """The processes of a trial: `with Ranks(2) as ranks` is entered by each, and left by each.

    Attributes:
        rank: This process's, from 0.

    Args:
        number: How many there are to be, this one included.
    """

    def __init__(self, number: int) -> None:
        self.rank, self._others = 0, set[int]()
        self._left = threading.Event()
        if number == 1:
            return
        # Not from the study's own surroundings: trials side by side must not meet.
        os.environ.pop("RANK", None)
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(find_free_network_port()),
            "WORLD_SIZE": str(number),
            "NODE_RANK": "0",
            "LOCAL_RANK": "0",
        }
        first = os.getpid()
        for rank in range(1, number):
            pid = os.fork()
            if not pid:
                os.environ |= {"LOCAL_RANK": str(rank), PARENT: str(first)}
                self.rank, self._others = rank, set()
                return
            self._others.add(pid)
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()

    def _watch(self) -> None:
        """End this process where another one has died before they had found one another."""
        while not self._left.wait(0.3):
            if self._reap():
                if not self._left.wait(ENDING):
                    os._exit(5)
                return

    def _reap(self) -> bool:
        """Take note of those that have ended; return whether one of them ended badly."""
        bad = False
        for pid in list(self._others):
            with suppress(ChildProcessError):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if not ended:
                    continue
                bad |= status != 0
            self._others.discard(pid)
        return bad

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the others, so that what they held is free for the next trial."""
        self._left.set()
        deadline = time.monotonic() + (ENDING if kind is None else BRIEFLY)
        while self._others and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.02)
        for pid in self._others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
