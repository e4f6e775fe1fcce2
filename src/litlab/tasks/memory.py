"""How much memory there is, and a network that does not fit refused before it is allocated."""

import mmap
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from litlab.config.schema import Config
from litlab.utils.errors import ConfigError, EnvironmentFault

# By name of the memory: its free bytes, and how many of them each byte of weights takes.
MemoryLimits = Mapping[str, tuple[float, float]]

GIB = 2**30
OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "not enough memory"),
    *("storage size calculation overflowed", "numel: integer multiplication overflow"),
)
FILLED = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)  # size, then options
CGROUPS = Path("/sys/fs/cgroup")


def peak() -> int:
    """Return the most memory that the process has had, in bytes; 0 where unknown (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def resident() -> int:
    """Return the memory that the process has now, in bytes; its peak where that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak()
    return pages * mmap.PAGESIZE


def free_memory() -> int:
    """Return how much memory this process may still take, in bytes.

    The least of what the machine, the process's cgroups and its own limit (`ulimit -v`) leave;
    4 GiB where none of them is known.
    """
    limits = [*_of_machine(), *_of_cgroups(), *_of_process()]
    return max(0, min(limits, default=4 * GIB))


def _of_machine() -> Iterator[int]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return
    fields = dict(line.split(":", 1) for line in lines)
    if "MemAvailable" in fields:
        yield sum(int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))


def _of_cgroups() -> Iterator[int]:
    """What each cgroup above the process leaves; file pages that could be dropped are free."""
    try:
        own = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    path = next((line[3:].lstrip("/") for line in own if line.startswith("0::")), "")
    for folder in [CGROUPS / path, *(CGROUPS / path).parents]:
        try:
            most = int((folder / "memory.max").read_text())  # "max" is none
            used = int((folder / "memory.current").read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        statistics = dict(line.split() for line in lines)
        yield most - used + int(statistics.get("inactive_file", 0))


def _of_process() -> Iterator[int]:
    try:
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    if limit != resource.RLIM_INFINITY:
        yield limit - pages * mmap.PAGESIZE


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in text for phrase in OUT_OF_MEMORY)
    )


@contextmanager
def explained(doing: str, where: str, fix: str) -> Iterator[None]:
    """Turn an allocation that fails into one line.

    Raises:
        EnvironmentFault: Memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        free = f"{free_memory() / GIB:,.1f} GiB of it are free"
        raise EnvironmentFault(
            f"{doing} needs more memory than is available; {free}", where, fix
        ) from error


def memory_to_train(config: Config) -> MemoryLimits:
    """Return what memory a training has for its weights, and what gradients and the like take.

    A lower bound: activations, batches and checkpoints come on top, and nothing but the weights is
    counted where some of them are frozen or shared out.
    """
    trainer, optimizer = config.trainer, config.optimizer
    name = optimizer["_target_"].removeprefix("litlab.tasks.optim.optimizers.")
    moments = {"adam": 2, "adamw": 2, "muon": 1, "sgd": int(optimizer.get("momentum", 0.9) > 0)}
    averaged = trainer.ema is not None or trainer.swa is not None
    copies = 2.0 + moments.get(name, 0) + averaged
    if trainer.freeze or trainer.strategy == "fsdp2":
        copies = 1.0
    on_gpu = trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if not on_gpu:
        return {"memory": (free_memory(), copies)}
    size = {"bf16-true": 0.5, "16-true": 0.5, "64-true": 2.0}.get(trainer.precision, 1.0)
    # Not what is free now: asking would start CUDA on every GPU, one of which it will be.
    gpus = range(torch.cuda.device_count())
    most = max(torch.cuda.get_device_properties(i).total_memory for i in gpus)
    return {"memory": (free_memory(), 1.0), "GPU memory": (most, copies * size)}


@contextmanager
def enough_for_model(limits: MemoryLimits | None = None) -> Iterator[None]:
    """Refuse a network that is being built, before it needs more memory than is available.

    Each layer's weights are measured before they are allocated, and counted with those before.

    Args:
        limits: What may be taken; None: the free memory of this process, for the weights alone.

    Raises:
        ConfigError: The weights do not fit.
        EnvironmentFault: Memory ran out otherwise, while the network was built.
    """
    watch = _Watch(limits or {"memory": (free_memory(), 1.0)})
    hook = register_module_parameter_registration_hook(watch.count)
    try:
        with explained("building the network", "model", "choose smaller layers"), watch:
            yield
    finally:
        hook.remove()


class _Watch(TorchFunctionMode):
    """Sees tensors before they are allocated, and parameters when a module gets them."""

    def __init__(self, limits: MemoryLimits) -> None:
        super().__init__()
        self.limits, self.weights, self.seen = limits, 0, set[int]()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in FILLED:
            self.require(self.weights + _bytes(args, kwargs))
        return func(*args, **kwargs)

    def count(self, module: nn.Module, name: str, parameter: Any) -> None:
        """Count a parameter, a shared one once."""
        if not isinstance(parameter, torch.Tensor) or is_lazy(parameter):
            return
        if id(parameter) not in self.seen:
            self.seen.add(id(parameter))
            self.weights += parameter.nbytes
            self.require(self.weights)

    def require(self, weights: int) -> None:
        """Refuse weights of so many bytes where they do not fit."""
        for name, (free, factor) in self.limits.items():
            if weights * factor > free:
                needed = f"the network needs {weights * factor / GIB:,.1f} GiB of {name} or more"
                times = f" ({factor:g} times its weights, to train it)" if factor > 1 else ""
                raise ConfigError(
                    f"{needed}{times}, but {free / GIB:,.1f} GiB are available",
                    "model",
                    "choose smaller layers, or fewer",
                )


def _bytes(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """The size of the tensor that a call of one of `FILLED` makes; 0 where that is not plain."""
    size = kwargs.get("size", args[0] if len(args) == 1 else args)
    size = [size] if isinstance(size, int) else size
    device = kwargs.get("device")
    if not all(isinstance(side, int) for side in size) or str(device) == "meta":
        return 0
    dtype: torch.dtype = kwargs.get("dtype") or torch.get_default_dtype()
    number: int = prod(size)
    return number * dtype.itemsize
