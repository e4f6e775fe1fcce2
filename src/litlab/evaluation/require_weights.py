"""Builds a checkpoint's network only if the file holds the weights for it.

A few lines of metadata can ask for a layer of 10^9 units. So the network is first built on torch's
"meta" device, where tensors have shapes and take no memory, and compared with the file.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules import module as hooks

from litlab.runs.checkpoint.metadata import Loaded, refuse_another_model
from litlab.tasks.build import build_model
from litlab.utils.errors import CheckpointError, LitlabError

MODEL = "model."  # what a task calls its network
MOST_TABLES = 2**26  # numbers in buffers that no checkpoint holds, such as sines of positions
FIX = "use another checkpoint, or the configuration it was trained with"


class _TooMuch(Exception):
    """A network registers more than the file has weights for."""


def require_held(loaded: Loaded, path: Path) -> None:
    """Refuse a configuration that asks for other or larger weights than the file holds.

    Raises:
        CheckpointError: It does.
    """
    weights = {k: v for k, v in loaded.weights.items() if k.startswith(MODEL)}
    own = sum(_numbers(weights).values())
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), _at_most(20 * len(weights)):
            model = build_model(loaded.metadata.config, loaded.metadata.spec)
    except _TooMuch:
        what = f"its configuration asks for more layers than the {len(weights)} weights it holds"
        raise CheckpointError(what, str(path), FIX) from None
    except LitlabError:
        raise
    except Exception:  # a network of the user's own may not know the device: it is built for real
        return
    asked = {MODEL + name: value for name, value in model.state_dict().items()}
    refuse_another_model(asked, weights, path)
    needed = sum(p.numel() for p in model.parameters())
    tables = sum(b.numel() for b in model.buffers())
    if needed > own or tables > own + MOST_TABLES:
        what = f"its configuration asks for {max(needed, tables):,} numbers, and it holds {own:,}"
        raise CheckpointError(what, str(path), FIX)


def _numbers(weights: Mapping[str, torch.Tensor]) -> dict[int, int]:
    """How many numbers each piece of memory really has; a tensor of strides 0 repeats them."""
    storages = ((w.untyped_storage(), w.element_size()) for w in weights.values())
    return {storage.data_ptr(): storage.nbytes() // size for storage, size in storages}


@contextmanager
def _at_most(number: int) -> Iterator[None]:
    """End a construction that registers more than so many modules, parameters and buffers."""
    counted = 0

    def count(*_: Any) -> None:
        nonlocal counted
        counted += 1
        if counted > 1000 + number:
            raise _TooMuch

    handles = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_module_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
