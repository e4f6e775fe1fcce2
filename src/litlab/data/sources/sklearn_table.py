from collections.abc import Callable
from typing import Any

import numpy as np

from litlab.data.raw import Raw


def read_table(load: Callable[[], Any], *, licence: str, origin: str) -> Raw:
    """Return one of scikit-learn's classification tables, its target as class numbers."""
    table = load()
    return Raw(
        kind="tabular",
        task="classification",
        parts={"all": (table.data.astype(np.float32), table.target)},
        classes=[str(name) for name in table.target_names],
        features=[str(name) for name in table.feature_names],
        licence=licence,
        origin=origin,
    )
