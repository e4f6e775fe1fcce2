"""Labels of any kind -> class numbers."""

from collections.abc import Mapping

import numpy as np

from litlab.data.spec import Array


def number_classes(labels: Mapping[str, Array]) -> tuple[list[str], dict[str, Array]]:
    """Return the classes' names, and each part's labels as numbers `(N,)`, int64.

    The classes are the labels of all parts in their order, so that numbering from 1, or with gaps,
    does no harm. One that train lacks is refused later, by its name.

    Args:
        labels: By part, `(N,)`: integers or strings.
    """
    found = np.unique(np.concatenate([np.unique(part) for part in labels.values()]))
    numbers = {name: np.searchsorted(found, part) for name, part in labels.items()}
    return [str(label) for label in found], {n: y.astype(np.int64) for n, y in numbers.items()}
