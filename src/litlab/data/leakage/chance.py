"""Which rows of a table equal others by chance, because its columns hold few values."""

import numpy as np

from litlab.data.spec import Array

# Columns depend on each other, so a row is less surprising than its cells are one by one: half of
# the bits. On the census table (Adult, 32,561 rows) that judges none of the 9 equal rows to be
# chance, and without the column that tells its people apart 1,415 of 1,543; of copies put into
# tables of measurements (wine, breast cancer) none (docs/log.md).
DEPENDENCE = 0.5


def by_chance(train: Array, rows: Array) -> Array:
    """Return which rows train would be expected to hold once more, were it drawn anew `(n,)`.

    A row's surprisal, -sum of log2 of how frequent each of its values is in train, halved because
    columns depend on each other, gives the number of equals expected among as many rows as train
    has. One or more is chance; far less means that somebody copied the row.

    Args:
        train: Stored values of the train split `(N, F)`.
        rows: The rows in question `(n, F)`.
    """
    bits = np.zeros(len(rows))
    for column in range(train.shape[1]):
        values, counts = np.unique(train[:, column], return_counts=True)
        places = np.minimum(np.searchsorted(values, rows[:, column]), len(values) - 1)
        seen = np.where(values[places] == rows[:, column], counts[places], 1)
        bits -= np.log2(seen / len(train))
    expected: Array = len(train) * np.exp2(-DEPENDENCE * bits)
    return expected >= 1.0
