"""Classes per split: how many, and whether their shares differ by more than chance."""

import numpy as np

from litlab.data.leakage.report import Finding
from litlab.data.leakage.statistics import LEVEL, share_p_values
from litlab.data.spec import Array

RATIO = 1.2  # smaller differences of a class's share are no matter, however certain
SHOWN = 5


def imbalance(counts: dict[str, Array], classes: tuple[str, ...]) -> list[Finding]:
    """Find classes whose share of val or test is not that of train.

    Args:
        counts: Samples of each class, by split `(C,)`.
        classes: Their names.
    """
    train, details = counts["train"], []
    for split in ("val", "test"):
        other = counts[split]
        if not train.sum() or not other.sum():
            continue
        p = share_p_values(train, int(train.sum()), other, int(other.sum()))
        shares = train / train.sum(), other / other.sum()
        larger, smaller = np.maximum(*shares), np.minimum(*shares)
        found = (p < LEVEL / (2 * len(train))) & (larger > RATIO * smaller)
        details += [
            f"{classes[place]}: {shares[0][place]:.1%} of train, {shares[1][place]:.1%} of {split}"
            for place in np.flatnonzero(found)
        ]
    if not details:
        return []
    shown = "; ".join(details[:SHOWN]) + ("; ..." if len(details) > SHOWN else "")
    return [
        Finding(
            check="imbalance",
            stops=False,
            count=len(details),
            message=f"class frequencies differ between splits by more than chance: {shown}",
            details=tuple(details),
        )
    ]
