import random
from collections.abc import Iterator
from contextlib import contextmanager

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
