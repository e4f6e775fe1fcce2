import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (torch's on all devices)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries still use the old global generator
    torch.manual_seed(seed)
