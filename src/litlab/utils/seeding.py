import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (torch's on all devices)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries still use the old global generator
    torch.manual_seed(seed)


@contextmanager
def kept() -> Iterator[None]:
    """Leave the global generators of Python, NumPy and torch (on the CPU) as they were."""
    pythons, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)  # noqa: NPY002


# Every random state of a process, as tensors and plain values, out and in.


State = dict[str, Any]


def state() -> State:
    """Return the states of Python's, NumPy's and torch's global generators, on all devices."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    assert isinstance(kind, str)
    return {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [kind, torch.tensor(np.asarray(keys, np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(saved: State) -> None:
    """Set what `state` returned; devices that are no longer there are passed over."""
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, position, has_gauss, cached = saved["numpy"]
    words = keys.numpy().astype(np.uint32)
    np.random.set_state((kind, words, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(saved["torch"])
    for device, one in enumerate(saved["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(one, device)
